"""Rooms made ahead: one of each kind, taken once, left when nobody comes."""

from __future__ import annotations

import asyncio
import errno
import os
from collections.abc import AsyncIterator, Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from tests.tower.reconcile.conftest import House

from tower.agent.sockets import listening
from tower.control.reconcile.ahead import Ahead, Kind
from tower.control.reconcile.rooms import Rooms
from tower.executors.port import Limits, TaskJob

KIND = Kind(
    python=Path("/usr/bin/python3"),
    bundle=None,
    module="m",
    env=(("PATH", "/bin"),),
    limits=Limits(),
    needs=(),
    beside="here",
)


class Processes:
    """An executor that has processes wait in name only."""

    def __init__(self) -> None:
        self.jobs: dict[Path, tuple[TaskJob, Callable[[], None]]] = {}
        self.waiting: set[Path] = set()
        self.can = self.would = True

    def prepares(self, job: TaskJob) -> bool:
        return self.would

    def prepare(self, job: TaskJob, *, gone: Callable[[], None]) -> bool:
        if self.can:
            self.jobs[job.directory] = job, gone
            self.waiting.add(job.directory)
        return self.can

    def claim(self, directory: Path) -> bool:
        return directory in self.waiting

    def discard(self, directory: Path) -> None:
        self.waiting.discard(directory)


@pytest.fixture
def processes() -> Processes:
    return Processes()


@pytest.fixture
async def rooms(tmp_path: Path) -> AsyncIterator[Rooms]:
    rooms = Rooms(tmp_path)
    yield rooms
    await rooms.close()


@pytest.fixture
async def ahead(processes: Processes, rooms: Rooms) -> AsyncIterator[Ahead]:
    ahead = Ahead(rooms=rooms, executor=processes, listening=listening, most=2)
    yield ahead
    ahead.close()


async def removed(rooms: Rooms) -> None:
    """Wait for what is being removed."""
    await asyncio.gather(*rooms._leaving)


async def test_one_waits_for_the_next_attempt_of_its_kind_and_is_taken_once(
    ahead: Ahead, processes: Processes
) -> None:
    assert ahead.take(KIND) is None
    ahead.expect(KIND, task="t")
    ahead.expect(KIND, task="t")
    assert len(processes.jobs) == 1
    assert ahead.take(replace(KIND, env=())) is None
    assert ahead.take(replace(KIND, limits=Limits(memory=1))) is None
    ready = ahead.take(KIND)
    assert ready is not None
    assert ready.room.agent_socket.exists()
    assert ahead.take(KIND) is None
    (job, _) = processes.jobs[ready.room.directory]
    assert (job.env, job.agent_socket) == ({"PATH": "/bin"}, ready.room.agent_socket)
    ahead.release(ready)
    assert not processes.waiting


async def test_one_that_is_not_there_yet_is_not_taken(ahead: Ahead, processes: Processes) -> None:
    ahead.expect(KIND, task="t")
    processes.waiting.clear()
    assert ahead.take(KIND) is None


async def test_the_room_of_one_that_ended_goes_and_another_may_come(
    ahead: Ahead, processes: Processes, rooms: Rooms
) -> None:
    ahead.expect(KIND, task="t")
    ((directory, (_, gone)),) = processes.jobs.items()
    gone()
    await removed(rooms)
    assert not directory.exists()
    ahead.expect(KIND, task="t")
    assert len(processes.jobs) == 2


async def test_who_could_not_wait_anyhow_gets_no_room(
    ahead: Ahead, processes: Processes, rooms: Rooms, tmp_path: Path
) -> None:
    processes.would = False
    ahead.expect(KIND, task="t")
    assert not processes.jobs
    assert list(tmp_path.glob("work/*")) == []
    assert list(rooms._sockets.glob("*/*")) == []
    processes.would = True
    ahead.expect(KIND, task="t")
    assert len(processes.jobs) == 1


async def test_where_none_can_wait_now_no_room_is_left(
    ahead: Ahead, processes: Processes, rooms: Rooms, tmp_path: Path
) -> None:
    processes.can = False
    ahead.expect(KIND, task="t")
    await removed(rooms)
    assert list((tmp_path / "work").glob("*/*")) == []
    processes.can = True
    ahead.expect(KIND, task="t")
    ready = ahead.take(KIND)
    assert ready is not None
    ahead.release(ready)


async def test_where_no_room_can_be_made_nothing_happens(
    ahead: Ahead, processes: Processes, rooms: Rooms, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The attempt that runs has nothing to do with it."""

    def full(room: object) -> None:
        raise OSError(errno.ENOSPC, "full")

    monkeypatch.setattr(rooms, "build", full)
    ahead.expect(KIND, task="t")
    assert not processes.jobs
    assert ahead.take(KIND) is None


async def test_a_room_that_cannot_be_made_whole_leaves_no_part(
    rooms: Rooms, monkeypatch: pytest.MonkeyPatch
) -> None:
    room = rooms.plan()
    mkdir = Path.mkdir

    def full(path: Path, *arguments: Any, **named: Any) -> None:
        if path == room.sockets:
            raise OSError(errno.ENOSPC, "full")
        mkdir(path, *arguments, **named)

    with monkeypatch.context() as patch:
        patch.setattr(Path, "mkdir", full)
        with pytest.raises(OSError, match="full"):
            rooms.build(room)
    assert list(room.directory.parent.iterdir()) == []
    rooms.build(room)


async def test_only_so_many_wait_the_oldest_leaves(ahead: Ahead, processes: Processes) -> None:
    kinds = [replace(KIND, module=name) for name in "abc"]
    for kind in kinds:
        ahead.expect(kind, task="t")
    assert len(processes.waiting) == 2
    taken = [ahead.take(kind) for kind in kinds]
    assert [ready is not None for ready in taken] == [False, True, True]
    for ready in taken:
        if ready is not None:
            ahead.release(ready)


async def test_at_the_end_all_leave_and_none_comes(
    ahead: Ahead, processes: Processes, rooms: Rooms, tmp_path: Path
) -> None:
    ahead.expect(KIND, task="t")
    ahead.close()
    assert not processes.waiting
    ahead.expect(KIND, task="t")
    assert not processes.waiting
    await removed(rooms)
    assert list((tmp_path / "work").glob("*/*")) == []


async def test_what_a_process_put_into_its_room_is_not_followed(rooms: Rooms, tmp_path: Path) -> None:
    room = rooms.make()
    target = tmp_path / "target"
    os.symlink(target, room.directory / "inputs.pb")
    with pytest.raises(FileExistsError):
        rooms.put(room, "inputs.pb", b"x")
    assert not target.exists()
    (room.directory / "there").write_bytes(b"theirs")
    with pytest.raises(FileExistsError):
        rooms.put(room, "there", b"x")
    rooms.put(room, "new", b"x")
    assert (room.directory / "new").read_bytes() == b"x"
    assert (room.directory / "new").stat().st_mode & 0o777 == 0o600


async def test_runs_in_rooms_made_ahead_are_apart_and_themselves(house: House) -> None:
    """The second and the third run find a room; each has its own variables, agent and folders."""
    sockets, folders = set(), set()
    for _ in range(3):
        key = await house.launch("who")
        assert await house.output(await house.until(key)) == "/".join((*key, "1"))
        key = await house.launch("env_of")
        variables = await house.output(await house.until(key))
        assert isinstance(variables, dict)
        assert variables["RUN_NAME"] == key.run
        sockets.add(variables["FLYTE_AGENT_SOCKET"])
        folders.add(variables["TMPDIR"])
    assert (len(sockets), len(folders)) == (3, 3)
