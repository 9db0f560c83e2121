"""The template process: it imports user code once and forks a child per attempt. It holds no identity.

Messages are JSON over a sequenced-packet socket: `start` comes with a descriptor for its output; `ready`,
`started`, `exited` and `unsafe` go back. `prepare` comes with one end of a socket instead: there the
child waits for its attempt, in the folders that will be the attempt's. When the control socket closes, the
children and the template end. What the machine has none left of, descriptors say, costs one attempt its
fork, and nobody else anything.
"""

from __future__ import annotations

import argparse
import array
import errno
import gc
import importlib.util
import json
import os
import selectors
import signal
import socket
import sys
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any

from flyte.runtime import child
from flyte.runtime.preload import OTHER_ENVIRONMENT, Preload, threads
from flyte.runtime.rehearsal import rehearse
from flyte.runtime.start import MessageError, Start

_DESCRIPTORS = child.MOST_DESCRIPTORS


@dataclass(frozen=True, slots=True)
class _Spare:
    """A child that waits for an attempt; `imported` is how many modules it was forked with."""

    pid: int
    descriptor: int
    channel: socket.socket
    imported: int


class Worker:
    """One template process, on one thread: forking is only safe as long as there is no other."""

    def __init__(
        self, control: socket.socket, *, bundle: Path | None, sandbox: ModuleType | None = None
    ) -> None:
        self._control = control
        self._bundle = bundle
        self._sandbox = sandbox
        self._apart = False
        self._preload = Preload(bundle)
        self._children: dict[int, tuple[str, int]] = {}  # pid -> attempt id, pidfd
        self._spare: _Spare | None = None
        self._no_spares = False
        self._selector = selectors.DefaultSelector()
        self._selector.register(control, selectors.EVENT_READ)

    def serve(self) -> None:
        """Fork attempts until the other side closes the socket, then end what still runs."""
        rehearse()
        self._preload.baseline(self._control.fileno(), self._selector_descriptor())
        self._tell(event="ready", done=True, ahead=True)
        while self._turn():
            pass
        for pid in self._children:
            with suppress(ProcessLookupError, PermissionError):
                os.killpg(pid, signal.SIGKILL)
        self._drop_spare()

    def _turn(self) -> bool:
        for key, _ in self._selector.select():
            if key.fileobj is self._control:
                if not self._receive():
                    return False
            else:
                self._reap(int(key.data))
        return True

    def _receive(self) -> bool:
        try:
            packet, ancillary, _, _ = self._control.recvmsg(
                child.LARGEST_MESSAGE, socket.CMSG_SPACE(_DESCRIPTORS * array.array("i").itemsize)
            )
        except ConnectionError:
            return False
        if not packet:
            return False
        descriptors = _received(ancillary)
        try:
            self._answer(Start.parse(packet, bundle=self._bundle), descriptors, packet=packet)
        except MessageError as fault:
            print(f"flyte.runtime.worker: {fault}", file=sys.stderr, flush=True)  # noqa: T201
        finally:
            for descriptor in descriptors:
                os.close(descriptor)
        if self._children:
            self._keep_spare()
        return True

    def _answer(self, start: Start, given: list[int], *, packet: bytes) -> None:
        """Have a child for this message, or say that there is none."""
        try:
            if len(given) != start.descriptors:  # the kernel hands over as many as there is room for
                raise OSError(errno.EMFILE, "its descriptors did not come with it")
            if start.waits:
                self._prepare(start, given)
            else:
                self._start(start, given, packet=packet)
        except OSError as fault:
            if start.waits:  # another one may be forked: it is as if this one had ended at once
                self._tell(event="exited", id=start.id, status=child.EXIT_NOT_STARTED << 8)
            else:
                self._tell(event="unsafe", id=start.id, reason=f"it cannot be forked: {fault}", once=True)

    def _may_fork(self, start: Start, given: list[int]) -> bool:
        """Whether an attempt may be forked, with its code imported; says so when it may not."""
        reason = self._preload.prepare(start, self._own_descriptors() | set(given))
        if not reason and start.sandbox is not None and self._sandbox is None:
            reason = "nothing keeps its children apart"
        if reason:
            once = reason == OTHER_ENVIRONMENT
            self._tell(event="unsafe", id=start.id, reason=reason, **({"once": True} if once else {}))
            return False
        self._apart = start.sandbox is not None and bool(start.sandbox["namespaces"])
        return True

    def _prepare(self, start: Start, given: list[int]) -> None:
        """Fork a child that waits in the folders of its attempt: the platform itself gives it that."""
        self._no_spares = True
        self._drop_spare()
        if not self._may_fork(start, given):
            return
        pid = self._fork()
        if pid == 0:
            child.wait_there(start, given, sandbox=self._sandbox)
        self._children[pid] = start.id, self._watch(pid)
        self._tell(event="started", id=start.id, pid=pid)

    def _start(self, start: Start, given: list[int], *, packet: bytes) -> None:
        if not self._may_fork(start, given):
            return
        gate, opener = os.pipe()
        try:
            pid, descriptor = self._hand_over(packet, given, gate)
            if pid == 0:
                pid = self._fork()
                if pid == 0:
                    os.close(opener)
                    child.become(start, gate, given, sandbox=self._sandbox)
                descriptor = self._watch(pid)
            self._children[pid] = start.id, descriptor
            self._tell(event="started", id=start.id, pid=pid)
        finally:
            os.close(gate)
            os.close(opener)  # the child runs no code of the user before this

    def _fork(self) -> int:
        for stream in (sys.stdout, sys.stderr):
            stream.flush()
        gc.freeze()  # a collection in a child would copy every page that the template shares with it
        template = os.getpid()
        try:
            if self._apart and self._sandbox is not None:
                return int(self._sandbox.fork())
            return os.fork()
        except BaseException:
            if os.getpid() != template:  # a child that cannot be one must not go on as another template
                os._exit(child.EXIT_NOT_STARTED)
            raise

    def _watch(self, pid: int) -> int:
        """A descriptor of a child that has just been forked, to hear of its end; without one it is ended."""
        descriptor = -1
        try:
            descriptor = os.pidfd_open(pid)
            self._selector.register(descriptor, selectors.EVENT_READ, data=pid)
        except OSError:
            if descriptor >= 0:
                os.close(descriptor)
            os.kill(pid, signal.SIGKILL)
            os.waitpid(pid, 0)
            raise
        return descriptor

    def _hand_over(self, packet: bytes, given: list[int], gate: int) -> tuple[int, int]:
        """Give a start to the child that waits, if it fits: its process id and descriptor, or 0."""
        spare = self._spare
        if spare is None:
            return 0, -1
        gone = os.waitid(os.P_PIDFD, spare.descriptor, os.WEXITED | os.WNOHANG | os.WNOWAIT) is not None
        if not gone and spare.imported == self._preload.imported:
            try:
                socket.send_fds(spare.channel, [packet], [gate, *given])
            except OSError:  # it has ended
                pass
            else:
                spare.channel.close()
                self._spare = None
                return spare.pid, spare.descriptor
        self._drop_spare()
        return 0, -1

    def _keep_spare(self) -> None:
        """Fork the child of the next attempt ahead of it: the last one has begun, or has ended."""
        if self._no_spares or self._spare is not None:
            return
        with suppress(OSError):  # the next one is then forked when it comes
            if not threads():
                self._spare = self._fork_spare()

    def _fork_spare(self) -> _Spare:
        imported = self._preload.imported
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        with theirs:
            try:
                pid = self._fork()
                if pid == 0:
                    child.wait(theirs, bundle=self._bundle, sandbox=self._sandbox, apart=self._apart)
                return _Spare(pid, self._watch(pid), ours, imported)
            except OSError:
                ours.close()
                raise

    def _drop_spare(self) -> None:
        spare, self._spare = self._spare, None
        if spare is None:
            return
        spare.channel.close()
        self._selector.unregister(spare.descriptor)
        os.close(spare.descriptor)
        with suppress(ProcessLookupError):
            os.kill(spare.pid, signal.SIGKILL)
        os.waitpid(spare.pid, 0)

    def _reap(self, pid: int) -> None:
        if self._spare is not None and self._spare.pid == pid:
            self._drop_spare()
            return
        if pid not in self._children:
            return  # a spare that was dropped after the selector had told of its end
        identity, descriptor = self._children.pop(pid)
        self._selector.unregister(descriptor)
        os.close(descriptor)
        _, status = os.waitpid(pid, 0)
        self._tell(event="exited", id=identity, status=status)
        self._keep_spare()

    def _tell(self, **message: Any) -> None:
        with suppress(ConnectionError):  # the end of the socket is seen by the next turn
            self._control.send(json.dumps(message, separators=(",", ":")).encode())

    def _selector_descriptor(self) -> int:
        descriptor: int = self._selector.fileno()  # epoll on Linux
        return descriptor

    def _own_descriptors(self) -> set[int]:
        return {
            self._control.fileno(),
            self._selector_descriptor(),
            *(descriptor for _, descriptor in self._children.values()),
            *(() if self._spare is None else (self._spare.descriptor, self._spare.channel.fileno())),
        }


def _received(ancillary: list[tuple[int, int, bytes]]) -> list[int]:
    """The descriptors that came with a message; none of them outlives an exec."""
    descriptors = array.array("i")
    for level, kind, data in ancillary:
        if level == socket.SOL_SOCKET and kind == socket.SCM_RIGHTS:
            descriptors.frombytes(data[: len(data) - len(data) % descriptors.itemsize])
    for descriptor in descriptors:
        os.set_inheritable(descriptor, False)
    return list(descriptors)


def main() -> None:
    """Serve the control socket that was inherited."""
    parser = argparse.ArgumentParser(prog="flyte.runtime.worker")
    parser.add_argument("--control-fd", type=int, required=True)
    parser.add_argument("--bundle", type=Path)
    parser.add_argument("--sandbox", type=Path)
    arguments = parser.parse_args()
    control = socket.socket(fileno=arguments.control_fd)
    control.set_inheritable(False)
    sandbox = None if arguments.sandbox is None else _script(arguments.sandbox)
    Worker(control, bundle=arguments.bundle, sandbox=sandbox).serve()


def _script(path: Path) -> ModuleType:
    """A script of the executor's, by which children close themselves off: the SDK knows nothing of that."""
    spec = importlib.util.spec_from_file_location("flyte_executor_sandbox", path)
    if spec is None or spec.loader is None:
        raise ImportError(f"{path} cannot be loaded")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


if __name__ == "__main__":
    main()
