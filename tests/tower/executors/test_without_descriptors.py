"""Where there is no descriptor left: what was begun is ended, what cannot be seen is not taken for gone."""

from __future__ import annotations

import asyncio
import errno
import os
import signal
import sys
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import pytest
from tests.suites.executor_suite import Heard, Jobs, ended, living, started

from tower.errors import Unavailable
from tower.executors.port import Exit, Limits
from tower.executors.process import ProcessExecutor, template
from tower.executors.process.cgroups import Cgroups, Group
from tower.executors.process.child import Child, Plan
from tower.executors.process.output import Output
from tower.executors.process.tree import members, names, parent


def full(*_: Any, **__: Any) -> Any:
    raise OSError(errno.EMFILE, "too many open files")


def at_first(call: Callable[..., Any], times: int) -> Callable[..., Any]:
    """A call that fails so many times for want of a descriptor."""
    left = [times]

    def calls(*arguments: Any) -> Any:
        left[0] -= 1
        return call(*arguments) if left[0] < 0 else full()

    return calls


@pytest.fixture
async def executor() -> AsyncIterator[ProcessExecutor]:
    executor = ProcessExecutor(package="standin", groups=None)
    yield executor
    await executor.close()


async def test_a_program_whose_end_nobody_would_hear_of_is_ended(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    begun: list[int] = []

    def unseen(pid: int) -> int:
        begun.append(pid)
        return int(full())

    before = set(os.listdir("/proc/self/fd"))
    output = Output(lambda _: None, limit=1000)
    with monkeypatch.context() as patch:
        patch.setattr(os, "pidfd_open", unseen)
        with pytest.raises(Unavailable):
            Child(
                [sys.executable, "-c", "import signal; signal.pause()"],
                environment={},
                directory=tmp_path,
                plan=Plan(),
                output=output.writer,
                on_exit=lambda _: None,
                given=b"x",
            )
    output.finish()
    (pid,) = begun
    assert not living(pid)
    with pytest.raises(ChildProcessError):
        os.waitpid(pid, os.WNOHANG)  # it was reaped
    assert set(os.listdir("/proc/self/fd")) == before


async def test_a_start_that_has_no_descriptor_for_its_input_fails_cleanly(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = set(os.listdir("/proc/self/fd"))
    with monkeypatch.context() as patch:
        patch.setattr(os, "lseek", full)
        with pytest.raises(Unavailable):
            Child(
                ["/bin/true"],
                environment={"A": "b"},
                directory=tmp_path,
                plan=Plan(),
                output=1,
                on_exit=lambda _: None,
                given=b"x",
            )
    assert set(os.listdir("/proc/self/fd")) == before


async def test_who_is_told_of_is_looked_up_again_until_that_can_be(
    executor: ProcessExecutor, jobs: Jobs, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(template, "parent", at_first(parent, 3))
    process, heard = await asyncio.wait_for(started(executor, jobs.task("wait_for_ever")), 60)
    assert heard.pids == [process.pid]
    assert living(process.pid)
    await process.stop(30)
    assert (await process.wait()).signal == signal.SIGTERM
    assert (await asyncio.wait_for(ended(executor, jobs.task("hello")), 60))[0] == Exit(0)


async def test_an_attempt_that_nobody_takes_in_ends_and_its_start_fails(
    executor: ProcessExecutor, jobs: Jobs
) -> None:
    pids: list[int] = []

    def registering(pid: int) -> None:
        pids.append(pid)
        raise LookupError("nobody takes it in")

    with pytest.raises(LookupError):
        await asyncio.wait_for(
            executor.start_task(jobs.task("wait_for_ever"), on_output=lambda _: None, on_start=registering),
            60,
        )
    await asyncio.gather(*(asyncio.wait_for(work.wait(), 60) for work in list(executor._works)))
    assert not living(pids[0])
    assert executor._works == set()


async def test_an_attempt_that_was_never_seen_ends_with_its_template(
    executor: ProcessExecutor, jobs: Jobs, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as patch:
        patch.setattr(template, "parent", lambda _: 0)  # it is over by the time that it is looked at
        heard = Heard()
        process = await executor.start_task(
            jobs.task("wait_for_ever"), on_output=heard.on_output, on_start=heard.pids.append
        )
    assert heard.pids == []
    (forking,) = executor._pool.templates
    forking.kill()
    assert (await asyncio.wait_for(process.wait(), 60)).signal == signal.SIGKILL


class Recorded(Cgroups):
    """Groups in name only."""

    def __init__(self) -> None:
        super().__init__({}, unified=True)
        self.held: list[Group] = []

    def make(self, name: str, limits: Limits) -> Group:
        self.held.append(Group({}, unified=True))
        return self.held[-1]

    def release(self, group: Group) -> None:
        self.held.remove(group)


async def test_a_start_without_a_descriptor_for_its_output_keeps_no_group(
    jobs: Jobs, monkeypatch: pytest.MonkeyPatch
) -> None:
    groups = Recorded()
    executor = ProcessExecutor(package="standin", groups=groups)
    with monkeypatch.context() as patch:
        patch.setattr(os, "pipe2", full)
        with pytest.raises(Unavailable):
            await started(executor, jobs.task("hello"))
    assert groups.held == []
    await executor.close()


def test_only_a_group_that_is_not_there_is_empty(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    group = Group({"pids": tmp_path / "group"}, unified=True)
    assert group.pids() == set()
    (tmp_path / "group").mkdir()
    (tmp_path / "group" / "cgroup.procs").write_text("7\n8\n")
    assert group.pids() == {7, 8}
    for number in (errno.EMFILE, errno.EACCES, errno.EIO):
        with monkeypatch.context() as patch:
            patch.setattr(Path, "read_text", lambda *_, number=number: _raise(number))
            with pytest.raises(OSError, match="no"):
                group.pids()
    with monkeypatch.context() as patch:
        patch.setattr(Path, "read_text", lambda *_: _raise(errno.ENODEV))
        assert group.pids() == set()


def _raise(number: int) -> str:
    raise OSError(number, "no")


def test_a_group_that_cannot_be_made_whole_leaves_no_part(tmp_path: Path) -> None:
    parents = {name: tmp_path / name for name in ("memory", "cpu", "pids")}
    for name in ("memory", "cpu"):
        parents[name].mkdir()
    groups = Cgroups(parents, unified=False)
    with pytest.raises(FileNotFoundError):
        groups.make("1", Limits(memory=1 << 30, cpu=1.0))
    assert list(tmp_path.glob("*/*")) == []


@pytest.mark.parametrize("look", [members, names, parent])
def test_of_a_process_that_cannot_be_looked_at_nothing_is_said(
    look: Callable[[int], object], monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as patch:
        patch.setattr("builtins.open", full)
        with pytest.raises(OSError, match="too many"):
            look(os.getpid())
