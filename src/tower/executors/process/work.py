"""One running attempt or app: its process tree, its output, its limits, its end."""

from __future__ import annotations

import asyncio
import os
import signal
from collections.abc import Callable
from contextlib import suppress

from tower.executors.port import Exit, OnOutput, OnStart
from tower.executors.process.cgroups import Cgroups, Group
from tower.executors.process.output import Output
from tower.executors.process.tree import members, signal_all

_TURN = 0.01
_TURNS = 300
_BLIND_TURNS = 6000


class Work:
    """A `tower.executors.port.Process`. Whoever watches the root process calls `running` and `exited`."""

    pid = 0

    def __init__(
        self,
        *,
        on_output: OnOutput,
        on_start: OnStart,
        limit: int,
        groups: Cgroups | None,
        group: Group | None,
        on_end: Callable[[Work], None],
    ) -> None:
        self.output = Output(on_output, limit=limit)
        self.group = group
        self.abandoned = False
        self.begun = False
        self._on_start = on_start
        self._on_end = on_end
        self._groups = groups
        self._exit: asyncio.Future[Exit] = asyncio.get_running_loop().create_future()
        self._sweeping: asyncio.Task[None] | None = None
        self._finished: asyncio.Future[Exit] = asyncio.get_running_loop().create_future()
        self._said = -1
        self._ended = False

    def running(self, pid: int) -> None:
        """The root process exists, holds its output, and has not run its own code yet.

        0 is one that was over before anybody could look at it.
        """
        self.begun = True
        self.output.started()
        if pid:
            self.announce(pid)

    def announce(self, pid: int) -> None:
        """The root process exists and has not run its own code yet."""
        self.pid = pid
        if self.abandoned:
            self.signal(signal.SIGKILL)
        else:
            self._on_start(pid)

    def exited(self, status: int) -> None:
        """The root process ended and was reaped: end what it left behind, then tell."""
        if self._ended:
            return
        self._ended = True
        if self._left() != set():
            self._sweeping = asyncio.get_running_loop().create_task(self._sweep(status))
        else:
            self._finish(status)

    def abandon(self) -> None:
        """Nobody wants this work any more, started or not."""
        self.abandoned = True
        self.signal(signal.SIGKILL)

    async def wait(self) -> Exit:
        """Wait for the end of the root process and of everything it left behind."""
        return await asyncio.shield(self._exit)

    async def finished(self) -> Exit:
        """Wait until the process says that its result is written, or for its end."""
        return await asyncio.shield(self._finished)

    def hear(self) -> int:
        """A pipe by which the process says that its result is written; the caller closes the end it gets."""
        self._said, writer = os.pipe2(os.O_CLOEXEC | os.O_NONBLOCK)
        asyncio.get_running_loop().add_reader(self._said, self._heard)
        return writer

    def _heard(self) -> None:
        with suppress(BlockingIOError):
            said = os.read(self._said, 1)
            self._deafen()
            if said and not self._finished.done():
                self.output.finish()
                self._finished.set_result(Exit(0, output_truncated=self.output.truncated))

    def drop(self) -> None:
        """It never got a process."""
        self._deafen()
        self.output.finish()

    def _deafen(self) -> None:
        if self._said >= 0:
            asyncio.get_running_loop().remove_reader(self._said)
            os.close(self._said)
            self._said = -1

    async def stop(self, grace: float) -> None:
        """Ask the whole tree to end; end it after `grace` seconds."""
        self.signal(signal.SIGTERM)
        try:
            await asyncio.wait_for(self.wait(), grace)
        except TimeoutError:
            self.signal(signal.SIGKILL)
            await self.wait()

    def signal(self, number: signal.Signals) -> None:
        """Send a signal to every process of the tree."""
        if self.pid and not self._exit.done():
            left = self._left() or set()  # what cannot be seen now is ended after the root is, by the sweep
            signal_all(left | ({self.pid} if not self._ended else set()), number)

    def _left(self) -> set[int] | None:
        """What is there of the tree; None when nobody can tell now, for want of a descriptor say."""
        # one that was over before it was looked at has no number here, and may have left others all the same
        try:
            if self.group is not None:
                return self.group.pids() - {os.getpid()}
            return members(self.pid) - {os.getpid()} if self.pid else set()
        except OSError:
            return None

    async def _sweep(self, status: int) -> None:
        seen = 0
        for _ in range(_BLIND_TURNS):
            left = self._left()
            if left is not None:
                if not left or seen == _TURNS:
                    break
                seen += 1
                signal_all(left, signal.SIGKILL)
            # the kernel tells nobody when a stranger's child has gone
            await asyncio.sleep(_TURN)
        self._finish(status)

    def _finish(self, status: int) -> None:
        self._deafen()
        self.output.finish()
        out_of_memory = False
        if self.group is not None and self._groups is not None:
            out_of_memory = self.group.out_of_memory()
            self._groups.release(self.group)
        number = os.WTERMSIG(status) if os.WIFSIGNALED(status) else None
        code = 128 + number if number is not None else os.WEXITSTATUS(status)
        self._exit.set_result(Exit(code, number, out_of_memory, self.output.truncated))
        if not self._finished.done():
            self._finished.set_result(self._exit.result())
        self._on_end(self)
