"""An agent that is killed, a Tower that is killed, and a Tower behind TLS, while tasks run beside."""

from __future__ import annotations

import os
import select
import signal
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from tests.suites.rooms import House, Room, deploy
from tests.threats.conftest import opened
from tests.tower_process import Tower

pytestmark = pytest.mark.xdist_group("agents-restart")


@pytest.fixture(scope="module")
def stopped(tmp_path_factory: pytest.TempPathFactory) -> Tower:
    """A Tower that has people and the task, and that was stopped."""
    folder = tmp_path_factory.mktemp("restart")
    with Tower.started(folder / "home", "--agent", "beside") as running:
        running.add_people()
        for lab in opened(running):
            deploy(lab, folder)
    return running


@contextmanager
def again(before: Tower, *options: str) -> Iterator[House]:
    """The next Tower over the same home."""
    with Tower.started(before.home, "--agent", "beside", *options) as running:
        running.keys = before.keys
        for lab in opened(running):
            with House.opened(lab, "beside") as house:
                yield house


def agents(house: House) -> list[int]:
    """The agent processes of this Tower."""
    found = []
    for entry in Path("/proc").iterdir():
        if not entry.name.isdigit():
            continue
        try:
            parent = int((entry / "stat").read_text().rpartition(") ")[2].split()[1])
            words = (entry / "cmdline").read_bytes().split(b"\0")
        except OSError:
            continue
        if parent == house.tower.process.pid and b"tower.agent" in words:
            found.append(int(entry.name))
    return found


def deaf(room: Room) -> bool:
    """Whether nobody listens at the socket any more."""
    with socket.socket(socket.AF_UNIX) as link:
        try:
            link.connect(str(Path(room.socket).with_name("health")))
        except OSError:
            return True
    return False


def test_a_killed_agent_is_replaced_and_the_task_goes_on(stopped: Tower) -> None:
    """Calls wait meanwhile; what the dead one held is worth nothing; nobody is anybody else."""
    with again(stopped) as house:
        alice, bob = house.room("alice"), house.room("bob")
        assert (alice.who(), bob.who()) == ("alice", "bob")
        before = agents(house)
        assert len(before) == 2
        for pid in before:
            os.kill(pid, signal.SIGKILL)
        assert (alice.who(), bob.who()) == ("alice", "bob")
        assert not set(agents(house)) & set(before)
        assert (alice.attempt, bob.attempt) == ("1", "1")
        for room, name in ((alice, "alice"), (bob, "bob")):
            room.end()
            assert house.lab.wait(name, room.run).action.status.attempts == 1
        started = [record["subject"] for record in house.lab.audit(event="agent.start")]
        assert sorted(started) == ["alice", "alice", "bob", "bob"]
        assert agents(house) == []


def test_a_killed_tower_loses_no_task_and_confuses_nobody(stopped: Tower) -> None:
    with again(stopped) as house:
        rooms = [house.room(name) for name in ("alice", "bob", "alice")]
        assert [room.who() for room in rooms] == ["alice", "bob", "alice"]
        left = agents(house)
        pidfds = [os.pidfd_open(pid) for pid in left]
        house.tower.process.kill()
        house.tower.process.wait()
        for room in rooms:
            room.gone()
        for descriptor in pidfds:  # an agent ends with its task, also when nobody tells it to
            assert select.select([descriptor], [], [], 30)[0]
            os.close(descriptor)
        assert all(deaf(room) for room in rooms)
        port = house.port
        runs = {room.run: name for room, name in zip(rooms, ("alice", "bob", "alice"), strict=True)}
        with Tower.started(stopped.home, "--agent", "beside") as tower:
            tower.keys = stopped.keys
            for lab in opened(tower):
                house.lab, house.tower = lab, tower
                assert house.port == port
                second = [house.next() for _ in rooms]
                for room in second:
                    assert (room.attempt, room.who()) == ("2", runs[room.run])
                    room.end()
                    details = lab.wait(runs[room.run], room.run)
                    assert details.action.metadata.executed_by.user.id.subject == runs[room.run]
        assert {room.run for room in second} == set(runs)


def test_a_revocation_holds_across_a_kill_of_tower(stopped: Tower) -> None:
    """Acknowledged, then killed: the next Tower does not start the run again in its person's name."""
    with again(stopped) as house:
        room = house.room("alice")
        house.tower.flyte(
            *("--project", "flytesnacks", "--domain", "development", "delete", "grant", room.run)
        )
        house.tower.process.kill()
        house.tower.process.wait()
    with again(stopped) as house:
        details = house.lab.wait("alice", room.run)
        assert "was revoked by alice" in details.action.error_info.message
        assert house.lab.audit(event="grant.revoke")[0]["resource"]


def test_over_tls_and_without_a_secret_where_others_look(tmp_path: Path) -> None:
    """The ticket is no argument and no variable; the agent's memory is closed to its own user's processes."""
    with Tower.started(tmp_path / "home", "--agent", "beside", "--tls") as running:
        running.add_people()
        for lab in opened(running):
            deploy(lab, tmp_path)
            with House.opened(lab, "beside") as house:
                room = house.room("alice")
                assert room.who() == "alice"
                assert room.do("answer = remote.User.get().subject()") == "alice"
                (agent,) = agents(house)
                place = Path("/proc") / str(agent)
                words = (place / "cmdline").read_bytes().split(b"\0")
                assert words[-3:] == [b"-m", b"tower.agent", b""]
                if os.getuid():
                    with pytest.raises(PermissionError):
                        (place / "environ").read_bytes()
                assert (place / "stat").stat().st_uid == 0
                room.end()
