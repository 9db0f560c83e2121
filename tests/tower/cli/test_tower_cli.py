"""`tower users` and `tower keys`: over the socket of a running server, and without one."""

from __future__ import annotations

import asyncio
import sys
import threading
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import uvicorn
from click.testing import CliRunner, Result
from tests.identity_world import ADMIN_SOCKET, HOST, World
from tests.rest_world import rest_door

from tower.cli import administration, cli
from tower.errors import InUse, Unauthenticated

Run = Callable[..., Result]


@dataclass
class Composed:
    rest: Any


@dataclass
class Running:
    world: World
    loop: asyncio.AbstractEventLoop


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A home whose composition root is the identity rooms; each start opens the same database again."""
    main = ModuleType("tower.main")
    opened = 0

    @asynccontextmanager
    async def compose(settings: Any) -> AsyncIterator[Composed]:
        nonlocal opened
        async with World.opened(settings.home, projects=not opened) as world:
            opened += 1
            yield Composed(rest_door(world))

    main.compose = compose  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "tower.main", main)
    administration.Administration(tmp_path).found()
    return tmp_path


@pytest.fixture
def run(home: Path) -> Run:
    runner = CliRunner()

    def invoke(*arguments: str) -> Result:
        return runner.invoke(cli, list(arguments), env={"TOWER_HOME": str(home)}, catch_exceptions=False)

    return invoke


@pytest.fixture
def server(home: Path) -> Iterator[Running]:
    """A running server on `admin.sock`; opening the database beside it would fail, as in life."""
    ready = threading.Event()
    worlds: list[World] = []
    loops: list[asyncio.AbstractEventLoop] = []
    stopping: list[Callable[[], None]] = []

    async def serve() -> None:
        async with World.opened(home) as world:
            door = rest_door(world)

            async def attested(scope: Any, receive: Any, send: Any) -> None:
                assert (b"x-flyte-agent", b"1") in scope["headers"]
                await door({**scope, "state": {"workload": ADMIN_SOCKET}}, receive, send)

            config = uvicorn.Config(attested, uds=str(home / "admin.sock"), log_level="error", lifespan="off")
            instance = uvicorn.Server(config)
            loop = asyncio.get_running_loop()
            stopping.append(lambda: loop.call_soon_threadsafe(setattr, instance, "should_exit", True))
            worlds.append(world)
            loops.append(loop)
            task = asyncio.ensure_future(instance.serve())
            while not instance.started:
                await asyncio.sleep(0.01)
            ready.set()
            await task

    thread = threading.Thread(target=lambda: asyncio.run(serve()))
    thread.start()
    try:
        assert ready.wait(120)
        yield Running(worlds[0], loops[0])
    finally:
        stopping[0]()
        thread.join(120)


def story(run: Run) -> None:
    assert run("users", "add", "alice", "--role", "contributor", "--project", "flytesnacks").exit_code == 0
    assert run("users", "add", "nightly", "--service").exit_code == 0
    assert run("users", "add", "alice").exit_code == 5
    made = run("keys", "create", "laptop", "--user", "alice", "--expires", "30d", "--role", "viewer")
    assert made.exit_code == 0
    text = made.stdout.strip()
    assert made.stdout == f"{text}\n"
    assert text.startswith("twr_")
    listed = run("keys", "list")
    assert "laptop" in listed.stdout
    assert text not in listed.stdout
    assert text.split("_", 2)[2] not in run("keys", "list", "-o", "json").stdout
    assert "contributor:flytesnacks/*" in run("users", "list").stdout
    assert run("users", "link", "alice").stdout.startswith(f"http://{HOST}/signin/")
    assert run("users", "link", "nightly").exit_code == 5
    assert run("users", "revoke", "alice", "--role", "contributor", "--project", "flytesnacks").exit_code == 0
    assert "contributor" not in run("users", "list").stdout
    assert run("users", "disable", "alice").exit_code == 0
    assert "disabled" in run("users", "list").stdout
    assert run("keys", "create", "other", "--user", "alice").exit_code == 5
    assert run("users", "enable", "alice").exit_code == 0
    assert run("keys", "create", "laptop", "--user", "nightly").exit_code == 0
    whose = run("keys", "disable", "laptop")
    assert whose.exit_code == 2
    assert "alice, nightly" in whose.stderr
    assert "--user" in whose.stderr
    assert run("keys", "disable", "laptop", "--user", "nightly").exit_code == 0
    assert run("keys", "enable", "laptop", "--user", "nightly").exit_code == 0
    assert run("keys", "rotate", "laptop", "--user", "nightly").stdout.startswith("twr_")
    assert run("keys", "delete", "laptop", "--user", "nightly").exit_code == 0
    assert run("keys", "delete", "laptop").exit_code == 0
    gone = run("keys", "delete", "laptop")
    assert gone.exit_code == 4
    assert gone.stdout == ""
    assert gone.stderr.count("\n") == 1
    assert gone.stderr.startswith("tower: There is no key laptop.")


def test_the_whole_story_without_a_server(run: Run) -> None:
    story(run)


def test_the_whole_story_with_a_running_server(server: Running, run: Run) -> None:
    story(run)


def test_a_key_deleted_beside_a_running_server_is_refused_by_it_at_once(server: Running, run: Run) -> None:
    run("users", "add", "alice")
    text = run("keys", "create", "laptop", "--user", "alice", "--format", "flyte").stdout.strip()

    def who() -> str:
        asked = asyncio.run_coroutine_threadsafe(server.world.who(bearer=text), server.loop)
        return asked.result(120).subject

    assert who() == "alice"
    run("keys", "delete", "laptop")
    with pytest.raises(Unauthenticated):
        who()


def test_a_home_with_a_very_long_path_still_reaches_the_server(
    tmp_path: Path, server: Running, run: Run
) -> None:
    deep = tmp_path.joinpath(*["d" * 60] * 3)
    deep.parent.mkdir(parents=True)
    deep.symlink_to(server.world.home)
    done = run("--home", str(deep), "users", "add", "alice")
    assert done.exit_code == 0, done.stderr


@pytest.mark.parametrize(
    ("arguments", "code"),
    [
        (["users", "add", "alice", "--role", "king"], 2),
        (["users", "add", "alice", "--project", "flytesnacks"], 2),
        (["users", "add", "machine"], 2),
        (["users", "add", "../x"], 2),
        (["users", "add", "alice", "--role", "viewer", "--project", "nowhere"], 2),
        (["users", "disable", "nobody"], 4),
        (["users", "link", "nobody"], 4),
        (["keys", "create", "k", "--user", "nobody"], 4),
        (["keys", "create", "k"], 2),
        (["keys", "delete", "a/b?c=d"], 4),
    ],
)
def test_mistakes_end_with_their_code_and_a_line(run: Run, arguments: list[str], code: int) -> None:
    done = run(*arguments)
    assert done.exit_code == code, done.output
    assert "Traceback" not in done.output
    assert done.stdout == ""


def test_a_database_in_use_is_said_in_one_line(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    @asynccontextmanager
    async def compose(settings: Any) -> AsyncIterator[None]:
        raise InUse("Another Tower is using this database.")
        yield

    monkeypatch.setattr(sys.modules["tower.main"], "compose", compose)
    monkeypatch.setattr(administration, "START_SECONDS", 0.0)
    done = run("users", "list")
    assert (done.exit_code, done.stderr) == (5, "tower: Another Tower is using this database.\n")


def test_a_command_waits_for_a_server_that_is_starting(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    tried: list[str] = []

    @asynccontextmanager
    async def compose(settings: Any) -> AsyncIterator[None]:
        tried.append("database")
        raise InUse("Another Tower is using this database.")
        yield

    def over_socket(self: object, *request: Any) -> tuple[int, bytes] | None:
        tried.append("socket")
        return (201, b"{}") if tried.count("socket") == 3 else None

    monkeypatch.setattr(sys.modules["tower.main"], "compose", compose)
    monkeypatch.setattr(administration.Administration, "_over_socket", over_socket)
    assert run("users", "add", "alice").exit_code == 0
    assert tried == ["socket", "database", "socket", "database", "socket"]
