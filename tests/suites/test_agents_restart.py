"""An agent that is killed, a Tower that is killed, and a Tower behind TLS, while tasks run beside."""

from __future__ import annotations

import json
import os
import select
import signal
import socket
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import httpx
import pytest
from tests.suites.rooms import House, Room, deploy
from tests.threats.conftest import opened
from tests.threats.victim import above, host_pid
from tests.tower_process import Tower, held_port

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
            assert select.select([descriptor], [], [], 120)[0]
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


ASKING = """
    import threading
    told, enough = [], threading.Event()

    def ask_on():
        while not enough.is_set():
            told.append(who())

    threads = [threading.Thread(target=ask_on, daemon=True) for _ in range(3)]
    for thread in threads:
        thread.start()
    globals()["asked"] = told, enough, threads
"""
"""Three threads of a task ask for their identity, without a pause, until they are told to stop."""

TOLD = """
    told, enough, threads = asked
    enough.set()
    for thread in threads:
        thread.join()
    answer = [len(told), sorted({each for each in told if each in ("alice", "bob")}), who()]
"""


LINE = """
    line = http.client.HTTPConnection("x")
    line.sock = socket.socket(socket.AF_UNIX)
    line.sock.connect(os.environ["FLYTE_AGENT_SOCKET"])
    globals()["line"] = line
    line.request("GET", "/api/v1/whoami", headers={"x-flyte-agent": "1"})
    reply = line.getresponse()
    reply.read()
    answer = reply.status
"""
"""A task keeps a connection to its agent."""

AGAIN = """
    line.request("GET", "/api/v1/whoami", headers={"x-flyte-agent": "1"})
    reply = line.getresponse()
    answer = [reply.status, reply.read().decode()]
"""


def test_killed_agents_under_load_confuse_nobody(stopped: Tower) -> None:
    """Two people's tasks call without a pause while their agents are killed, three times in a row."""
    with again(stopped) as house:
        rooms = {name: house.room(name) for name in ("alice", "bob")}
        for room in rooms.values():
            room.do(ASKING)
        for _ in range(3):
            for pid in agents(house):
                os.kill(pid, signal.SIGKILL)
            for name, room in rooms.items():
                assert room.who() == name
        for name, room in rooms.items():
            number, subjects, now = room.do(TOLD)
            assert number > 0
            assert (subjects, now) == ([name], name)
            room.end()
            assert house.lab.wait(name, room.run).action.status.attempts == 1


def test_a_killed_tower_does_no_finished_child_again(stopped: Tower) -> None:
    """What is lost with Tower is the time since: a child that had ended has one attempt after the restart."""
    with again(stopped) as house:
        room = house.room("bob")
        assert room.do("answer = leaf(3)") == "bob 3"
        room.do(ASKING)
        house.tower.process.kill()
        house.tower.process.wait()
        room.gone()
        with Tower.started(stopped.home, "--agent", "beside") as tower:
            tower.keys = stopped.keys
            for lab in opened(tower):
                house.lab, house.tower = lab, tower
                second = house.next()
                assert (second.run, second.attempt, second.who()) == (room.run, "2", "bob")
                assert second.do("answer = leaf(3)") == "bob 3"
                second.end()
                assert lab.wait("bob", room.run).action.status.attempts == 2
                begun = lab.audit(event="agent.start", limit="200")
                of_leaf = {
                    record["detail"]["attempt"]
                    for record in begun
                    if room.run in record["detail"]["attempt"] and "/a0/" not in record["detail"]["attempt"]
                }
                assert len(of_leaf) == 1


def test_an_agent_that_outlives_tower_serves_an_attempt_that_is_over(stopped: Tower) -> None:
    """A task shakes off what would end it with Tower. Its agent lives on, comes back, and is told no."""
    with held_port() as port, again(stopped, "--port", str(port), "--isolation", "off") as house:
        room = house.room("alice")
        room.do("import ctypes; ctypes.CDLL(None).prctl(1, 0, 0, 0, 0)")
        assert room.who() == "alice"
        _set_free(room)
        assert room.do(LINE) == 200
        pidfds = [os.pidfd_open(pid) for pid in agents(house)]
        house.tower.process.kill()
        house.tower.process.wait()
        assert room.who().startswith("503")
        options = ("--agent", "beside", "--port", str(port))
        with Tower.started(stopped.home, *options) as tower:
            tower.keys = stopped.keys
            for lab in opened(tower):
                house.lab, house.tower = lab, tower
                second = house.next()
                assert (second.run, second.attempt, second.who()) == (room.run, "2", "alice")
                assert room.who().startswith("cut")  # the next Tower removes sockets that are nobody's
                status, text = room.do(AGAIN)
                assert status == 401
                assert "over" in text
                assert second.who() == "alice"
                second.end()
                assert lab.wait("alice", room.run).action.status.attempts == 2
                assert room.do(AGAIN)[0] == 401
        room.close()
        for descriptor in pidfds:  # and with the process, it ends
            assert select.select([descriptor], [], [], 120)[0]
            os.close(descriptor)


def test_during_the_drain_tasks_beside_call_on(stopped: Tower) -> None:
    """Nobody else does: others are told to come back."""
    with again(stopped, "--drain", "50") as house:
        room = house.room("alice")
        assert room.who() == "alice"
        house.tower.process.send_signal(signal.SIGTERM)
        with house.tower.http("bob") as client:
            while (answer := _tried(client)) is None or answer.status_code == 200:
                assert house.tower.process.poll() is None
        assert (answer.status_code, answer.headers["retry-after"]) == (503, "5")
        assert room.who() == "alice"
        room.end()
        assert house.tower.process.wait(60) == 0
    with again(stopped) as house:
        details = house.lab.wait("alice", room.run)
        assert details.action.status.attempts == 1


def _set_free(room: Room) -> None:
    """Keep a task from all that would end it with Tower or at its next start: more than it can do itself.

    Its template is stopped, to be killed before it ends its children, and its control groups are left.
    """
    pid = host_pid(room.do("answer = os.getcwd()"))
    for place, _, _ in os.walk("/sys/fs/cgroup"):  # where other Towers make and remove theirs meanwhile
        if Path(place).parent.name.startswith("tower-"):
            with suppress(OSError):
                if str(pid) in (Path(place) / "cgroup.procs").read_text().split():
                    (Path(place).parents[1] / "cgroup.procs").write_text(str(pid))
    os.kill(above(pid)[0], signal.SIGSTOP)


def _tried(client: httpx.Client) -> httpx.Response | None:
    try:
        return client.get("/api/v1/whoami")
    except httpx.TransportError:
        return None


def _revoke(house: House, run: str) -> None:
    house.tower.flyte(*("--project", "flytesnacks", "--domain", "development", "delete", "grant", run))


def _disable(house: House, run: str) -> None:
    house.tower.tower("users", "disable", "alice")


def _delete_key(house: House, run: str) -> None:
    house.tower.tower("keys", "delete", "alice-key", "--user", "alice")


def _abort(house: House, run: str) -> None:
    house.abort("alice", run)


@pytest.mark.parametrize(
    ("take", "says"),
    [
        (_revoke, "was revoked by alice"),
        (_abort, ""),
        (_disable, "does not hold any more"),
        (_delete_key, "does not hold any more"),
    ],
)
def test_a_revocation_holds_across_a_kill_of_tower(
    stopped: Tower, take: Callable[[House, str], None], says: str
) -> None:
    """Acknowledged, then killed: neither what outlived that nor the next Tower acts for them again."""
    with held_port() as port, again(stopped, "--port", str(port), "--isolation", "off") as house:
        room = house.room("alice")
        assert room.who() == "alice"
        room.do("import ctypes, signal; ctypes.CDLL(None).prctl(1, 0, 0, 0, 0)")
        room.do("signal.signal(signal.SIGTERM, signal.SIG_IGN)")
        room.do(ASKING)
        _set_free(room)
        take(house, room.run)
        house.tower.process.kill()
        house.tower.process.wait()
        with Tower.started(stopped.home, "--agent", "beside", "--port", str(port)) as tower:
            tower.keys = stopped.keys
            for lab in opened(tower):
                house.lab, house.tower = lab, tower
                error = lab.wait("admin", room.run).action.error_info.message
                assert says in error, error
                told = _outlived(room)
                assert told is None or (told[1], told[2] in ("401", "cut")) == ([], True), told
            if take is _disable:
                tower.tower("users", "enable", "alice")
            if take is _delete_key:
                stopped.keys["alice"] = tower.new_key("alice-key", "alice")
        room.close()


def _outlived(room: Room) -> list[object] | None:
    """What a task that is left over is told: how often, as whom, and the last status; None if it is gone."""
    try:
        room.do("told, enough, threads = asked; told.clear()")
        room.do("while len(told) < 3: pass")
        number, subjects, now = room.do(TOLD)
    except (OSError, json.JSONDecodeError):
        return None
    return [number, subjects, now[:3]]


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
