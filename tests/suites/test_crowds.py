"""Connections by the thousand, from a task and from outside: others are served all the same."""

from __future__ import annotations

import resource
import socket
from collections.abc import Iterator
from contextlib import ExitStack, suppress
from pathlib import Path

import pytest
from tests.suites.rooms import House, deploy
from tests.threats.conftest import opened
from tests.tower_process import Tower

pytestmark = pytest.mark.xdist_group("crowds")

DESCRIPTORS = 1024
HOLD = """
    held = []
    try:
        while len(held) < 900:
            link = socket.socket(socket.AF_UNIX)
            link.connect(os.environ["FLYTE_AGENT_SOCKET"])
            link.send(b"GET / HTTP/1.1\\r\\n")
            held.append(link)
    except OSError:
        pass
    globals()["held"] = held
    answer = len(held)
"""


@pytest.fixture
def house(tmp_path: Path) -> Iterator[House]:
    """A Tower with as few descriptors as a shell gives it as a rule."""
    few = ("prlimit", f"--nofile={DESCRIPTORS}:{DESCRIPTORS}")
    with Tower.started(tmp_path / "home", before=few) as tower:
        tower.add_people()
        for lab in opened(tower):
            deploy(lab, tmp_path)
            with House.opened(lab, "inside") as house:
                yield house


def descriptors(house: House) -> int:
    return len(list(Path(f"/proc/{house.tower.process.pid}/fd").iterdir()))


def test_a_task_that_holds_its_socket_full_keeps_nobody_out(house: House) -> None:
    alice, bob = house.room("alice"), house.room("bob")
    assert bob.do(HOLD) > 256
    assert descriptors(house) < DESCRIPTORS // 2
    assert alice.who() == "alice"
    assert house.lab.rest("alice", "GET", "/whoami").status_code == 200
    third = house.room("alice")
    assert third.who() == "alice"
    assert bob.who().startswith("503") or bob.who() == "cut"
    bob.do("while held: held.pop().close()")
    while bob.who() != "bob":
        pass
    for room in (alice, bob, third):
        room.end()


@pytest.fixture
def many() -> Iterator[None]:
    """Here, at least, there are descriptors enough to hold more connections than Tower has."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    needed = 2 * DESCRIPTORS
    if hard != resource.RLIM_INFINITY and hard < needed:
        pytest.skip(f"a process of this user may have {hard} descriptors, and {needed} are needed")
    resource.setrlimit(resource.RLIMIT_NOFILE, (max(soft, needed), hard))
    yield
    resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


@pytest.mark.usefixtures("many")
def test_who_only_holds_connections_makes_way(house: House) -> None:
    """From outside, by nobody: beginnings of heads, more than Tower has descriptors. A call is answered."""
    alice = house.room("alice")
    place = (str(house.lab.client.base_url.host), int(house.lab.client.base_url.port or 0))
    with ExitStack() as holding:
        for _ in range(DESCRIPTORS + 200):
            link = holding.enter_context(socket.create_connection(place, timeout=30))
            with suppress(OSError):
                link.sendall(b"GET /api/v1/whoami HTTP/1.1\r\nhost: x\r\n")
        assert descriptors(house) < DESCRIPTORS
        with house.tower.http("bob") as client:
            assert client.get("/api/v1/whoami").json()["subject"] == "bob"
        assert alice.who() == "alice"
        other = house.room("bob")
        assert other.who() == "bob"
        other.end()
    alice.end()
