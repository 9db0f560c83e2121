from __future__ import annotations

import asyncio
import base64
import inspect
import subprocess
import sys
from pathlib import Path

import pytest

from flyte import _context, _init
from flyte.errors import InitializationError, NotInitializedError

KEY = "twr_abcdefghijkl_" + "s" * 43
CONFIG = """
admin:
  endpoint: dns:///file.example
  caCertFilePath: /etc/ca.pem
  clientId: ignored
task:
  project: file-project
  domain: file-domain
  org: file-org
"""


def packed(endpoint: str, org: str = "acme") -> str:
    return base64.b64encode(f"{endpoint}:cid:secret:{org}".encode()).decode()


@pytest.fixture(autouse=True)
def bare_process(bare: pytest.MonkeyPatch) -> pytest.MonkeyPatch:
    return bare


def test_a13_without_init_there_is_no_session() -> None:
    with pytest.raises(NotInitializedError, match="init_passthrough"):
        _init.current_session()


def test_a1_a2_both_calls_work() -> None:
    _init.init_passthrough(endpoint="h.example")
    assert _init.current_session().mode == "passthrough"
    asyncio.run(_init.init_passthrough.aio(endpoint="other.example"))
    assert _init.current_session().endpoint.url == "https://other.example"


def test_a3_the_parameters() -> None:
    parameters = inspect.signature(_init.init_passthrough).parameters
    assert {"endpoint", "project", "domain", "org", "insecure"} <= set(parameters)
    assert parameters["insecure"].default is False
    _init.init_passthrough(endpoint="h.example", project="p", domain="d", org="o", insecure=False)
    session = _init.current_session()
    assert (session.project, session.domain, session.org) == ("p", "d", "o")


def test_a7_no_endpoint_is_an_error_at_init() -> None:
    with pytest.raises(InitializationError, match="FLYTE_ENDPOINT"):
        _init.init_passthrough()
    with pytest.raises(NotInitializedError):
        _init.current_session()


def test_c1_argument_then_injected_then_environment(bare: pytest.MonkeyPatch) -> None:
    bare.setenv("FLYTE_ENDPOINT", "env.example")
    _init.init_passthrough()
    assert _init.current_session().endpoint.host == "env.example"
    bare.setenv("_U_EP_OVERRIDE", "https://injected.example")
    _init.init_passthrough()
    assert _init.current_session().endpoint.host == "injected.example"
    _init.init_passthrough(endpoint="argument.example")
    assert _init.current_session().endpoint.host == "argument.example"


def test_a12_passthrough_takes_no_other_credential(bare: pytest.MonkeyPatch, tmp_path: Path) -> None:
    bare.setenv("FLYTE_API_KEY", KEY)
    _init.init_passthrough(endpoint="h.example")
    assert _init.current_session().mode == "passthrough"
    with pytest.raises(InitializationError):
        _init.init(endpoint="h.example", auth_type="Passthrough", api_key=KEY)


def test_c28_a_file_gives_tls_settings_only(bare: pytest.MonkeyPatch, tmp_path: Path) -> None:
    file = tmp_path / "config.yaml"
    file.write_text(CONFIG)
    bare.setenv("FLYTE_CONFIG", str(file))
    with pytest.raises(InitializationError):
        _init.init_passthrough()
    _init.init_passthrough(endpoint="h.example")
    session = _init.current_session()
    assert session.settings.ca_file == "/etc/ca.pem"
    assert (session.project, session.org) == (None, "")


def test_a14_c2_auth_type() -> None:
    _init.init(endpoint="h.example", auth_type="Passthrough")
    assert _init.current_session().mode == "passthrough"
    _init.init_passthrough(endpoint="h.example", auth_type="Passthrough")
    with pytest.raises(InitializationError):
        _init.init_passthrough(endpoint="h.example", auth_type="Pkce")  # type: ignore[arg-type]


def test_an_api_key_has_a_way_in_by_argument_and_by_environment(bare: pytest.MonkeyPatch) -> None:
    _init.init(endpoint="h.example", api_key=KEY)
    assert _init.current_session().mode == "api_key"
    bare.setenv("FLYTE_API_KEY", KEY)
    _init.init(endpoint="h.example")
    assert _init.current_session().mode == "api_key"
    _init.init_from_api_key(endpoint="h.example")
    assert _init.current_session().mode == "api_key"


def test_a_key_alone_needs_an_endpoint_unless_it_has_one_inside() -> None:
    with pytest.raises(InitializationError, match="endpoint"):
        _init.init_from_api_key(KEY)
    _init.init_from_api_key(packed("tower.example"))
    assert _init.current_session().endpoint.url == "https://tower.example"
    assert _init.current_session().org == "acme"
    _init.init_from_api_key(packed("http://localhost:8080", "None"))
    assert _init.current_session().endpoint.url == "http://localhost:8080"
    assert _init.current_session().org == ""
    _init.init_from_api_key(packed("tower.example"), endpoint="explicit.example")
    assert _init.current_session().endpoint.url == "https://explicit.example"


@pytest.mark.parametrize("key", ["", " ", "a b", "line\nbreak", "sch\u00f6n", "x" * 5000])
def test_a_key_that_is_none_is_refused_and_not_repeated(key: str) -> None:
    with pytest.raises(InitializationError) as caught:
        _init.init(endpoint="h.example", api_key=key)
    assert not key.strip() or key not in str(caught.value)


def test_a_session_never_shows_its_key() -> None:
    _init.init(endpoint="h.example", api_key=KEY)
    session = _init.current_session()
    assert "sss" not in repr(session) + repr(session.credentials) + str(session.fingerprint())


def test_from_config(bare: pytest.MonkeyPatch, tmp_path: Path) -> None:
    file = tmp_path / "tower.yaml"
    file.write_text(CONFIG)
    bare.setenv("FLYTE_ENDPOINT", "env.example")
    _init.init_from_config(file)
    session = _init.current_session()
    assert session.endpoint.url == "https://file.example"
    assert (session.project, session.domain, session.org) == ("file-project", "file-domain", "file-org")


@pytest.mark.parametrize(
    "text",
    ["admin: [1]", "admin: {endpoint: 5}", "{", "- a", "admin: {insecure: maybe}", "!!python/object:x y"],
)
def test_a_file_that_makes_no_sense_is_a_typed_error(tmp_path: Path, text: str) -> None:
    file = tmp_path / "tower.yaml"
    file.write_text(text)
    with pytest.raises(InitializationError):
        _init.init_from_config(file)


def test_no_file_is_a_typed_error(tmp_path: Path) -> None:
    with pytest.raises(InitializationError):
        _init.init_from_config()
    with pytest.raises(InitializationError):
        _init.init_from_config(tmp_path / "absent.yaml")


def test_a_file_in_the_working_directory_does_not_decide_where_credentials_go(
    bare: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    (tmp_path / "config.yaml").write_text("admin: {endpoint: evil.example}")
    bare.chdir(tmp_path)
    with pytest.raises(InitializationError):
        _init.init()


def test_a_file_in_the_home_names_endpoint_and_plain_http(bare: pytest.MonkeyPatch, tmp_path: Path) -> None:
    (tmp_path / ".flyte").mkdir()
    (tmp_path / ".flyte" / "config.yaml").write_text("admin: {endpoint: h.example, insecure: true}")
    _init.init()
    assert _init.current_session().endpoint.url == "http://h.example"
    _init.init(endpoint="other.example")
    assert _init.current_session().endpoint.url == "https://other.example"


def test_a17_c6_project_and_domain_before_any_init(bare: pytest.MonkeyPatch) -> None:
    assert (_init.current_project(), _init.current_domain()) == (None, None)
    _init.init_passthrough(endpoint="h.example", project="mine", domain="prod")
    assert (_init.current_project(), _init.current_domain()) == ("mine", "prod")
    bare.setenv("FLYTE_INTERNAL_EXECUTION_PROJECT", "app-project")
    bare.setenv("FLYTE_INTERNAL_EXECUTION_DOMAIN", "app-domain")
    assert (_init.current_project(), _init.current_domain()) == ("app-project", "app-domain")


def test_a4_a5_the_call_wins_over_the_default() -> None:
    _init.init_passthrough(endpoint="h.example", project="p", domain="d")
    session = _init.current_session()
    assert session.scope() == ("p", "d")
    assert session.scope("q", "e") == ("q", "e")
    assert session.scope() == ("p", "d")
    _init.init_passthrough(endpoint="h.example")
    with pytest.raises(InitializationError, match="project"):
        _init.current_session().scope()


def hosted(bare: pytest.MonkeyPatch, **more: str) -> None:
    bare.setenv("_U_EP_OVERRIDE", "http://127.0.0.1:8080")
    bare.setenv("FLYTE_AGENT_SOCKET", "/run/agent.sock")
    for name, value in more.items():
        bare.setenv(name, value)


def test_in_a_task_the_session_is_there_without_init(bare: pytest.MonkeyPatch) -> None:
    hosted(bare, RUN_NAME="r1", ACTION_NAME="a0", FLYTE_API_KEY=KEY)
    session = _init.current_session()
    assert (session.mode, session.socket) == ("workload", "/run/agent.sock")
    assert session.console_url == "http://127.0.0.1:8080"
    assert _init.current_session() is session
    _init.init_in_cluster()
    assert _init.current_session().mode == "workload"


def test_a13_an_app_has_no_session_of_its_own(bare: pytest.MonkeyPatch) -> None:
    hosted(bare, FLYTE_APP_NAME="webhook")
    with pytest.raises(NotInitializedError):
        _init.current_session()


def test_over_the_socket_a_plain_name_of_the_platform_needs_no_switch(bare: pytest.MonkeyPatch) -> None:
    hosted(bare, FLYTE_APP_NAME="webhook")
    bare.setenv("_U_EP_OVERRIDE", "http://tower.lan:8080")
    _init.init_passthrough(endpoint="http://tower.lan:8080")
    assert _init.current_session().socket == "/run/agent.sock"
    with pytest.raises(InitializationError, match="insecure=True"):
        _init.init(endpoint="http://tower.lan:8080", api_key=KEY)
    with pytest.raises(InitializationError, match="insecure=True"):
        _init.init_passthrough(endpoint="http://other.lan:8080")


@pytest.mark.parametrize("endpoint", [None, "localhost:8080", "dns:///127.0.0.1:8080", "http://[::1]:8080"])
def test_an_app_goes_through_its_socket_to_its_own_tower(
    bare: pytest.MonkeyPatch, endpoint: str | None
) -> None:
    hosted(bare, FLYTE_APP_NAME="webhook")
    _init.init_passthrough(endpoint=endpoint)
    session = _init.current_session()
    assert (session.mode, session.socket) == ("passthrough", "/run/agent.sock")
    assert session.console_url == "http://127.0.0.1:8080"


def test_an_app_goes_straight_to_another_control_plane(bare: pytest.MonkeyPatch) -> None:
    hosted(bare, FLYTE_APP_NAME="webhook")
    _init.init_passthrough(endpoint="elsewhere.example")
    assert _init.current_session().socket is None


def test_who_names_a_credential_of_his_own_does_not_use_the_socket(bare: pytest.MonkeyPatch) -> None:
    hosted(bare, RUN_NAME="r1", ACTION_NAME="a0")
    _init.init(api_key=KEY)
    assert (_init.current_session().mode, _init.current_session().socket) == ("api_key", None)
    _init.init_passthrough()
    assert (_init.current_session().mode, _init.current_session().socket) == ("passthrough", None)


def test_a_task_may_speak_to_another_control_plane_with_a_key(bare: pytest.MonkeyPatch) -> None:
    hosted(bare, RUN_NAME="r1", ACTION_NAME="a0", FLYTE_API_KEY=KEY)
    _init.init(endpoint="elsewhere.example")
    assert (_init.current_session().mode, _init.current_session().socket) == ("api_key", None)
    _init.init(endpoint="localhost:8080")
    assert _init.current_session().mode == "workload"


def test_outside_of_the_platform_there_is_no_cluster_to_be_in() -> None:
    with pytest.raises(InitializationError):
        _init.init_in_cluster()


def test_w17_a_scoped_session_leaves_the_default_alone() -> None:
    _init.init(endpoint="h.example", api_key=KEY)
    default = _init.current_session()
    other = _init.open_session(endpoint="h.example", auth_type="Passthrough")
    with _init.use_session(other):
        assert _init.current_session() is other
    assert _init.current_session() is default
    assert _context.session_override() is None


def test_importing_flyte_loads_neither_protobuf_nor_an_http_client() -> None:
    probe = (
        "import sys, flyte, flyte.errors, flyte.remote, flyte._init\n"
        "flyte._init.init(endpoint='h.example', api_key='k')\n"
        "heavy = {'google.protobuf', 'httpcore', 'anyio', 'h11', 'pydantic', 'yaml'}\n"
        "print(sorted(set(sys.modules) & heavy))"
    )
    done = subprocess.run([sys.executable, "-c", probe], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
