"""`tower agent` as a process: launched by somebody on another node, who is this test."""

from __future__ import annotations

import asyncio
import json
import os
import shutil
import socket
import sys
import tempfile
import time
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, suppress
from pathlib import Path
from typing import Any

import pytest
from tests.agent_world import WHO, Node
from tests.grounds_world import Grounds
from tests.rpc_world import RpcWorld

from tower.agent.attest import birth
from tower.agent.process import MISUSED, REFUSED, Launch
from tower.identity.workload import Workload

TOWER = str(Path(sys.executable).parent / "tower")
HEAD = b"host: x\r\nconnection: close\r\ncontent-type: application/proto\r\ncontent-length: 0\r\n"

TASK = """
import socket, sys
for line in sys.stdin:
    path, head = eval(line)
    with socket.socket(socket.AF_UNIX) as link:
        answer = b""
        try:
            link.connect(path)
            link.sendall(head)
            while chunk := link.recv(65536):
                answer += chunk
        except OSError:
            pass
        print(repr(answer), flush=True)
"""


class Task:
    """A process that asks at a socket when it is told to."""

    def __init__(self, process: asyncio.subprocess.Process) -> None:
        self.process = process

    @classmethod
    async def started(cls) -> Task:
        pipe = asyncio.subprocess.PIPE
        return cls(await asyncio.create_subprocess_exec(sys.executable, "-c", TASK, stdin=pipe, stdout=pipe))

    async def ask(
        self, path: Path, target: str = WHO, method: str = "POST", header: str = "x-flyte-agent: 1"
    ) -> bytes:
        head = f"{method} {target} HTTP/1.1\r\n{header}\r\n".encode() + HEAD + b"\r\n"
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        self.process.stdin.write(f"{(str(path), head)!r}\n".encode())
        answer: bytes = eval(await self.process.stdout.readline())
        return answer

    async def end(self) -> None:
        with suppress(ProcessLookupError):
            self.process.kill()
        await self.process.communicate()


class Place:
    """Another node: a folder for sockets, and launching."""

    def __init__(self, node: Node, grounds: Grounds, folder: Path) -> None:
        self.node, self.grounds, self.folder = node, grounds, folder
        self.socket, self.health = folder / "agent", folder / "health"
        self.agents: list[asyncio.subprocess.Process] = []

    def line(self, workload: Workload, **more: Any) -> bytes:
        launch = {
            "tower": self.node.url,
            "attempt": workload.id,
            "ticket": self.node.agents.ticket(workload.id),
            "tower_key": self.node.agents.public,
            "socket": str(self.socket),
            "health": str(self.health),
            **more,
        }
        return json.dumps(launch).encode() + b"\n"

    async def launch(self, line: bytes) -> asyncio.subprocess.Process:
        pipe = asyncio.subprocess.PIPE
        agent = await asyncio.create_subprocess_exec(
            TOWER, "agent", stdin=pipe, stdout=pipe, stderr=pipe, env={"PATH": "/usr/bin:/bin", **_path()}
        )
        self.agents.append(agent)
        assert agent.stdin is not None
        agent.stdin.write(line)
        return agent

    async def ready(self, line: bytes) -> asyncio.subprocess.Process:
        agent = await self.launch(line)
        assert agent.stdout is not None
        said = await agent.stdout.readline()
        assert said == b"ready\n", (said, await agent.communicate())
        return agent

    def root(self, agent: asyncio.subprocess.Process, pid: int) -> None:
        found = birth(pid)
        assert found is not None
        assert agent.stdin is not None
        agent.stdin.write(json.dumps({"root": found.pid, "started": found.started}).encode() + b"\n")

    def knock(self, path: Path, target: str, method: str = "GET") -> bytes:
        """What this process, of the same user and outside of the task, is answered."""
        with socket.socket(socket.AF_UNIX) as link:
            link.connect(str(path))
            link.sendall(f"{method} {target} HTTP/1.1\r\nx-flyte-agent: 1\r\n".encode() + HEAD + b"\r\n")
            answer = b""
            while chunk := link.recv(65536):
                answer += chunk
            return answer


def _path() -> dict[str, str]:
    return {"PYTHONPATH": os.environ["PYTHONPATH"]} if "PYTHONPATH" in os.environ else {}


@pytest.fixture
async def place(tmp_path: Path) -> AsyncIterator[Place]:
    (tmp_path / "home").mkdir()
    async with AsyncExitStack() as opened:
        rpc = await opened.enter_async_context(RpcWorld.opened(tmp_path / "home"))
        rpc.world.clock.time = time.time()  # the agent has a clock of its own
        node = await opened.enter_async_context(Node.opened(rpc))
        folder = Path(tempfile.mkdtemp())  # a path that is short enough for a socket
        made = Place(node, await Grounds.opened(rpc), folder)
        try:
            yield made
        finally:
            for agent in made.agents:
                with suppress(ProcessLookupError):
                    agent.kill()
                await agent.communicate()
            shutil.rmtree(folder)


async def test_it_serves_its_task_and_nobody_else_until_the_task_ends(place: Place) -> None:
    workload = await place.grounds.lease(await place.grounds.asked("alice"))
    task, stranger = await Task.started(), await Task.started()
    agent = await place.ready(place.line(workload))
    place.root(agent, task.process.pid)
    answer = await task.ask(place.socket)
    assert answer.startswith(b"HTTP/1.1 200")
    assert b"alice" in answer
    assert (await task.ask(place.socket, header="x-other: 1")).startswith(b"HTTP/1.1 403")
    assert (await stranger.ask(place.socket)).startswith(b"HTTP/1.1 403")
    assert (await asyncio.to_thread(place.knock, place.socket, WHO)).startswith(b"HTTP/1.1 403")
    health = await asyncio.to_thread(place.knock, place.health, "/health")
    assert b'"status": "ok"' in health
    counted = await asyncio.to_thread(place.knock, place.health, "/metrics")
    assert b'tower_agent_refusals_total{reason="stranger"} 2.0' in counted
    assert b'tower_agent_refusals_total{reason="header"} 1.0' in counted
    assert b'tower_agent_forwarded_total{outcome="answered"} 1.0' in counted
    let = await asyncio.to_thread(place.knock, place.health, WHO, "POST")
    assert let.startswith(b"HTTP/1.1 403")
    assert (place.socket.stat().st_mode & 0o777, place.health.stat().st_mode & 0o777) == (0o600, 0o600)
    await task.end()
    _, logged = await agent.communicate()
    assert agent.returncode == 0
    assert not place.socket.exists()
    lines = [json.loads(line) for line in logged.splitlines()]
    refused = [line for line in lines if line["event"].endswith("refused")]
    assert [line["reason"] for line in refused] == ["header", "stranger", "stranger"]
    assert refused[1]["peer_pid"] == stranger.process.pid
    assert b"ticket" not in logged
    await stranger.end()


async def test_a_stranger_with_the_number_of_the_task_is_a_stranger(place: Place) -> None:
    """The root process is named by its number and its start: a later process of the number is not it."""
    workload = await place.grounds.lease(await place.grounds.asked("alice"))
    task = await Task.started()
    agent = await place.ready(place.line(workload))
    found = birth(task.process.pid)
    assert found is not None
    assert agent.stdin is not None
    agent.stdin.write(json.dumps({"root": found.pid, "started": found.started - 1}).encode() + b"\n")
    assert (await task.ask(place.socket)).startswith(b"HTTP/1.1 403")
    await task.end()


async def test_a_second_agent_with_the_ticket_gets_nothing_and_ends_the_first(place: Place) -> None:
    workload = await place.grounds.lease(await place.grounds.asked("alice"))
    task = await Task.started()
    line = place.line(workload)
    first = await place.ready(line)
    place.root(first, task.process.pid)
    assert (await task.ask(place.socket)).startswith(b"HTTP/1.1 200")
    second = await place.launch(line)
    said, logged = await second.communicate()
    assert (second.returncode, said) == (REFUSED, b"")
    assert b"used before" in logged
    assert (await task.ask(place.socket)).startswith(b"HTTP/1.1 401")
    await task.end()


async def test_it_ends_with_its_launcher_when_there_is_no_task_yet(place: Place) -> None:
    workload = await place.grounds.lease(await place.grounds.asked("alice"))
    agent = await place.ready(place.line(workload))
    assert agent.stdin is not None
    agent.stdin.close()
    assert await agent.wait() == 0
    assert not place.socket.exists()


LAUNCHES = (
    b"",
    b"\n",
    b"{}\n",
    b"[1]\n",
    b'{"tower": "http://127.0.0.1:1"}\n',
    b'{"tower": "http://tower.test", "attempt": "a", "ticket": "t", "tower_key": "k", "socket": "s"}\n',
)


@pytest.mark.parametrize("line", LAUNCHES)
async def test_what_is_no_launch_starts_nothing(place: Place, line: bytes) -> None:
    agent = await place.launch(line)
    assert agent.stdin is not None
    agent.stdin.close()
    said, logged = await agent.communicate()
    assert (agent.returncode, said) == (MISUSED, b"")
    assert b"not launched" in logged


def test_a_launch_hides_its_ticket() -> None:
    launch = {
        "tower": "http://127.0.0.1:1",
        "attempt": "a",
        "ticket": "SECRET",
        "tower_key": "k",
        "socket": "s",
    }
    assert "SECRET" not in repr(Launch.read(json.dumps(launch).encode()))
