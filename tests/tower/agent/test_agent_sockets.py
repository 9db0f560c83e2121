"""The kernel says who is calling: real processes on real sockets."""

from __future__ import annotations

import asyncio
import json
import os
import sys
from collections.abc import AsyncIterator, Callable, MutableMapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from uvicorn._types import ASGIReceiveCallable

from tower.agent import AgentSockets
from tower.agent.attest import Birth, birth, descends
from tower.executors.process import launch

CALL = """
import socket, sys
def call(path, header=b"x-flyte-agent: 1\\r\\n"):
    s = socket.socket(socket.AF_UNIX)
    try:
        s.connect(path)
        s.sendall(b"GET /who HTTP/1.1\\r\\nhost: agent\\r\\nconnection: close\\r\\n" + header + b"\\r\\n")
        answer = b""
        while chunk := s.recv(65536):
            answer += chunk
    except OSError as error:
        return type(error).__name__
    finally:
        s.close()
    if not answer:
        return "cut"
    return answer.split(b" ")[1].decode() + " " + answer.rpartition(b"\\r\\n\\r\\n")[2].decode()
"""


@dataclass(frozen=True)
class Name:
    kind: str
    id: str
    pid: int


async def who(scope: MutableMapping[str, Any], receive: ASGIReceiveCallable, send: Any) -> None:
    workload = scope["state"]["workload"]
    body = json.dumps({"id": workload.id, "kind": workload.kind, "pid": workload.pid}).encode()
    length = str(len(body)).encode()
    await send({"type": "http.response.start", "status": 200, "headers": [(b"content-length", length)]})
    await send({"type": "http.response.body", "body": body})


@pytest.fixture
async def sockets() -> AsyncIterator[AgentSockets]:
    sockets = AgentSockets(who, name=Name, patience=30)
    yield sockets
    await sockets.close_all()


@pytest.fixture
def path(tmp_path: Path) -> Path:
    folder = tmp_path / "a"
    folder.mkdir(mode=0o700)
    return folder / "s"


class Script:
    """A Python process that reads lines and prints what they evaluate to."""

    def __init__(self, process: asyncio.subprocess.Process) -> None:
        self.process = process
        self.pid = process.pid

    @classmethod
    async def started(cls) -> Script:
        code = CALL + ("import os, subprocess\nfor line in sys.stdin:\n    print(eval(line), flush=True)\n")
        return cls(
            await asyncio.create_subprocess_exec(
                sys.executable, "-c", code, stdin=asyncio.subprocess.PIPE, stdout=asyncio.subprocess.PIPE
            )
        )

    async def ask(self, expression: str) -> str:
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        self.process.stdin.write(expression.encode() + b"\n")
        return (await asyncio.wait_for(self.process.stdout.readline(), 120)).decode().strip()

    async def end(self) -> None:
        with suppress(ProcessLookupError):
            self.process.kill()
        await self.process.communicate()


@pytest.fixture
async def script() -> AsyncIterator[Callable[[], Any]]:
    started: list[Script] = []

    async def start() -> Script:
        started.append(await Script.started())
        return started[-1]

    yield start
    for one in started:
        await one.end()


async def test_the_registered_process_is_served_by_name(
    sockets: AgentSockets, path: Path, script: Callable[[], Any]
) -> None:
    await sockets.open("p/d/r/a0/1", "attempt", path)
    caller = await script()
    sockets.register("p/d/r/a0/1", caller.pid)
    status, _, body = (await caller.ask(f"call({str(path)!r})")).partition(" ")
    assert status == "200"
    assert json.loads(body) == {"id": "p/d/r/a0/1", "kind": "attempt", "pid": caller.pid}
    assert sockets.counts == {"served": 1}


async def test_a_child_of_the_registered_process_is_served(
    sockets: AgentSockets, path: Path, script: Callable[[], Any]
) -> None:
    await sockets.open("w", "attempt", path)
    caller = await script()
    sockets.register("w", caller.pid)
    child = f"subprocess.check_output([sys.executable, '-c', {CALL + f'print(call({str(path)!r}))'!r}])"
    assert (await caller.ask(child)).startswith("b'200 ")


async def test_a_neighbour_is_refused(sockets: AgentSockets, path: Path, script: Callable[[], Any]) -> None:
    """T8: same user, same machine, right path, right header: another process tree."""
    await sockets.open("w", "attempt", path)
    owner, neighbour = await script(), await script()
    sockets.register("w", owner.pid)
    assert (await neighbour.ask(f"call({str(path)!r})")).startswith("403")
    assert (await owner.ask(f"call({str(path)!r})")).startswith("200")
    assert sockets.counts == {"stranger": 1, "served": 1}


async def test_the_parent_of_the_registered_process_is_refused(
    sockets: AgentSockets, path: Path, script: Callable[[], Any]
) -> None:
    """The template that forked an attempt must not be able to speak for it."""
    await sockets.open("w", "attempt", path)
    parent = await script()
    child = int(await parent.ask("subprocess.Popen(['sleep', '1000']).pid"))
    sockets.register("w", child)
    assert (await parent.ask(f"call({str(path)!r})")).startswith("403")
    os.kill(child, 9)


async def test_a_daemon_that_left_its_parents_is_refused(
    sockets: AgentSockets, path: Path, script: Callable[[], Any], tmp_path: Path
) -> None:
    await sockets.open("w", "attempt", path)
    caller = await script()
    sockets.register("w", caller.pid)
    done = tmp_path / "fifo"
    os.mkfifo(done)
    code = CALL + (
        "import os\n"
        "parent = os.getpid()\n"
        "if os.fork(): os._exit(0)\n"
        "while os.getppid() == parent: pass\n"
        f"open({str(done)!r}, 'w').write(call({str(path)!r}))\n"
    )
    launch = f"subprocess.Popen([sys.executable, '-c', {code!r}]).wait()"
    reading = asyncio.create_task(asyncio.to_thread(done.read_text))
    await caller.ask(launch)
    assert (await asyncio.wait_for(reading, 120)).startswith("403")


async def test_a_request_without_the_header_is_refused(
    sockets: AgentSockets, path: Path, script: Callable[[], Any]
) -> None:
    """T8: a redirected fetch inside the task reaches the socket, but sends no such header."""
    await sockets.open("w", "attempt", path)
    caller = await script()
    sockets.register("w", caller.pid)
    for header in (b"", b"x-flyte-agent: 2\r\n", b"x-flyte-agent: 1\r\nx-flyte-agent: 1\r\n"):
        assert (await caller.ask(f"call({str(path)!r}, {header!r})")).startswith("403")
    assert sockets.counts == {"header": 3}


async def test_a_caller_that_is_quicker_than_its_announcement_waits(
    sockets: AgentSockets, path: Path, script: Callable[[], Any]
) -> None:
    await sockets.open("w", "attempt", path)
    caller = await script()
    answer = asyncio.create_task(caller.ask(f"call({str(path)!r})"))
    while not sockets._doors["w"].transports:
        await asyncio.sleep(0)
    assert not answer.done()
    sockets.register("w", caller.pid)
    assert (await answer).startswith("200")


async def test_nobody_is_served_before_the_announcement(path: Path, script: Callable[[], Any]) -> None:
    sockets = AgentSockets(who, name=Name, patience=0)
    await sockets.open("w", "attempt", path)
    caller = await script()
    assert (await caller.ask(f"call({str(path)!r})")).startswith("403")
    assert sockets.counts == {"unregistered": 1}
    await sockets.close_all()


async def test_closing_cuts_what_is_open(
    path: Path, script: Callable[[], Any], caplog: pytest.LogCaptureFixture
) -> None:
    """T5: the moment an attempt ends, its socket and its live connections are gone."""
    inside = asyncio.Event()
    cut = asyncio.Event()

    async def slow(scope: Any, receive: Any, send: Any) -> None:
        inside.set()
        try:
            await asyncio.Event().wait()
        finally:
            cut.set()

    sockets = AgentSockets(slow, name=Name)
    await sockets.open("w", "attempt", path)
    caller = await script()
    sockets.register("w", caller.pid)
    answer = asyncio.create_task(caller.ask(f"call({str(path)!r})"))
    await asyncio.wait_for(inside.wait(), 120)
    await sockets.close("w")
    assert not (await answer).startswith("200")
    await asyncio.wait_for(cut.wait(), 120)
    assert not path.exists()
    assert not (await caller.ask(f"call({str(path)!r})")).startswith("200")
    assert sockets.open_sockets == 0
    await asyncio.sleep(0)  # the cancelled call has its turn
    assert not caplog.records, "the end of a workload is no fault"


async def test_two_workloads_are_two_doors(
    sockets: AgentSockets, tmp_path: Path, script: Callable[[], Any]
) -> None:
    alice, bob = await script(), await script()
    for name, caller in (("alice", alice), ("bob", bob)):
        await sockets.open(name, "attempt", tmp_path / name)
        sockets.register(name, caller.pid)
    for caller, mine, other in ((alice, "alice", "bob"), (bob, "bob", "alice")):
        assert json.loads((await caller.ask(f"call({str(tmp_path / mine)!r})"))[4:])["id"] == mine
        assert (await caller.ask(f"call({str(tmp_path / other)!r})")).startswith("403")


async def test_the_administration_socket_asks_for_the_user(
    sockets: AgentSockets, path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    await sockets.open("admin", "admin", path)
    names: dict[str, Any] = {}
    exec(CALL, names)
    assert (await asyncio.to_thread(names["call"], str(path))).startswith("200")
    monkeypatch.setattr(os, "getuid", lambda: 4711)
    assert (await asyncio.to_thread(names["call"], str(path))).startswith("403")


async def test_the_administration_socket_refuses_what_the_server_started(
    sockets: AgentSockets, path: Path, script: Callable[[], Any]
) -> None:
    await sockets.open("admin", "admin", path)
    hosted = await script()
    assert (await hosted.ask(f"call({str(path)!r})")).startswith("403")


@pytest.mark.parametrize("launched", [True, False])
async def test_t01_what_the_server_started_never_administers_it_also_as_a_daemon(
    sockets: AgentSockets, path: Path, tmp_path: Path, launched: bool
) -> None:
    await sockets.open("admin", "admin", path)
    done = tmp_path / "fifo"
    os.mkfifo(done)
    code = CALL + (
        "import os\n"
        "parent = os.getpid()\n"
        "if os.fork(): os._exit(0)\n"
        "while os.getppid() == parent: pass\n"
        f"open({str(done)!r}, 'w').write(call({str(path)!r}))\n"
    )
    command = [sys.executable, "-c", code]
    if launched:
        plan = json.dumps({"parent": os.getpid(), "sandbox": None})
        command = [sys.executable, "-I", "-S", launch.__file__, plan, *command]
    reading = asyncio.create_task(asyncio.to_thread(done.read_text))
    process = await asyncio.create_subprocess_exec(*command)
    assert await process.wait() == 0
    # nobody's child any more; an operator's own daemon is let in
    assert (await asyncio.wait_for(reading, 120)).startswith("403" if launched else "200")


async def test_the_socket_is_private(sockets: AgentSockets, path: Path) -> None:
    await sockets.open("w", "attempt", path)
    assert path.stat().st_mode & 0o777 == 0o600
    with pytest.raises(ValueError, match="already"):
        await sockets.open("w", "attempt", path)
    with pytest.raises(ValueError, match="at most"):
        await sockets.open("v", "attempt", path.with_name("x" * 120))
    assert sockets.open_sockets == 1


def test_an_id_given_anew_is_not_the_process_that_was_registered() -> None:
    me = birth(os.getpid())
    assert me is not None
    assert descends(os.getpid(), me)
    assert not descends(os.getpid(), Birth(me.pid, me.started - 1))
    assert not descends(os.getppid(), me)
    assert not descends(1, me)
    assert birth(2**22 + 1) is None
