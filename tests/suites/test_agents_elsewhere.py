"""`tower agent` as another node launches it, over the network door, while Tower is killed and comes back.

Whoever starts attempts on a node starts an agent for each, and so does this test: the process tree that the
agent serves is none of Tower's, and outlives it.
"""

from __future__ import annotations

import json
import os
import shutil
import socket
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from tests.suites.rooms import House, Room, deploy
from tests.suites.test_agents import over
from tests.threats.conftest import DOMAIN, PROJECT, opened
from tests.tower_process import BIN, Tower, clean_environment

from tower.agent.attest import birth
from tower.clock import SystemClock
from tower.identity.signing import SigningKey
from tower.identity.tickets import Tickets
from tower.possession import Half, text_of

pytestmark = pytest.mark.xdist_group("agents-elsewhere")

ATTEMPT = """
import http.client, json, os, socket, subprocess, sys

def call(path, target, method="GET"):
    door = http.client.HTTPConnection("tower")
    door.sock = socket.socket(socket.AF_UNIX)
    try:
        door.sock.connect(path)
        door.request(method, target, headers={"x-flyte-agent": "1"})
        answer = door.getresponse()
        return [answer.status, answer.read().decode()]
    except OSError as error:
        return [0, type(error).__name__]
    finally:
        door.close()

if len(sys.argv) > 1:
    print(json.dumps(call(*sys.argv[1:])))
else:
    for line in sys.stdin:
        child, *asked = json.loads(line)
        if child:  # a process below, as a task may start some
            command = [sys.executable, "-c", os.environ["CODE"], *asked]
            print(subprocess.check_output(command, text=True).strip())
        else:
            print(json.dumps(call(*asked)))
        sys.stdout.flush()
"""


class Node:
    """An attempt's process elsewhere, and the agent that was launched for it."""

    def __init__(self, tower: Tower, attempt: str) -> None:
        self.folder = Path(tempfile.mkdtemp())  # a path that is short enough for a socket
        self.socket, self.health = self.folder / "agent", self.folder / "health"
        pipe = subprocess.PIPE
        self.process = subprocess.Popen(
            [sys.executable, "-c", ATTEMPT], stdin=pipe, stdout=pipe, text=True, env={"CODE": ATTEMPT}
        )
        with (self.folder / "log").open("w") as log:
            self.agent = subprocess.Popen(
                [BIN / "tower", "agent"],
                stdin=pipe,
                stdout=pipe,
                stderr=log,
                text=True,
                env=clean_environment({}),
            )
        self._tell(launch(tower, attempt, self.socket, self.health))
        assert self.agent.stdout is not None
        assert self.agent.stdout.readline() == "ready\n", (self.folder / "log").read_text()
        found = birth(self.process.pid)
        assert found is not None
        self._tell({"root": found.pid, "started": found.started})

    def _tell(self, line: dict[str, Any]) -> None:
        assert self.agent.stdin is not None
        print(json.dumps(line), file=self.agent.stdin, flush=True)

    def ask(self, target: str, method: str = "GET", *, child: bool = False) -> tuple[int, str]:
        """Let the attempt, or a process below it, make a call; the status and the answer."""
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        print(json.dumps([child, str(self.socket), target, method]), file=self.process.stdin, flush=True)
        status, text = json.loads(self.process.stdout.readline())
        return status, text

    def who(self, *, child: bool = False) -> str:
        """Whom Tower takes the attempt for, or the status and the message of the refusal."""
        status, text = self.ask("/api/v1/whoami", child=child)
        return str(json.loads(text)["subject"]) if status == 200 else f"{status} {text}"

    def condition(self) -> str:
        """What the agent says of itself to whoever runs it."""
        answer = over(str(self.health), "/health")
        return str(json.loads(answer[answer.index("{") : answer.rindex("}") + 1])["status"])

    def close(self) -> None:
        for process in (self.process, self.agent):
            process.kill()
            process.communicate()
        shutil.rmtree(self.folder)


def launch(tower: Tower, attempt: str, socket_: Path, health: Path) -> dict[str, Any]:
    """What Tower gives to who launches an agent, and where it shall listen."""
    key, clock = SigningKey.load(tower.home / "signing.key"), SystemClock()
    tickets = Tickets(key=key, clock=clock, purpose="agent")
    fields: dict[str, str | int] = {"attempt": attempt, "issued": int(clock.now() * 1000)}
    return {
        "tower": tower.url,
        "attempt": attempt,
        "ticket": tickets.seal(fields, life=120)[0],
        "tower_key": text_of(Half.of(key.derive("agents")).public),
        "socket": str(socket_),
        "health": str(health),
    }


@pytest.fixture(scope="module")
def house(tmp_path_factory: pytest.TempPathFactory) -> Iterator[House]:
    folder = tmp_path_factory.mktemp("elsewhere")
    with Tower.started(folder / "home") as tower:
        tower.add_people()
        for lab in opened(tower):
            deploy(lab, folder)
            with House.opened(lab, "inside") as made:
                yield made


def elsewhere(house: House, who: str) -> tuple[Room, Node]:
    """A running attempt of this person, and the node where its other processes are."""
    room = house.room(who)
    return room, Node(house.tower, f"{PROJECT}/{DOMAIN}/{room.run}/a0/{room.attempt}")


def test_a_node_has_no_identity_after_the_end_of_the_run(house: House) -> None:
    room, node = elsewhere(house, "alice")
    try:
        assert node.who() == "alice"
        room.end()
        house.lab.wait("alice", room.run)
        assert node.who().startswith("401")
        assert node.who(child=True).startswith("401")
    finally:
        node.close()


def test_a_stranger_on_the_node_is_refused(house: House) -> None:
    """The same user's process there, which is this one, and a process that was the attempt's and left it."""
    room, node = elsewhere(house, "alice")
    try:
        assert node.who() == "alice"
        with socket.socket(socket.AF_UNIX) as link:
            link.connect(str(node.socket))
            link.sendall(b"GET /api/v1/whoami HTTP/1.1\r\nhost: x\r\nx-flyte-agent: 1\r\n\r\n")
            assert link.recv(100).startswith(b"HTTP/1.1 403")
        assert os.stat(node.socket).st_mode & 0o777 == 0o600
        assert node.who() == "alice"
        room.end()
    finally:
        node.close()


def test_a_node_serves_its_attempt_until_tower_says_that_it_is_over(house: House) -> None:
    """Before Tower is killed: the person. While it is away: to try again. After: the attempt is over, another
    has begun as the same person, and the agent, which lives on, says so and gets no token ever again.

    The last test here: it ends the Tower of the others.
    """
    (alice, hers), (bob, his) = elsewhere(house, "alice"), elsewhere(house, "bob")
    people = {"alice": (alice, hers), "bob": (bob, his)}
    try:
        for name, (_, node) in people.items():
            assert (node.who(), node.who(child=True), node.condition()) == (name, name, "ok")
        port = httpx.URL(house.tower.url).port
        house.tower.process.kill()
        house.tower.process.wait()
        for room, node in people.values():
            room.gone()
            assert node.agent.poll() is None
        assert hers.who().startswith("503")
        assert hers.condition() == "waiting"
        with Tower.started(house.tower.home, "--port", str(port)) as again:
            again.keys = house.tower.keys
            for lab in opened(again):
                house.lab, house.tower = lab, again
                second = {each.run: each for each in (house.next(), house.next())}
                for name, (room, node) in people.items():
                    following = second[room.run]
                    assert (following.attempt, following.who()) == ("2", name)
                    for child in (False, True):
                        told = node.who(child=child)
                        assert told.startswith("401"), told
                        assert "This attempt is over" in told
                    following.end()
                    assert lab.wait(name, room.run).action.metadata.executed_by.user.id.subject == name
                    assert node.who().startswith("401")
                    assert node.agent.poll() is None  # it ends with the process that it serves
                    node.process.kill()
                    assert node.agent.wait(60) == 0
                    assert not node.socket.exists()
    finally:
        for _, node in people.values():
            node.close()
