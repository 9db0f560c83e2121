"""Apps below limits, the choice of an identity, third parties: T16, T34 and T48 on a whole Tower."""

from __future__ import annotations

import json
import secrets
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from flyteidl2.app import app_definition_pb2, app_payload_pb2
from flyteidl2.task import task_definition_pb2
from tests.threats.conftest import DOMAIN, PROJECT, Lab
from tests.tower.identity.test_webhook_signatures import SECRET, signed

from tower.identity.webhooks import Scheme

pytestmark = pytest.mark.xdist_group("threats")
CEILING = f"/ceilings/{PROJECT}/{DOMAIN}/probe"
TASK = f"{PROJECT}/{DOMAIN}/lab.attack"
RUNS = """
import flyte, flyte.remote as remote
async def main():
    said = {}
    for name, project in (("lab.attack", None), ("lab.second", None), ("lab.attack", "elsewhere")):
        try:
            task = remote.Task.get(name=name, project=project)
            run = await flyte.run.aio(task, code="def main(): return 1")
            said[f"{project or ''}/{name}"] = run.name
        except Exception as error:
            said[f"{project or ''}/{name}"] = type(error).__name__
    return said
"""
REACH = """
import httpcore, os
POLICY = b'{"name": "by-app", "text": "forbid (principal, action, resource);"}'
def main():
    pool = httpcore.ConnectionPool(uds=os.environ["FLYTE_AGENT_SOCKET"])
    def ask(method, path, body=b"", kind="application/json"):
        headers = [("host", "tower"), ("authorization", request.headers["authorization"]),
                   ("x-flyte-agent", "1"), ("content-type", kind)]
        return pool.request(method, "http://tower" + path, headers=headers, content=body).status
    return CALLS
"""


@pytest.fixture
def second(lab: Lab, tmp_path: Path) -> str:
    """The attacker's task once more, under another name and in another project."""
    text = (Path(__file__).parent / "lab" / "tasks.py").read_text()
    (tmp_path / "tasks.py").write_text(text.replace("def attack", "def second"))
    lab.deploy("mallory", tmp_path, "deploy", "tasks.py", "env")
    answer = lab.rest("admin", "GET", "/whoami")
    assert answer.status_code == 200
    return "lab.second"


@pytest.fixture
def limited(lab: Lab) -> Iterator[Any]:
    """Limit the app `probe`; the limit goes with the test."""

    def limit(**lists: Any) -> None:
        answer = lab.rest("admin", "PUT", CEILING, lists)
        assert answer.status_code == 204, answer.text

    yield limit
    lab.rest("admin", "DELETE", CEILING)


def test_t16_an_app_limited_to_one_task_runs_no_other_for_an_administrator(
    lab: Lab, second: str, limited: Any
) -> None:
    before = lab.inside_app("admin", RUNS)
    assert before["/lab.attack"].startswith("r")
    assert before[f"/{second}"].startswith("r")
    limited(tasks=[TASK])
    said = lab.inside_app("admin", RUNS)
    assert said["/lab.attack"].startswith("r")
    assert not said[f"/{second}"].startswith("r")
    assert not said["elsewhere/lab.attack"].startswith("r")
    # the administrator without the app may, and the refusal names both of them
    refused = lab.audit(event="access.refuse", subject="admin", app=f"{PROJECT}/{DOMAIN}/probe")
    assert f"task:{PROJECT}/{DOMAIN}/{second}" in {each["resource"] for each in refused}
    assert all(each["decision"].startswith("below app:") for each in refused[:1])


def test_t16_an_app_limited_to_another_project_does_nothing_here(lab: Lab, limited: Any) -> None:
    limited(projects=["somewhere"])
    said = lab.inside_app("admin", RUNS)
    assert not any(name.startswith("r") and len(name) == 20 for name in said.values())


def test_t16_an_app_limited_to_looking_changes_nothing_for_an_administrator(lab: Lab, limited: Any) -> None:
    limited(actions=["task:view", "run:view", "app:use"])
    said = lab.inside_app("admin", RUNS)
    assert not any(name.startswith("r") and len(name) == 20 for name in said.values())
    project = f'{{"name": "by-app-{secrets.token_hex(3)}"}}'.encode()
    calls = f"""[
        ask("POST", "/api/v1/keys", b'{{"name": "by-app"}}'),
        ask("POST", "/api/v1/users", b'{{"name": "by-app"}}'),
        ask("PUT", "/api/v1{CEILING}", b"{{}}"),
        ask("DELETE", "/api/v1{CEILING}"),
        ask("POST", "/api/v1/policies", POLICY),
        ask("POST", "/flyteidl2.project.ProjectService/CreateProject", {project!r}),
    ]"""
    assert set(lab.inside_app("admin", REACH.replace("CALLS", calls))) <= {400, 403, 404}
    assert "by-app" not in lab.rest("admin", "GET", "/users").text
    assert lab.rest("admin", "GET", CEILING).json()["ceilings"] != []


# T34


def _app(**security: Any) -> app_payload_pb2.CreateRequest:
    request = app_payload_pb2.CreateRequest()
    app = request.app
    app.metadata.id.project, app.metadata.id.domain, app.metadata.id.name = PROJECT, DOMAIN, "run-as"
    app.spec.container.image = "tower/0"
    app.spec.container.args.extend(["flyte-runtime", "app", "--module", "m", "--app", "run-as"])
    app.spec.ingress.SetInParent()
    app.spec.desired_state = app_definition_pb2.Spec.DesiredState.DESIRED_STATE_STOPPED
    for name, value in security.items():
        setattr(app.spec.security_context.run_as, name, value)
    return request


def test_t34_no_app_and_no_task_says_whom_it_runs_as(lab: Lab) -> None:
    """Every way that the messages offer is refused, not ignored: also for an administrator."""
    for who in ("mallory", "admin"):
        for name in ("iam_role", "k8s_service_account"):
            answer = lab.rpc(who, "app.AppService/Create", _app(**{name: "admin"}))
            assert answer.status_code in {400, 501}, answer.text
            task = task_definition_pb2.TaskSpec()
            task.task_template.id.name = "lab.as"
            task.task_template.container.args.append("x")
            setattr(task.task_template.security_context.run_as, name, "admin")
            assert lab.start(who, "", task_spec=task).status_code == 501


def test_t34_a_contributor_takes_on_no_service_until_it_is_given(lab: Lab) -> None:
    """To let somebody's deliveries run as a privileged service needs the right to act as that very one."""
    tower = lab.tower
    for name, role in (("privileged", "admin"), ("humble", "viewer")):
        tower.tower("users", "add", name, "--service", "--role", role, "--project", PROJECT)
    hook = {
        "project": PROJECT,
        "domain": DOMAIN,
        "app": "probe",
        "path": "/attack",
        "scheme": "hmac",
        "secret": "a secret that is long enough",
    }
    for name in ("privileged", "humble", "admin"):
        answer = lab.rest("mallory", "PUT", "/webhooks", {**hook, "user": name})
        assert answer.status_code in {400, 403, 404}, (name, answer.text)
        key = lab.rest("mallory", "POST", "/keys", {"name": f"as-{name}", "user": name})
        assert key.status_code in {403, 404}, (name, key.text)
    given = {"user": "mallory", "role": "act-as", "service": "humble"}
    assert lab.rest("mallory", "POST", "/bindings", given).status_code == 403
    assert lab.rest("admin", "POST", "/bindings", given).status_code in {200, 201, 204}
    # the one that was given, and no other
    refused = lab.rest("mallory", "PUT", "/webhooks", {**hook, "user": "privileged"})
    assert refused.status_code in {403, 404}
    actions = {each["action"] for each in lab.audit(event="access.refuse", subject="mallory")}
    assert actions & {"service:act-as", "user:manage", "key:manage"}


# T48

HOOKS = """
import flyte
import flyte.remote as remote
from contextlib import asynccontextmanager
from fastapi import FastAPI
from flyte.app import Webhook
from flyte.app.extras import FastAPIAppEnvironment, FastAPIPassthroughAuthMiddleware


@asynccontextmanager
async def lifespan(app):
    await flyte.init_passthrough.aio(project=flyte.current_project(), domain=flyte.current_domain())
    yield


app = FastAPI(lifespan=lifespan)
app.add_middleware(FastAPIPassthroughAuthMiddleware)


async def deliver() -> dict[str, str]:
    run = await flyte.run.aio(remote.Task.get(name="lab.attack"), code="def main(): return 1")
    return {"run": run.name, "who": (await remote.User.get.aio()).subject()}


for scheme in ("github", "slack", "hmac"):
    app.post("/" + scheme)(deliver)

env = FastAPIAppEnvironment(
    name="hooks",
    app=app,
    requires_auth=True,
    image=flyte.Image.from_debian_base().with_pip_packages("fastapi", "uvicorn"),
    webhooks=[Webhook("/" + scheme, scheme=scheme) for scheme in ("github", "slack", "hmac")],
)
"""


@pytest.fixture(scope="module")
def hooks(lab: Lab, tmp_path_factory: pytest.TempPathFactory) -> str:
    """An app that runs a task for each delivery, and a service that GitHub, Slack and the third run as."""
    folder = tmp_path_factory.mktemp("hooks")
    (folder / "hooks.py").write_text(HOOKS)
    lab.deploy("mallory", folder, "serve", "hooks.py", "env")
    lab.tower.tower("users", "add", "courier", "--service", "--role", "contributor", "--project", PROJECT)
    for scheme in ("github", "slack", "hmac"):
        mapped = {
            "project": PROJECT,
            "domain": DOMAIN,
            "app": "hooks",
            "path": f"/{scheme}",
            "scheme": scheme,
            "secret": SECRET.decode(),
            "user": "courier",
        }
        answer = lab.rest("admin", "PUT", "/webhooks", mapped)
        assert answer.status_code < 300, answer.text
    return f"/apps/{PROJECT}/{DOMAIN}/hooks"


@pytest.mark.parametrize("scheme", [Scheme.GITHUB, Scheme.SLACK, Scheme.HMAC])
def test_t48_only_the_genuine_fresh_delivery_runs_and_as_whom_it_is_mapped_to(
    lab: Lab, hooks: str, scheme: Scheme
) -> None:
    body = json.dumps({"sender": {"id": 7}, "nonce": secrets.token_hex(8)}).encode()
    now = time.time()

    def post(headers: Any, content: bytes = body, path: str = f"/{scheme}") -> httpx.Response:
        with lab.elsewhere() as third_party:
            return third_party.post(f"{hooks}{path}", content=content, headers=list(headers))

    before = len(lab.audit(event="run.create", subject="courier"))
    good = signed(scheme, body, at=now, name=secrets.token_hex(8))
    refused = {
        "unsigned": post(()),
        "wrong": post(signed(scheme, body, secret=b"the secret of somebody else", at=now)),
        "another body": post(good, content=body + b" "),
        "another path": post(good, path="/github" if scheme is not Scheme.GITHUB else "/slack"),
        "twice signed": post([*good, good[-1]]),
    }
    if scheme is not Scheme.GITHUB:  # which signs no time: what it sent is remembered for a month
        refused["stale"] = post(signed(scheme, body, at=now - 301))
        refused["from the future"] = post(signed(scheme, body, at=now + 600))  # time passes meanwhile
    assert {what: answer.status_code for what, answer in refused.items()} == dict.fromkeys(refused, 401)

    answer = post(good)
    assert answer.status_code == 200, answer.text
    assert answer.json()["who"] == "courier"
    assert post(good).status_code == 401  # replayed

    created = lab.audit(event="run.create", subject="courier")
    assert len(created) == before + 1
    assert created[0]["run"] == f"{PROJECT}/{DOMAIN}/{answer.json()['run']}"
    assert created[0]["app"] == f"{PROJECT}/{DOMAIN}/hooks"
    details = lab.wait("admin", answer.json()["run"])
    assert details.action.metadata.executed_by.application.id.subject == "courier"
