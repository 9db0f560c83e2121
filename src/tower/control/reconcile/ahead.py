"""Rooms in which a process waits for an attempt that nobody has asked for yet: the next one of a kind.

A kind is what attempts have in common that the same process could run: the code, its interpreter, the limits
and the variables that are not an attempt's own. When an attempt of a kind has begun, a room is made ready for
the next one: its folders, the socket of its agent, on which nobody answers yet, and a process in it that has
closed itself off. None of it is of any person before an attempt takes it, and it is taken once.
"""

from __future__ import annotations

import socket
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from tower.control.reconcile.rooms import Room, Rooms
from tower.executors.port import Limits, TaskJob

_MOST = 8


class Preparing(Protocol):
    """The part of an executor that has processes wait; `tower.executors.process` does."""

    def prepares(self, job: TaskJob) -> bool:
        """Whether a process could wait in such a job's folders, which need not be there yet."""

    def prepare(self, job: TaskJob, *, gone: Callable[[], None]) -> bool:
        """Have a process wait for an attempt in the job's folders; False where none can.

        `gone` is called when it ended without one.
        """

    def claim(self, directory: Path) -> bool:
        """Whether one waits there: it is kept until it gets its attempt, or is discarded."""

    def discard(self, directory: Path) -> None:
        """There will be no attempt there."""


@dataclass(frozen=True, slots=True)
class Kind:
    """What a process that waits must be told; `beside` names the rooms that it lies beside."""

    python: Path
    bundle: Path | None
    module: str
    env: tuple[tuple[str, str], ...]
    limits: Limits
    needs: tuple[Path, ...]
    beside: str


@dataclass(frozen=True, slots=True)
class Ready:
    """A room with a process that waits in it, and the socket of its agent."""

    room: Room
    listener: socket.socket


class Ahead:
    """One room ahead of each kind that ran lately."""

    def __init__(
        self,
        *,
        rooms: Rooms,
        executor: Preparing,
        listening: Callable[[Path], socket.socket],
        most: int = _MOST,
    ) -> None:
        """`listening` makes a private socket at a path; at most so many rooms are kept ready."""
        self._rooms = rooms
        self._executor = executor
        self._listening = listening
        self._most = most
        self._ready: OrderedDict[Kind, Ready] = OrderedDict()
        self._closed = False

    def take(self, kind: Kind) -> Ready | None:
        """The room that waits for an attempt of this kind, if there is one: it is the caller's now."""
        ready = self._ready.get(kind)
        if ready is None or not self._executor.claim(ready.room.directory):
            return None
        return self._ready.pop(kind)

    def expect(self, kind: Kind, *, task: str) -> None:
        """Another attempt of this kind may come; nothing happens where one is expected already.

        Nor does anything where a room cannot be made: the next attempt then finds out why.
        """
        if self._closed or kind in self._ready:
            return
        room = self._rooms.plan(beside=kind.beside)
        job = TaskJob(
            id=f"ahead/{room.directory.name}",
            python=kind.python,
            bundle=kind.bundle,
            module=kind.module,
            task=task,
            directory=room.directory,
            agent_socket=room.agent_socket,
            env=dict(kind.env),
            limits=kind.limits,
            needs=kind.needs,
        )
        if not self._executor.prepares(job):
            return
        try:
            self._rooms.build(room)
        except OSError:
            return
        try:
            listener = self._listening(room.agent_socket)
        except OSError:
            self._rooms.remove(room)
            return
        self._ready[kind] = ready = Ready(room, listener)
        if not self._executor.prepare(job, gone=lambda: self._gone(kind, ready)):
            self._gone(kind, ready)
        elif len(self._ready) > self._most:
            _, oldest = self._ready.popitem(last=False)
            self._leave(oldest)

    def release(self, ready: Ready) -> None:
        """One that was taken is used no more; its process ends if it never got the attempt."""
        self._executor.discard(ready.room.directory)
        ready.listener.close()

    def close(self) -> None:
        """Keep nothing ready any more."""
        self._closed = True
        while self._ready:
            _, ready = self._ready.popitem()
            self._leave(ready)

    def _leave(self, ready: Ready) -> None:
        self._executor.discard(ready.room.directory)
        self._drop(ready)

    def _gone(self, kind: Kind, ready: Ready) -> None:
        """Its process has ended before there was an attempt, or never began."""
        if self._ready.get(kind) is not ready:
            return  # taken, or left
        del self._ready[kind]
        self._drop(ready)

    def _drop(self, ready: Ready) -> None:
        ready.listener.close()
        self._rooms.remove(ready.room)
