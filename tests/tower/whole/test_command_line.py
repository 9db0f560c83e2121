"""The command `flyte` against a real Tower: what each verb does, prints and ends with."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator
from contextlib import contextmanager

import pytest
from tests.threats.conftest import Lab
from tests.tower.whole.lobby import Lobby, create, deploy
from tests.tower_process import BIN, Tower, clean_environment

pytestmark = pytest.mark.xdist_group("seeds")

FIELDS = {
    "name", "phase", "url", "project", "domain", "task", "version", "executed_by", "via_app", "created_at",
    "started_at", "ended_at", "error", "outputs",
}  # fmt: skip


@pytest.fixture(scope="module")
def hall(tower: Tower, tmp_path_factory: pytest.TempPathFactory) -> Tower:
    deploy(tower, tmp_path_factory.mktemp("hall"))
    # the first run says how its image is made
    tower.flyte("run", "deployed-task", "hall.breaks", "--text", "x", "--wait", check=False)
    return tower


@pytest.fixture
def lobby() -> Iterator[Lobby]:
    with Lobby.open() as lobby:
        yield lobby


@pytest.fixture
def lab(hall: Tower) -> Iterator[Lab]:
    with hall.http() as client:
        yield Lab(hall, client, "")


@contextmanager
def started(tower: Tower, *arguments: str) -> Iterator[subprocess.Popen[str]]:
    """A `flyte` of alice's that goes on meanwhile."""
    with subprocess.Popen(
        [BIN / "flyte", *arguments],
        env=clean_environment({"FLYTE_ENDPOINT": tower.url, "FLYTE_API_KEY": tower.keys["alice"]}),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    ) as process:
        try:
            yield process
        finally:
            process.kill()


def test_a_run_is_followed_while_it_runs_and_shown_when_it_has_ended(hall: Tower, lobby: Lobby) -> None:
    asked = ["run", "deployed-task", "hall.visit", "--port", str(lobby.port), "--word", "ann", "--follow"]
    with started(hall, *asked, "-o", "json") as running:
        assert running.stderr is not None
        visitor = lobby.next()
        name, url = running.stderr.readline().split()
        assert url == f"{hall.url}/v2/domain/development/project/flytesnacks/runs/{name}"
        assert running.stderr.readline() == "came ann\n"
        with started(hall, "logs", name, "--follow") as tail:
            assert tail.stdout is not None
            assert tail.stdout.readline() == "came ann\n"
            open_ = hall.flyte("get", "run", name, "-o", "json").json()
            assert isinstance(open_, dict)
            assert (open_["phase"], open_["ended_at"], open_["outputs"]) == ("RUNNING", None, None)
            visitor.release()
            assert tail.communicate(timeout=60) == ("went ann\n", "")
            assert tail.returncode == 0
        out, rest = running.communicate(timeout=60)
        assert (rest, running.returncode) == ("went ann\n", 0)
    shown = hall.flyte("get", "run", name, "-o", "json")
    assert shown.out == out
    run = shown.json()
    assert isinstance(run, dict)
    assert run.keys() >= FIELDS
    assert (run["name"], run["phase"], run["task"], run["outputs"]) == (
        name, "SUCCEEDED", "hall.visit", {"o0": "bye ann"},
    )  # fmt: skip
    assert (run["executed_by"], run["via_app"], run["url"], run["error"]) == ("alice", "", url, None)
    assert run["created_at"] < run["ended_at"]
    assert run["version"]
    assert hall.flyte("logs", name).out == "came ann\nwent ann\n"


def test_lists_of_runs_tasks_apps_and_keys(hall: Tower, lobby: Lobby, lab: Lab) -> None:
    name = create(lab.client, lab.bearer("bob"), lobby.port, "bob")
    lobby.next().release()

    def listed(*arguments: str) -> dict[str, dict[str, object]]:
        found = hall.flyte("get", *arguments, "-o", "json").json()
        assert isinstance(found, list)
        return {each["name"]: each for each in found}

    assert listed("run", "--limit", "5")[name]["executed_by"] == "bob"
    assert name not in listed("run", "--only-mine")
    assert listed("task")["hall.visit"]["deployed_by"] == "alice"
    assert all({"status", "endpoint"} <= app.keys() for app in listed("app").values())
    key = listed("api-key")["alice-key"]
    assert key["user"] == "alice"
    assert hall.keys["alice"] not in str(key)
    task = hall.flyte("get", "task", "hall.visit", "-o", "json").json()
    assert isinstance(task, dict)
    assert task["inputs"] == {
        "port": {"type": "int", "required": True},
        "word": {"type": "str", "required": True},
    }


def test_an_aborted_run_ends_and_so_does_its_process(hall: Tower, lobby: Lobby, lab: Lab) -> None:
    name = create(lab.client, lab.bearer("alice"), lobby.port, "stays")
    visitor = lobby.next()
    hall.flyte("abort", "run", name, "--reason", "enough")
    visitor.gone()
    run = hall.flyte("get", "run", name, "-o", "json").json()
    assert isinstance(run, dict)
    assert run["phase"] == "ABORTED"
    assert run["ended_at"] is not None
    assert "enough" in str(run["error"])


def test_a_key_works_at_once_and_not_after_its_end(hall: Tower) -> None:
    made = hall.flyte("create", "api-key", "--name", "cli-key").out.strip()
    assert hall.flyte("get", "api-key", "cli-key").out.strip() == made
    who = hall.flyte("whoami", "-o", "json", user=made).json()
    assert isinstance(who, dict)
    assert (who["subject"], who["credential"], who["endpoint"]) == ("alice", "api_key", hall.url)
    hall.flyte("delete", "api-key", "cli-key")
    assert hall.flyte("whoami", user=made, check=False).status == 3
    assert hall.flyte("get", "api-key", "cli-key", check=False).status == 5


@pytest.mark.parametrize(
    ("status", "user", "arguments"),
    [
        (2, "alice", ("run", "deployed-task", "hall.breaks", "--wrong", "x")),
        (3, None, ("get", "run")),
        (3, "twr_nobody_nothing", ("whoami",)),
        (4, "carol", ("run", "deployed-task", "hall.breaks", "--text", "x")),
        (5, "alice", ("get", "run", "r0000000000000000000")),
        (5, "dave", ("get", "task", "hall.breaks")),
        (6, "alice", ("whoami", "--endpoint", "http://127.0.0.1:1")),
        (7, "alice", ("run", "deployed-task", "hall.breaks", "--text", "no luck", "--wait")),
    ],
)
def test_exit_statuses(hall: Tower, status: int, user: str | None, arguments: tuple[str, ...]) -> None:
    done = hall.flyte(*arguments, user=user, check=False)
    assert done.status == status
    assert done.err
    assert "Traceback" not in done.err


def test_the_endpoint_comes_from_the_environment_and_the_option_wins(hall: Tower) -> None:
    other = hall.url.replace("127.0.0.1", "localhost")
    for options, endpoint in (((), hall.url), (("--endpoint", other), other)):
        who = hall.flyte(*options, "whoami", "-o", "json", user="bob").json()
        assert isinstance(who, dict)
        assert (who["endpoint"], who["subject"]) == (endpoint, "bob")
