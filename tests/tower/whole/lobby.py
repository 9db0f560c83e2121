"""Tasks that come to the test and stay until they are let go: no sleeps, no files, no guesses.

A task opens a connection to the test and says its name; the kernel closes the connection when the process is
gone, however it ended.
"""

from __future__ import annotations

import select
import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import httpx
from flyteidl2.common import phase_pb2
from flyteidl2.workflow import run_service_pb2 as runs
from tests.threats.conftest import DOMAIN, PROJECT, Lab
from tests.tower_process import Tower

SECONDS = 120.0

TASKS = """
import os
import socket

import flyte

env = flyte.TaskEnvironment(name="hall", image=flyte.Image.from_debian_base())


@env.task
def visit(port: int, word: str) -> str:
    print("came", word, flush=True)
    with socket.create_connection(("127.0.0.1", port)) as line, line.makefile("rw") as talk:
        print(word, os.getpid(), file=talk, flush=True)
        answer = talk.readline().strip()
    if not answer:
        raise RuntimeError("nobody is there any more")
    print("went", word, flush=True)
    return f"{answer} {word}"


@env.task
def breaks(text: str) -> str:
    raise ValueError(text)
"""

APP = """
import os
import socket
import sys
from http.server import BaseHTTPRequestHandler
from socketserver import UnixStreamServer

import flyte
from flyte.app import AppEnvironment, Scaling

PORT = {port}
app_env = AppEnvironment(
    name="sleeper",
    command=["python", "sleeper.py", "$FLYTE_APP_SOCKET"],
    image=flyte.Image.from_debian_base(),
    scaling=Scaling(replicas=(0, 1), scaledown_after=1),
)


class Answers(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_GET(self):
        if "stay" in self.path:  # answered when the test lets it go: until then it is in use
            here.sendall(b"asked\\n")
            here.recv(1)
        body = str(os.getpid()).encode()
        self.send_response(200)
        self.send_header("content-length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def address_string(self):
        return "gateway"


if __name__ == "__main__":
    here = socket.create_connection(("127.0.0.1", PORT))
    here.sendall(f"sleeper {{os.getpid()}}\\n".encode())
    UnixStreamServer(sys.argv[1], Answers).serve_forever()
"""


class Visitor:
    """A task that waits, or an app that is up."""

    def __init__(self, connection: socket.socket) -> None:
        self._connection = connection
        connection.settimeout(SECONDS)
        self._talk = connection.makefile("rw")
        self.name, pid = self._talk.readline().split()
        self.pid = int(pid)
        """As the task sees it; within a namespace that is another number than outside."""

    def asked(self) -> None:
        """Return once the app was asked to stay."""
        assert self._talk.readline() == "asked\n"

    def release(self, word: str = "bye") -> None:
        """Let the task end, or the app answer; `word` becomes a part of the task's output."""
        print(word, file=self._talk, flush=True)

    def gone(self) -> None:
        """Return once nothing holds the connection any more: the process and all its children are gone."""
        with suppress(ConnectionResetError):
            assert self._talk.read() == ""

    def close(self) -> None:
        with suppress(OSError):
            self._talk.close()
        self._connection.close()


class Lobby:
    """Where tasks come to; each visit is one execution."""

    def __init__(self) -> None:
        self._listener = socket.create_server(("127.0.0.1", 0), backlog=64)
        self._listener.settimeout(SECONDS)
        self.port = int(self._listener.getsockname()[1])
        self.visits: list[str] = []
        self._visitors: list[Visitor] = []

    @classmethod
    @contextmanager
    def open(cls) -> Iterator[Lobby]:
        lobby = cls()
        try:
            yield lobby
        finally:
            for visitor in lobby._visitors:
                visitor.close()
            lobby._listener.close()

    def next(self) -> Visitor:
        """The next task that comes; waits for it."""
        visitor = Visitor(self._listener.accept()[0])
        self.visits.append(visitor.name)
        self._visitors.append(visitor)
        return visitor

    def nobody_waits(self) -> bool:
        """Whether nobody has come that `next` has not returned."""
        return select.select([self._listener], [], [], 0)[0] == []

    def welcome_all(self) -> None:
        """Let everybody go who comes from now on, also those whose process is gone already."""
        threading.Thread(target=self._welcome, daemon=True).start()

    def _welcome(self) -> None:
        with suppress(OSError):
            while True:
                connection, _ = self._listener.accept()
                with suppress(OSError), connection, connection.makefile("rw") as talk:
                    if talk.readline():
                        print("bye", file=talk, flush=True)
                    talk.readline()


def deploy(tower: Tower, folder: Path) -> None:
    """Register the tasks as alice."""
    folder.mkdir(exist_ok=True)
    (folder / "hall.py").write_text(TASKS)
    tower.flyte("deploy", "hall.py", "env", cwd=folder)


def create(client: httpx.Client, headers: dict[str, str], port: int, word: str) -> str:
    """Ask for a visit over the wire; the run's name, once Tower has answered."""
    asked = runs.CreateRunRequest()
    asked.project_id.name, asked.project_id.domain = PROJECT, DOMAIN
    asked.task_id.project, asked.task_id.domain, asked.task_id.name = PROJECT, DOMAIN, "hall.visit"
    for name in ("port", "word"):
        asked.inputs.literals.add(name=name)
    asked.inputs.literals[0].value.scalar.primitive.integer = port
    asked.inputs.literals[1].value.scalar.primitive.string_value = word
    answer = client.post(
        "/flyteidl2.workflow.RunService/CreateRun",
        content=asked.SerializeToString(),
        headers={"content-type": "application/proto", **headers},
    )
    assert answer.status_code == 200, answer.text
    return str(runs.CreateRunResponse.FromString(answer.content).run.action.id.run.name)


def outcome(lab: Lab, name: str) -> tuple[str, str]:
    """Wait for the end of a run: its phase, and what it answered."""
    phase = phase_pb2.ActionPhase.Name(lab.wait("alice", name).action.status.phase)
    phase = phase.removeprefix("ACTION_PHASE_")
    return phase, lab.output("alice", name) if phase == "SUCCEEDED" else ""


class Line:
    """A connection to Tower that is kept and does nothing: its end says that the listener is closed."""

    def __init__(self, tower: Tower) -> None:
        host, port = tower.url.rpartition("/")[2].split(":")
        self.address = (host, int(port))
        self._socket = socket.create_connection(self.address, timeout=SECONDS)
        self._socket.sendall(b"GET /api/v1/whoami HTTP/1.1\r\nhost: localhost\r\n\r\n")
        assert self._socket.recv(12) == b"HTTP/1.1 401"

    def ends(self) -> None:
        while self._socket.recv(65536):
            pass
        self._socket.close()
