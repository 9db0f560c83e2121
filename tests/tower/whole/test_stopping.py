"""A Tower that is stopped, and one that is killed: what ran, what waited, and what is on record."""

from __future__ import annotations

import json
import signal
import socket
import sqlite3
from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor, as_completed
from contextlib import closing, contextmanager

import pytest
from tests.threats.conftest import Lab
from tests.tower.whole.lobby import Line, Lobby, create, deploy, outcome
from tests.tower_process import Tower

pytestmark = pytest.mark.xdist_group("stopping")

PARALLEL = 8
ONCE = ["run.create", "run.finish"]


@pytest.fixture
def lobby() -> Iterator[Lobby]:
    with Lobby.open() as lobby:
        yield lobby


@pytest.fixture(scope="module")
def stopped(tmp_path_factory: pytest.TempPathFactory) -> Tower:
    """A Tower that alice deployed her tasks to, and that was stopped."""
    folder = tmp_path_factory.mktemp("stopping")
    with Tower.started(folder / "home") as tower:
        tower.tower("users", "add", "alice", "--role", "contributor")
        tower.keys["alice"] = tower.new_key("alice-key", "alice")
        deploy(tower, folder / "code")
    return tower


def stop(tower: Tower, line: Line) -> None:
    """Ask for the end; returns when the listener is closed."""
    tower.process.send_signal(signal.SIGTERM)
    line.ends()
    with pytest.raises(ConnectionRefusedError):
        socket.create_connection(line.address)


@contextmanager
def again(before: Tower, *options: str) -> Iterator[Lab]:
    """The next Tower over the same home."""
    with Tower.started(before.home, *options) as tower, tower.http() as client:
        tower.keys = before.keys
        yield Lab(tower, client, (tower.home / "admin-key").read_text().strip())


def recorded(lab: Lab, names: Iterable[str]) -> dict[str, list[str]]:
    """What the audit says of each of these runs, oldest first."""
    found: dict[str, list[str]] = {name: [] for name in names}
    for record in reversed(lab.audit(limit="500")):
        name = (record["detail"].get("run") or record["resource"]).rpartition("/")[2]
        if name in found and record["event"].startswith("run."):
            found[name].append(record["event"])
    return found


def on_disk(tower: Tower) -> tuple[set[str], set[str]]:
    """The runs that there are, and those whose creation is on record."""
    with closing(sqlite3.connect(tower.home / "tower.db")) as database:
        known = {row[0] for row in database.execute("SELECT run FROM actions")}
        rows = database.execute("SELECT detail FROM audit WHERE event = 'run.create'")
        return known, {json.loads(row[0])["run"].rpartition("/")[2] for row in rows}


def test_a_stop_lets_what_runs_end_and_keeps_the_rest(lobby: Lobby, stopped: Tower) -> None:
    """What ends within the drain counts; what outlasts it and what waits runs after the next start."""
    with again(stopped, "--drain", "15s") as lab:
        alice, tower = lab.bearer("alice"), lab.tower
        words = [f"v{number}" for number in range(PARALLEL - 1)] + ["slow"]
        names = {word: create(lab.client, alice, lobby.port, word) for word in words}
        visitors = {(visitor := lobby.next()).name: visitor for _ in names}
        names["late"] = create(lab.client, alice, lobby.port, "late")
        stop(tower, Line(tower))
        assert tower.process.poll() is None, "it ended with tasks at work"
        slow = visitors.pop("slow")
        for visitor in visitors.values():
            visitor.release()
        slow.gone()
        assert tower.process.wait(120) == 0
    assert lobby.nobody_waits(), "something was started during the drain"
    with again(stopped) as lab:
        again_ = {lobby.next(), lobby.next()}
        assert {visitor.name for visitor in again_} == {"slow", "late"}
        for visitor in again_:
            visitor.release()
        for word, name in names.items():
            assert outcome(lab, name) == ("SUCCEEDED", f"bye {word}")
        assert recorded(lab, names.values()) == dict.fromkeys(names.values(), ONCE)
    assert sorted(lobby.visits) == sorted([*names, "slow"])


def test_t44_a_killed_tower_loses_no_run_and_has_each_on_record(lobby: Lobby, stopped: Tower) -> None:
    """What was answered exists; what exists is recorded; what ran ends, and runs again at the next start."""
    before, _ = on_disk(stopped)
    with again(stopped) as lab:
        alice, tower = lab.bearer("alice"), lab.tower
        name = create(lab.client, alice, lobby.port, "first")
        first = lobby.next()
        with ThreadPoolExecutor(8) as pool:
            asked = [pool.submit(create, lab.client, alice, lobby.port, f"n{number}") for number in range(60)]
            next(as_completed(asked)).result()
            tower.process.kill()
        answered = {each.result() for each in asked if each.exception() is None}
        first.gone()
        assert tower.process.wait(120) == -signal.SIGKILL
    known, on_record = on_disk(stopped)
    assert known == on_record
    assert answered | {name} <= known
    lobby.welcome_all()
    with again(stopped) as lab:
        names = known - before
        assert {outcome(lab, each)[0] for each in names} == {"SUCCEEDED"}
        assert recorded(lab, names) == dict.fromkeys(names, ONCE)
        assert lab.tower.tower("audit", "verify").status == 0
