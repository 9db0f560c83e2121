"""A process that was over before Tower looked at it: what it left is ended, also where that is seen late."""

from __future__ import annotations

import asyncio
import errno
import signal
import sys
from typing import Any, cast

import pytest

from tower.executors.port import Exit
from tower.executors.process.cgroups import Cgroups, Group
from tower.executors.process.work import Work


class Left:
    """A control group with one process in it, until that is gone. The first looks may find no descriptor."""

    def __init__(self, process: asyncio.subprocess.Process, blind: int) -> None:
        self._process = process
        self._blind = blind
        self.released = False

    def pids(self) -> set[int]:
        self._blind -= 1
        if self._blind >= 0:
            raise OSError(errno.EMFILE, "too many open files")
        return {self._process.pid} if self._process.returncode is None else set()

    def out_of_memory(self) -> bool:
        return False

    def release(self, group: Any) -> None:
        self.released = True


@pytest.mark.parametrize("blind", [0, 2])
async def test_what_an_unseen_process_left_is_ended(blind: int) -> None:
    left = await asyncio.create_subprocess_exec(sys.executable, "-c", "import signal; signal.pause()")
    group = Left(left, blind)
    work = Work(
        on_output=lambda _: None,
        on_start=lambda _: None,
        limit=1000,
        groups=cast("Cgroups", group),
        group=cast("Group", group),
        on_end=lambda _: None,
    )
    work.exited(0)
    assert await asyncio.wait_for(work.wait(), 60) == Exit(0)
    assert await asyncio.wait_for(left.wait(), 60) == -signal.SIGKILL
    assert group.released
