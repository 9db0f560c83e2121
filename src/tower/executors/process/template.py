"""A template process: it has imported the code and forks one child per attempt. It holds no identity.

The protocol (flyte.runtime.worker is the other side) is JSON messages over a sequenced-packet socket:
to it `start` with the output descriptor attached, and `prepare` with one end of a socket for a child that
waits; from it `ready`, `started`, `exited` and `unsafe`.
"""

from __future__ import annotations

import array
import asyncio
import json
import os
import signal
import socket
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from tower.errors import Unavailable
from tower.executors.port import TaskJob
from tower.executors.process.child import Child, Plan
from tower.executors.process.isolation import SANDBOX_SCRIPT, Shown
from tower.executors.process.output import Output, Tail
from tower.executors.process.slot import Slot
from tower.executors.process.tree import children, names, parent, signal_all
from tower.executors.process.work import Work

_LARGEST_MESSAGE = 128 * 1024
_START_SECONDS = 60.0
_AGAIN_SECONDS = 0.05
_REFUSED_SECONDS = 60.0
_MOST_REFUSED = 256


class UnsafeError(Exception):
    """The code of this bundle cannot be forked, or the message is too large: start a fresh interpreter.

    `once`: it is so for this attempt, and may be otherwise for the next one.
    """

    def __init__(self, reason: str, *, once: bool = False) -> None:
        super().__init__(reason)
        self.once = once


class Template:
    """One template process. `alive` turns False when it ended; its attempts are then reported as killed."""

    def __init__(
        self,
        python: Path,
        bundle: Path | None,
        *,
        environment: Mapping[str, str],
        module: str,
        shown: Shown | None,
        user: int | None,
    ) -> None:
        """Start the process; `module` is the worker's module name, `shown` what it sees."""
        self.shown = shown
        self.user = user
        self._inside = 0
        self._says_done = False
        self._prepares = False
        self.alive = True
        self.used_at = asyncio.get_running_loop().time()
        self.works: dict[str, Work | Slot] = {}
        self._aside = b""
        self._refused: dict[_Kind, float] = {}
        self._loop = asyncio.get_running_loop()
        self._ready: asyncio.Future[None] = self._loop.create_future()
        self._waiting: dict[str, asyncio.Future[None]] = {}
        self._tail = Tail()
        self._output = Output(self._tail, limit=1 << 20)
        try:
            self._socket, theirs = socket.socketpair(
                socket.AF_UNIX, socket.SOCK_SEQPACKET | socket.SOCK_CLOEXEC
            )
        except OSError:
            self._output.finish()
            raise
        self._socket.setblocking(False)
        arguments = [str(python), "-P", "-m", module, "--control-fd", str(theirs.fileno())]
        if bundle is not None:
            arguments += ["--bundle", str(bundle)]
        if shown is not None:
            arguments += ["--sandbox", str(SANDBOX_SCRIPT)]
        try:
            self._child = Child(
                arguments,
                environment=environment,
                directory=Path("/"),
                plan=Plan(sandbox=shown),
                output=self._output.writer,
                on_exit=self._exited,
                keep=(theirs.fileno(),),
            )
        except BaseException:
            self._socket.close()
            self._output.finish()
            raise
        finally:
            theirs.close()
        self._output.started()
        self._loop.add_reader(self._socket, self._readable)

    @property
    def pid(self) -> int:
        """The template's own process id."""
        return self._child.pid

    @property
    def idle(self) -> bool:
        """Whether no attempt runs, starts, or is about to be given to one that waits for it."""
        busy = any(isinstance(work, Work) or work.claimed for work in self.works.values())
        return not busy and self._ready.done()

    async def start(self, work: Work, message: dict[str, Any], *, groups: Sequence[int] = ()) -> None:
        """Fork a child for `work`, which enters `groups`, descriptors of control group files.

        Raises UnsafeError, or Unavailable when the template ended.
        """
        identity = message["id"]
        self.works[identity] = work
        said: list[int] = []
        try:
            await asyncio.wait_for(asyncio.shield(self._ready), _START_SECONDS)
            message["done"] = self._says_done
            packet = json.dumps(message, separators=(",", ":")).encode()
            if len(packet) > _LARGEST_MESSAGE:
                raise UnsafeError("the message is too large", once=True)
            if self._says_done:
                said = [work.hear()]
            started = self._waiting[identity] = self._loop.create_future()
            await self._send(packet, [work.output.writer, *said, *groups])
            await started
        except TimeoutError:
            self.works.pop(identity, None)
            self.kill()
            raise Unavailable(
                "The task's interpreter did not start in time.", cause=self._tail.text
            ) from None
        except asyncio.CancelledError:
            # it may be forked already or in a moment: `started` and `exited` will still come for it
            if identity in self._waiting:
                work.abandon()
            else:
                self.works.pop(identity, None)
            raise
        except BaseException:
            if not work.abandoned:  # else `exited` will still come for it
                self.works.pop(identity, None)
            raise
        finally:
            for writer in said:
                os.close(writer)
            self._waiting.pop(identity, None)
            self.used_at = self._loop.time()

    def prepares(self, job: TaskJob) -> bool:
        """Whether it is worth asking for a child that waits for such an attempt: it refused none just now."""
        since = self._refused.get(_kind(job)) if self._refused else None
        return (
            self._prepares and self.alive and (since is None or self._loop.time() - since > _REFUSED_SECONDS)
        )

    def prepare(self, slot: Slot, message: dict[str, Any], *, groups: Sequence[int] = ()) -> bool:
        """Have a child wait for an attempt, where it `prepares`; `slot` hears of it. False where none can."""
        packet = json.dumps(message | {"op": "prepare"}, separators=(",", ":")).encode()
        if len(packet) > _LARGEST_MESSAGE:
            return False
        rights = [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", (slot.theirs.fileno(), *groups)))]
        try:
            self._socket.sendmsg([packet], rights)
        except OSError:  # it is gone, or has more to do than to look ahead
            return False
        self.works[message["id"]] = slot
        return True

    def kill(self) -> None:
        """End the template and, through their control groups or sessions, its attempts."""
        signal_all({self._child.pid} if self.alive else set(), signal.SIGKILL)

    async def close(self, grace: float = 2.0) -> None:
        """Let the template end by itself (it ends its children too), or end it after `grace` seconds."""
        if self.alive:
            self._loop.remove_reader(self._socket)
            self._socket.close()
            try:
                await asyncio.wait_for(self._child.wait(), grace)
            except TimeoutError:
                self.kill()
        await self._child.wait()

    async def _send(self, packet: bytes, descriptors: Sequence[int]) -> None:
        rights = [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", descriptors))]
        while True:
            try:
                self._socket.sendmsg([packet], rights)
            except BlockingIOError:
                await self._writable()
            except OSError as error:
                raise Unavailable("The task's interpreter ended.", cause=self._tail.text) from error
            else:
                return

    async def _writable(self) -> None:
        free = self._loop.create_future()
        self._loop.add_writer(self._socket, _settle, free)
        try:
            await free
        finally:
            self._loop.remove_writer(self._socket)

    def _readable(self) -> None:
        while self._socket.fileno() >= 0:
            packet, self._aside = self._aside, b""
            try:
                packet = packet or self._socket.recv(_LARGEST_MESSAGE)
            except BlockingIOError:
                return
            except OSError:
                packet = b""
            if not packet:
                self._loop.remove_reader(self._socket)
                self._socket.close()
                return
            # the code of the bundle may have reached this descriptor: nothing it says is believed blindly
            try:
                self._receive(json.loads(packet))
            except (ValueError, KeyError, TypeError):
                self.kill()
                return
            except OSError:  # whom it speaks of cannot be looked up now, and it will not be said again
                self._aside = packet
                self._loop.remove_reader(self._socket)
                self._loop.call_later(_AGAIN_SECONDS, self._again)
                return

    def _again(self) -> None:
        if self._socket.fileno() >= 0:
            self._loop.add_reader(self._socket, self._readable)
            self._readable()

    def _receive(self, message: dict[str, Any]) -> None:
        match message["event"]:
            case "ready":
                self._says_done = bool(message.get("done"))
                self._prepares = bool(message.get("ahead"))
                if not self._ready.done():
                    self._ready.set_result(None)
            case "started":
                work, started = self.works.get(message["id"]), self._waiting.get(message["id"])
                if isinstance(work, Slot):
                    self._waits(work, name=int(message["pid"]))
                    return
                pid = self._child_called(int(message["pid"]))
                fault = None if work is None or work.pid else self._announce(work, pid)
                if started is not None and not started.done():
                    started.set_result(None) if fault is None else started.set_exception(fault)
            case "unsafe":
                started = self._waiting.get(message["id"])
                if started is not None and not started.done():
                    reason, once = str(message.get("reason", "")), bool(message.get("once"))
                    started.set_exception(UnsafeError(reason, once=once))
                slot = self.works.get(message["id"])
                if isinstance(slot, Slot):
                    del self.works[message["id"]]
                    self._refuse(slot.job)
                    slot.refused()
            case "exited":
                work = self.works.pop(message["id"], None)
                self.used_at = self._loop.time()
                if work is not None:
                    work.exited(int(message["status"]))
            case other:
                raise ValueError(other)

    @staticmethod
    def _announce(work: Work, pid: int) -> Exception | None:
        """Tell whom the process is; where nobody takes it in, it ends, and the start fails by the reason."""
        try:
            work.running(pid)
        except Exception as fault:  # noqa: BLE001 - it is raised where the start is waited for
            work.abandon()
            return fault
        return None

    def _refuse(self, job: TaskJob) -> None:
        """Remember it for a while: the code, its environment or its threads may be others by then."""
        if len(self._refused) >= _MOST_REFUSED:
            self._refused.clear()
        self._refused[_kind(job)] = self._loop.time()

    def _waits(self, slot: Slot, *, name: int) -> None:
        """Hold the process itself: its number could be another one's by the time that it gets an attempt."""
        if slot.pid:
            return
        descriptor = -1
        try:
            pid = self._child_called(name)
            descriptor = os.pidfd_open(pid) if pid else -1
            held = descriptor >= 0 and self._child_called(name) == pid
        except OSError:  # it has ended, or there is no descriptor for it
            held = False
        if held:
            slot.running(pid, descriptor)
            return
        if descriptor >= 0:
            os.close(descriptor)
        slot.drop()  # `exited` will say when it has ended

    def _child_called(self, name: int) -> int:
        """The process that the template, in its own process table, calls by this id; 0 when there is none.

        The kernel says so: only a child of the template may get an identity. Raises OSError when it cannot
        be asked.
        """
        if self.shown is None or not self.shown.namespaces:
            return name if parent(name) == self._child.pid else 0
        if not self._inside:
            # with a process table of its own it is two generations below what we started
            for first in children(self._child.pid)[:1]:
                self._inside = next(iter(children(first)), 0)
        if not self._inside:
            return 0
        # each process table adds a name: ours, the template's
        return next((pid for pid in children(self._inside) if names(pid)[1:2] == [name]), 0)

    def _exited(self, _status: int) -> None:
        if self._socket.fileno() >= 0:
            self._readable()
        self.alive = False
        if self._socket.fileno() >= 0:
            self._loop.remove_reader(self._socket)
            self._socket.close()
        self._output.finish()
        cause = self._tail.text
        if not self._ready.done():
            self._ready.set_exception(Unavailable("The task's interpreter did not start.", cause=cause))
            self._ready.exception()  # not every template has somebody waiting
        for started in self._waiting.values():
            if not started.done():
                started.set_exception(Unavailable("The task's interpreter ended.", cause=cause))
        for work in list(self.works.values()):
            if isinstance(work, Slot) or work.begun:
                work.exited(signal.SIGKILL)
        self.works.clear()


def _settle(future: asyncio.Future[None]) -> None:
    if not future.done():
        future.set_result(None)


_Kind = tuple[str, frozenset[tuple[str, str]]]
"""A module and the variables that it is to run with."""


def _kind(job: TaskJob) -> _Kind:
    return job.module, frozenset(job.env.items())
