"""The commands as a script sees them: what is printed where, and the exit status."""

from __future__ import annotations

import io
import json
import stat
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner
from tests.flyte.app.control_plane import in_thread
from tests.flyte.cli.fake_tower import FakeTower

from flyte._deploy import Progress
from flyte.cli._progress import deploying, waiting
from flyte.cli._root import flyte


@dataclass
class Ended:
    """A command that ended."""

    status: int
    out: str
    err: str

    def json(self) -> Any:
        assert self.out, self.err
        return json.loads(self.out)


class Shell:
    """Runs `flyte` against a control plane, as alice unless told otherwise."""

    def __init__(self, tower: FakeTower, home: Path) -> None:
        self.tower = tower
        self.home = home
        self.env: dict[str, str | None] = {
            "FLYTE_ENDPOINT": tower.url,
            "FLYTE_API_KEY": "twr_alice_key",
            "FLYTE_HOME": str(home / "flyte"),
            "HOME": str(home),
            "FLYTE_PROJECT": None,
            "FLYTE_DOMAIN": None,
            "FLYTE_CONFIG": None,
            "FLYTE_DEBUG": None,
        }

    def __call__(self, *arguments: str, **env: str | None) -> Ended:
        result = CliRunner().invoke(flyte, arguments, env={**self.env, **env}, prog_name="flyte")
        assert result.exception is None or isinstance(result.exception, SystemExit), result.exception
        assert "Traceback" not in result.output
        return Ended(result.exit_code, result.stdout, result.stderr)


@pytest.fixture(scope="module")
def running() -> Iterator[FakeTower]:
    tower = FakeTower()
    with in_thread(tower) as place:
        tower.url = f"http://{place}"
        yield tower


@pytest.fixture
def shell(running: FakeTower, tmp_path: Path) -> Shell:
    fresh = FakeTower()
    running.runs, running.keys = fresh.runs, fresh.keys
    running.asked.clear()
    return Shell(running, tmp_path)


def test_whoami(shell: Shell) -> None:
    assert shell("whoami", "-o", "json").json()["subject"] == "alice"
    assert "alice" in shell("whoami").out


def test_shared_options_stand_before_or_behind_the_command(shell: Shell) -> None:
    assert shell("-o", "json", "whoami").json()["subject"] == "alice"
    shell("--project", "one", "get", "run", "--project", "two")
    assert shell.tower.asked[-1][1].project_id.name == "two"
    shell("get", "run", FLYTE_PROJECT="three", FLYTE_DOMAIN="staging")
    asked = shell.tower.asked[-1][1].project_id
    assert (asked.name, asked.domain) == ("three", "staging")
    shell("get", "run")
    asked = shell.tower.asked[-1][1].project_id
    assert (asked.name, asked.domain) == ("flytesnacks", "development")


def test_exit_0_and_the_promised_fields_of_a_run(shell: Shell) -> None:
    printed = shell("get", "run", "r1", "-o", "json").json()
    assert printed["name"] == "r1"
    assert printed["phase"] == "SUCCEEDED"
    assert printed["url"].endswith("/v2/domain/development/project/flytesnacks/runs/r1")
    assert (printed["task"], printed["version"]) == ("my_env.my_task", "v1")
    assert printed["executed_by"] == "alice"
    assert {"via_app", "created_at", "ended_at"} <= printed.keys()
    assert printed["outputs"] == {"o0": "hello 42"}
    assert "r1" in shell("get", "run", "r1").out


def test_runs_are_listed(shell: Shell) -> None:
    listed = shell("get", "run", "-o", "json").json()
    assert [each["name"] for each in listed] == ["r1", "r2"]
    table = shell("get", "run").out.splitlines()
    assert table[0].split()[:2] == ["NAME", "PHASE"]
    assert len(table) == 3


def test_only_mine_asks_for_the_callers_runs(shell: Shell) -> None:
    shell("get", "run", "--only-mine", "-o", "json")
    filters = shell.tower.asked[-1][1].request.filters
    assert [(each.field, list(each.values)) for each in filters] == [("created_by", ["alice"])]


@pytest.mark.parametrize(
    ("arguments", "status"),
    [
        (("get", "run", "r404"), 5),
        (("get", "task", "my_env.nope"), 5),
        (("get", "api-key", "nope"), 5),
        (("run", "deployed-task", "my_env.nope", "--x", "1"), 5),
        (("get", "run", "--phase", "DANCING"), 2),
        (("get", "nonsense"), 2),
        (("get", "run", "-o", "xml"), 2),
        (("run", "deployed-task", "my_env.my_task"), 2),
        (("run", "deployed-task", "my_env.my_task", "--x", "abc"), 2),
        (("run", "deployed-task", "my_env.my_task", "--x", "1", "--z", "2"), 2),
        (("run", "deployed-task", "my_env.my_task", "--x"), 2),
        (("run", "deployed-task", "my_env.my_task", "--x", "1", "-i", "x=2"), 2),
        (("run", "deployed-task", "my_env.my_task", "--inputs", "[1]"), 2),
        (("run", "deployed-task", "my_env.my_task", "--inputs", "{"), 2),
        (("run", "no-such-file.py", "task"), 2),
        (("--endpoint", "ftp://x", "whoami"), 2),
        (("--endpoint", "http://tower.example.com", "whoami"), 2),
        (("--endpoint", "http://127.0.0.1:1", "whoami"), 6),
    ],
)
def test_exit_statuses(shell: Shell, arguments: tuple[str, ...], status: int) -> None:
    ended = shell(*arguments)
    assert ended.status == status, ended
    assert ended.out == ""
    assert "Error: " in ended.err


def test_exit_3_says_how_to_get_a_key(shell: Shell) -> None:
    for key in ("twr_unknown_key", None):
        ended = shell("whoami", FLYTE_API_KEY=key)
        assert ended.status == 3
        assert "FLYTE_API_KEY" in ended.err
        assert "tower keys create" in ended.err
        assert len(ended.err.splitlines()) == 1
        assert "unknown_key" not in ended.err


def test_exit_4_for_what_is_not_allowed(shell: Shell) -> None:
    ended = shell("run", "deployed-task", "my_env.my_task", "--x", "1", FLYTE_API_KEY="twr_carol_key")
    assert ended.status == 4
    assert "carol may not run tasks here" in ended.err


def test_a_deployed_task_is_started_with_typed_inputs(shell: Shell) -> None:
    ended = shell("run", "deployed-task", "my_env.my_task", "--x", "42", "--y", "7", "-o", "json")
    assert ended.json()["name"] == "r9"
    request = next(asked for name, asked in shell.tower.asked if name == "CreateRun")
    given = {each.name: each.value.scalar.primitive for each in request.inputs.literals}
    assert given["x"].integer == 42
    assert given["y"].string_value == "7"


@pytest.mark.parametrize(
    "inputs",
    [
        ["--input", "x=42"],
        ["-i", "x=42"],
        ["--x=42"],
        ["--inputs", '{"x": 42}'],
        ["-i", "y=a=b", "--x", "42"],
    ],
)
def test_inputs_can_be_written_in_several_ways(shell: Shell, inputs: list[str]) -> None:
    assert shell("run", "deployed-task", "my_env.my_task", *inputs).status == 0
    request = next(asked for name, asked in shell.tower.asked if name == "CreateRun")
    assert {each.name: each.value.scalar.primitive.integer for each in request.inputs.literals}["x"] == 42


def test_wait_prints_the_outputs_and_exit_7_tells_of_a_failed_run(shell: Shell) -> None:
    good = shell("run", "deployed-task", "my_env.my_task", "--x", "1", "--wait", "-o", "json")
    assert (good.status, good.json()["outputs"]) == (0, {"o0": "hello 42"})
    bad = shell("run", "deployed-task", "my_env.fails", "--x", "1", "--wait", "-o", "json")
    assert bad.status == 7
    assert bad.json()["error"] == "ValueError: no"
    assert bad.json()["outputs"] is None


def test_follow_prints_the_logs_beside_the_result(shell: Shell) -> None:
    ended = shell("run", "deployed-task", "my_env.my_task", "--x", "1", "--follow", "-o", "json")
    assert ended.json()["phase"] == "SUCCEEDED"
    assert "first\nsecond\n" in ended.err


def test_logs(shell: Shell) -> None:
    assert shell("logs", "r1").out == "first\nsecond\n"
    assert shell("logs", "r1", "--follow").out == "first\nsecond\n"


def test_abort(shell: Shell) -> None:
    assert shell("abort", "run", "r1", "--reason", "enough").status == 0
    assert shell.tower.asked[-1][1].reason == "enough"
    assert shell("abort", "run", "r404").status == 5


def test_a_task_is_shown_with_its_interface(shell: Shell) -> None:
    printed = shell("get", "task", "my_env.my_task", "-o", "json").json()
    assert printed["version"] == "v1"
    assert printed["inputs"]["x"] == {"type": "int", "required": True}
    assert printed["inputs"]["y"]["required"] is False


def test_k02_a_key_is_printed_once_alone_and_kept_for_its_owner(shell: Shell) -> None:
    made = shell("create", "api-key", "--name", "my-key", "--role", "viewer", "--expires", "30d")
    key = made.out.strip()
    assert key.startswith("twr_made")
    assert len(made.out.split()) == 1
    assert shell.tower.asked[-1] == (
        "POST",
        {"name": "my-key", "role": "viewer", "expires_in": "30d", "format": "twr"},
    )
    store = shell.home / "flyte" / "keys.json"
    assert stat.S_IMODE(store.stat().st_mode) == 0o600
    assert stat.S_IMODE(store.parent.stat().st_mode) == 0o700
    assert shell("get", "api-key", "my-key").out.strip() == key
    assert shell("get", "api-key", "my-key", "-o", "json").json()["key"] == key
    assert key not in shell("get", "api-key", "-o", "json").out


@pytest.mark.parametrize("text", ["forbid (principal, action, resource);", "permit(x: [", "freeze"])
def test_cedar_in_the_place_of_fields_is_told_its_option(shell: Shell, tmp_path: Path, text: str) -> None:
    (tmp_path / "freeze.cedar").write_text(text)
    ended = shell("create", "policy", "freeze", "-f", str(tmp_path / "freeze.cedar"))
    assert (ended.status, ended.out) == (2, "")
    assert "--text-file" in ended.err


def test_a_key_is_named_in_either_way_and_once(shell: Shell) -> None:
    for words in (("other-key",), ("other-key", "--name", "other-key")):
        assert shell("create", "api-key", *words).out.startswith("twr_made")
        assert shell.tower.asked[-1] == ("POST", {"name": "other-key", "format": "twr"})
    for words in ((), ("one", "--name", "two")):
        ended = shell("create", "api-key", *words)
        assert (ended.status, ended.out) == (2, "")


def test_k02_the_ceiling_is_what_stands_behind_the_command(shell: Shell) -> None:
    shell("--project", "one", "create", "api-key", "--name", "k", FLYTE_DOMAIN="staging")
    assert shell.tower.asked[-1][1] == {"name": "k", "format": "twr"}
    shell("create", "api-key", "--name", "k", "--project", "one", "--domain", "development")
    assert shell.tower.asked[-1][1]["project"] == "one"
    assert shell.tower.asked[-1][1]["domain"] == "development"


def test_k07_elsewhere_the_key_is_not_shown_but_what_is_known_and_how_to_replace_it(shell: Shell) -> None:
    shell("create", "api-key", "--name", "my-key")
    elsewhere = shell("get", "api-key", "my-key", FLYTE_HOME=str(shell.home / "other"))
    assert elsewhere.status == 0
    assert "twr_" not in elsewhere.out
    assert "alice" in elsewhere.out
    assert "flyte update api-key my-key --rotate" in elsewhere.err


def test_k07_a_key_that_was_made_anew_elsewhere_is_not_shown_in_its_old_form(shell: Shell) -> None:
    old = shell("create", "api-key", "--name", "my-key").out.strip()
    shell("create", "api-key", "--name", "my-key", FLYTE_HOME=str(shell.home / "other"))
    assert old not in shell("get", "api-key", "my-key").out


def test_k06_a_deleted_key_is_forgotten_here_as_well(shell: Shell) -> None:
    key = shell("create", "api-key", "--name", "my-key").out.strip()
    assert shell("delete", "api-key", "my-key").status == 0
    assert shell("get", "api-key", "my-key").status == 5
    assert key not in (shell.home / "flyte" / "keys.json").read_text()
    assert shell("delete", "api-key", "my-key").status == 5


def test_the_default_key_of_this_control_plane_is_used(shell: Shell) -> None:
    key = shell("create", "api-key", "--name", "mine", "--default").out.strip()
    shell.tower.callers[key] = "alice"
    assert shell("whoami", "-o", "json", FLYTE_API_KEY=None).json()["subject"] == "alice"
    # Not at another endpoint, and not when FLYTE_API_KEY names somebody.
    assert shell("--endpoint", "http://127.0.0.1:1", "whoami", FLYTE_API_KEY=None).status == 3
    assert shell("whoami", FLYTE_API_KEY="twr_unknown_key").status == 3


def test_a_key_that_is_no_default_is_not_used(shell: Shell) -> None:
    key = shell("create", "api-key", "--name", "webhook").out.strip()
    shell.tower.callers[key] = "alice"
    assert shell("whoami", FLYTE_API_KEY=None).status == 3


def test_a_key_of_the_same_name_of_somebody_else_is_another_key(shell: Shell) -> None:
    """What this machine keeps of one's own is neither shown nor forgotten for theirs."""
    own = shell("create", "api-key", "--name", "laptop").out.strip()
    store = shell.home / "flyte" / "keys.json"
    shell.tower.keys["laptop"] |= {"user": "bob", "id": "another"}
    assert own not in shell("get", "api-key", "laptop", "--user", "bob").out
    assert shell("delete", "api-key", "laptop", "--user", "bob").status == 0
    assert own in store.read_text()
    theirs = shell("create", "api-key", "--name", "laptop", "--user", "bob").out.strip()
    assert own in store.read_text()
    assert theirs in store.read_text()
    assert shell("get", "api-key", "laptop", "--user", "bob").out.strip() == theirs


def test_a_file_of_keys_that_others_can_read_is_not_used(shell: Shell) -> None:
    shell("create", "api-key", "--name", "mine", "--default")
    store = shell.home / "flyte" / "keys.json"
    store.chmod(0o644)
    ended = shell("whoami", FLYTE_API_KEY=None)
    assert ended.status == 1
    assert "chmod 600" in ended.err
    before = len(shell.tower.keys)
    assert shell("create", "api-key", "--name", "second").status == 1
    assert len(shell.tower.keys) == before  # nothing was made that could not be kept


@pytest.mark.parametrize(
    "content", ["", "{", "[]", '{"version": 2, "keys": []}', '{"version": 1, "keys": [{}]}']
)
def test_a_damaged_file_of_keys_is_reported(shell: Shell, content: str) -> None:
    store = shell.home / "flyte" / "keys.json"
    store.parent.mkdir()
    store.write_text(content)
    store.chmod(0o600)
    ended = shell("get", "api-key", "x", FLYTE_API_KEY=None)
    assert ended.status == 1
    assert "keys.json" in ended.err


FILE = """
import enum
from dataclasses import dataclass
import flyte

env = flyte.TaskEnvironment("local_env")

class Colour(enum.Enum):
    RED = 1

@dataclass
class Point:
    x: int
    y: int = 0

@env.task
async def paint(colour: Colour, at: Point, times: int = 1, note: str | None = None) -> dict:
    return {"colour": colour, "at": at, "times": times, "note": note}

@env.task
def breaks(x: int) -> int:
    raise ValueError("no")
"""


def test_a_task_of_a_file_runs_in_this_process(shell: Shell) -> None:
    file = shell.home / "painting.py"
    file.write_text(FILE)
    ended = shell("run", str(file), "paint", "--colour", "RED", "--at", '{"x": 1}', "--note", "5", "--local")
    assert ended.json() == {"colour": "RED", "at": {"x": 1, "y": 0}, "times": 1, "note": "5"}
    assert shell.tower.asked == []
    broken = shell("run", str(file), "local_env.breaks", "--x", "1", "--local")
    assert broken.status == 7
    assert "painting.py:22: ValueError: no" in broken.err


DEPLOYED = """
import flyte
from flyte.app import AppEnvironment

env = flyte.TaskEnvironment("greetings")
app_env = AppEnvironment("hello", command=["serve-hello", "$FLYTE_APP_SOCKET"], description="Says hello")

@env.task
async def greet(name: str) -> str:
    return f"hello {name}"
"""


def test_deploy_prints_what_was_registered_and_the_version_of_the_same_code_stays(shell: Shell) -> None:
    file = shell.home / "project" / "greeting_tasks.py"
    file.parent.mkdir()
    file.write_text(DEPLOYED)
    first = shell("deploy", str(file), "env", "-o", "json").json()
    assert [task["name"] for task in first["tasks"]] == ["greetings.greet"]
    assert first["files"] == ["greeting_tasks.py"]
    table = shell("deploy", str(file), "greetings").out
    assert first["version"] in table
    given = shell("deploy", str(file), "env", "--version", "v7", "--copy-style", "all", "-o", "json").json()
    assert given["version"] == "v7"
    requests = [asked for name, asked in shell.tower.asked if name == "DeployTask"]
    assert {each.task_id.project for each in requests} == {"flytesnacks"}


def test_serve_waits_and_prints_where(shell: Shell) -> None:
    file = shell.home / "greeting_app.py"
    file.write_text(DEPLOYED)
    served = shell("serve", str(file), "app_env", "-o", "json").json()
    assert (served["name"], served["status"]) == ("hello", "ACTIVE")
    assert served["url"] == "http://hello.apps.localhost"
    assert "http://hello.apps.localhost" in shell("serve", str(file), "hello").out


def test_deploy_tells_what_is_wrong(shell: Shell) -> None:
    file = shell.home / "greeting_faults.py"
    file.write_text(DEPLOYED)
    unknown = shell("deploy", str(file), "envy")
    assert unknown.status == 2, "a wrong name is wrong usage, as it is for `flyte run`"
    assert "greetings" in unknown.err
    assert shell("serve", str(file), "env").status != 0
    assert shell("deploy", "nowhere.py", "env").status == 2
    assert shell("deploy", str(file), "env", FLYTE_API_KEY="twr_carol_key").status == 4


def test_a_file_is_loaded_outside_of_any_event_loop(shell: Shell) -> None:
    file = shell.home / "greeting_loop.py"
    file.write_text("import asyncio\nasyncio.run(asyncio.sleep(0))\n" + DEPLOYED)
    assert shell("deploy", str(file), "env").status == 0


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def test_progress_is_for_terminals_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("CI", raising=False)
    monkeypatch.setenv("TERM", "xterm")
    for stream, shown in ((Terminal(), True), (io.StringIO(), False)):
        monkeypatch.setattr("sys.stderr", stream)
        with deploying() as progress:
            progress(Progress("upload", "bundle", 512, 1024))
            progress(Progress("upload", "bundle", 1024, 1024))
        with waiting("Run r1") as state:
            state("RUNNING")
        assert ("Upload" in stream.getvalue()) is shown
        assert ("Run r1" in stream.getvalue()) is shown


def test_an_error_in_a_file_names_its_line(shell: Shell) -> None:
    file = shell.home / "faulty_deployment.py"
    file.write_text("x = 1\ny = nothing\n")
    ended = shell("deploy", str(file), "env")
    assert ended.status == 2
    assert "faulty_deployment.py:2: NameError" in ended.err
    file = shell.home / "unreadable_deployment.py"
    file.write_text("def f(:\n")
    assert "unreadable_deployment.py:1: SyntaxError" in shell("deploy", str(file), "env").err


def test_a_bug_is_one_line_as_well(shell: Shell, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("flyte.cli.whoami.print_record", lambda *_, **__: {}["gone"])
    ended = shell("whoami")
    assert ended.status == 1
    assert "FLYTE_DEBUG=1" in ended.err
    assert len(ended.err.splitlines()) == 1


def test_what_is_printed_cannot_move_the_cursor(shell: Shell) -> None:
    shell.tower.keys["evil"] = {"id": "1", "name": "evil\x1b[2J", "user": "alice"}
    assert "\x1b" not in shell("get", "api-key").out
