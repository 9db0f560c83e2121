"""Tasks that do what the test tells them while they run: code comes over a connection, answers go back."""

from __future__ import annotations

import json
import socket
import textwrap
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from flyteidl2.workflow import run_service_pb2 as runs
from tests.threats.conftest import DOMAIN, PROJECT, Lab

SECONDS = 120.0

TASKS = '''
import http.client
import json
import os
import socket

import flyte
import flyte.remote as remote

env = flyte.TaskEnvironment(name="room", image=flyte.Image.from_debian_base())


def ask(target, method="POST", body=b"{}", path=None, header="x-flyte-agent: 1", *more):
    """A request over a unix socket, by no SDK: status and body; "cut" when there is no answer."""
    call = http.client.HTTPConnection("x")
    call.sock = socket.socket(socket.AF_UNIX)
    try:
        call.sock.connect(path or os.environ["FLYTE_AGENT_SOCKET"])
        call.putrequest(method, target, skip_accept_encoding=True)
        for line in (header, "content-type: application/json", f"content-length: {len(body)}", *more):
            call.putheader(*line.split(": ", 1))
        call.endheaders(body)
        answer = call.getresponse()
        return [str(answer.status), answer.read().decode(errors="replace")]
    except (OSError, http.client.HTTPException) as error:
        return ["cut", type(error).__name__]
    finally:
        call.close()


def who():
    """Whom Tower takes this task for, or the status and the message of the refusal."""
    status, text = ask("/flyteidl2.auth.IdentityService/UserInfo")
    told = json.loads(text) if text.startswith("{") else {}
    return told["subject"] if status == "200" else f"{status} {told.get('message', text)}"


@env.task
def leaf(x: int) -> str:
    return f"{remote.User.get().subject()} {x}"


@env.task(retries=1)
def stay(port: int, word: str) -> str:
    names = {**globals(), "ask": ask, "who": who}
    with socket.create_connection(("127.0.0.1", port)) as line, line.makefile("rw") as talk:
        here = os.environ
        print(json.dumps([word, here["RUN_NAME"], here["FLYTE_ATTEMPT_NUMBER"], here["FLYTE_AGENT_SOCKET"]]),
              file=talk, flush=True)
        for text in talk:
            order, code = json.loads(text)
            if order == "end":
                return code
            if order == "fail":
                raise RuntimeError(code)
            names["answer"] = None
            try:
                exec(code, names)
                answer = names["answer"]
            except BaseException as error:
                answer = f"{type(error).__name__}: {error}"
            print(json.dumps(answer, default=str), file=talk, flush=True)
    raise RuntimeError("nobody is there any more")
'''


class Room:
    """A running task that waits for what to do."""

    def __init__(self, connection: socket.socket) -> None:
        self._connection = connection
        connection.settimeout(SECONDS)
        self._talk = connection.makefile("rw")
        self.word, self.run, self.attempt, self.socket = json.loads(self._talk.readline())

    def do(self, code: str) -> Any:
        """Run code inside the task; what it assigned to `answer`, or the error as a text."""
        print(json.dumps(["do", textwrap.dedent(code)]), file=self._talk, flush=True)
        return json.loads(self._talk.readline())

    def who(self) -> str:
        """Whom Tower takes the task for."""
        return str(self.do("answer = who()"))

    def end(self, answer: str = "bye") -> None:
        """Let the task end; returns when its process is gone."""
        print(json.dumps(["end", answer]), file=self._talk, flush=True)
        self.gone()

    def fail(self, text: str = "told to") -> None:
        """Let the attempt fail; returns when its process is gone."""
        print(json.dumps(["fail", text]), file=self._talk, flush=True)
        self.gone()

    def leave(self, code: str) -> None:
        """Run code that ends the process; returns when it is gone."""
        print(json.dumps(["do", code]), file=self._talk, flush=True)
        self.gone()

    def nobody(self) -> None:
        """Return once the process is gone, which nobody told to; until then it is nobody."""
        try:
            told = self.who()
        except (OSError, ValueError):
            told = "gone"
        assert told.startswith(("401", "cut", "gone")), told
        self.gone()

    def gone(self) -> None:
        """Return once the process is gone."""
        with suppress(ConnectionResetError):
            assert self._talk.read() == ""

    def close(self) -> None:
        with suppress(OSError):
            self._talk.close()
        self._connection.close()


class House:
    """A Tower with the task, and where its rooms are reached."""

    def __init__(self, lab: Lab, mode: str) -> None:
        self.lab, self.mode, self.tower = lab, mode, lab.tower
        self._listener = socket.create_server(("127.0.0.1", 0), backlog=64)
        self._listener.settimeout(SECONDS)
        self.port = int(self._listener.getsockname()[1])
        self._rooms: list[Room] = []

    @classmethod
    @contextmanager
    def opened(cls, lab: Lab, mode: str) -> Iterator[House]:
        house = cls(lab, mode)
        try:
            yield house
        finally:
            for room in house._rooms:
                room.close()
            house._listener.close()

    def ask(self, who: str, word: str = "room") -> str:
        """Ask for a run; its name."""
        asked = runs.CreateRunRequest()
        asked.project_id.name, asked.project_id.domain = PROJECT, DOMAIN
        task = asked.task_id
        task.project, task.domain, task.name = PROJECT, DOMAIN, "room.stay"
        asked.inputs.literals.add(name="port").value.scalar.primitive.integer = self.port
        asked.inputs.literals.add(name="word").value.scalar.primitive.string_value = word
        answer = self.lab.rpc(who, "workflow.RunService/CreateRun", asked)
        assert answer.status_code == 200, answer.text
        return str(runs.CreateRunResponse.FromString(answer.content).run.action.id.run.name)

    def next(self) -> Room:
        """The next task that comes; waits for it."""
        room = Room(self._listener.accept()[0])
        self._rooms.append(room)
        return room

    def room(self, who: str = "alice") -> Room:
        """A running task of this person."""
        name = self.ask(who)
        room = self.next()
        assert room.run == name
        return room

    def abort(self, who: str, name: str) -> None:
        """End a run; returns when that is acknowledged."""
        asked = runs.AbortRunRequest()
        asked.run_id.project, asked.run_id.domain, asked.run_id.name = PROJECT, DOMAIN, name
        assert self.lab.rpc(who, "workflow.RunService/AbortRun", asked).status_code == 200


def deploy(lab: Lab, folder: Path) -> None:
    """Register the tasks as alice."""
    (folder / "room_tasks.py").write_text(TASKS)
    lab.deploy("alice", folder, "deploy", "room_tasks.py", "env")
