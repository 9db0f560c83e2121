"""From a fork of the template to an attempt: a session, limits, an output and an environment of its own."""

from __future__ import annotations

import _signal  # type: ignore[import-not-found]
import asyncio
import contextlib
import ctypes
import errno
import json
import math
import os
import random
import resource
import signal
import socket
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from types import ModuleType
from typing import NoReturn

from flyteidl2.task import common_pb2

from flyte.runtime import task
from flyte.runtime.start import Limits, Start

EXIT_NOT_STARTED = 120
LARGEST_MESSAGE = 128 * 1024
MOST_DESCRIPTORS = 8
_PR_SET_PDEATHSIG = 1
_TEMPLATE = os.getpid()
_NOT_WAITING = "A process that was to wait for an attempt has ended"


def become(start: Start, gate: int, given: Sequence[int], *, sandbox: ModuleType | None) -> NoReturn:
    """Turn this freshly forked process into the attempt; it never returns into the template's code.

    :param gate: a pipe that closes when Tower has been told of this process.
    :param given: the descriptors that came with the message: of standard output and standard error, where it
        says so of the pipe for "done", and the files of control groups, which are entered by writing "0".
    :param sandbox: the executor's script by which the attempt closes itself off, when it says so.
    """
    _become(start, gate, given, sandbox=sandbox, prepared=False)


def wait(channel: socket.socket, *, bundle: Path | None, sandbox: ModuleType | None, apart: bool) -> NoReturn:
    """Be a child that is ready before there is an attempt: it holds nothing of the template's and waits.

    The start message comes over `channel` with the gate, the output and the files of its control groups. No
    code of the user runs before that, and without a message none ever does. `apart`: it was forked into
    namespaces of its own.
    """
    try:
        _begin(sandbox if apart else None)
        _close_all(channel.fileno())
        _warm()
        _forget()
        packet, received, _, _ = socket.recv_fds(channel, LARGEST_MESSAGE, MOST_DESCRIPTORS)
        if packet:
            start = Start.parse(packet, bundle=bundle)
            if len(received) != 1 + start.descriptors:  # without its control groups nothing would limit it
                raise OSError(errno.EMFILE, "its descriptors did not come with it")
            gate, *given = received
            _become(start, gate, given, sandbox=sandbox, prepared=True)
    except BaseException as fault:  # noqa: BLE001 - there is nobody above to tell
        _complain(fault, what=_NOT_WAITING)
    finally:
        os._exit(EXIT_NOT_STARTED)


def wait_there(start: Start, given: Sequence[int], *, sandbox: ModuleType | None) -> NoReturn:
    """Be a child that is ready in the folders of its attempt before there is one, and become that once.

    :param start: what all attempts of the kind have in common, and how it closes itself off.
    :param given: one end of a socket over which the attempt comes, and the files of its control groups.

    The platform knows this process before it gives it an attempt, so it needs no gate. No code of the user
    runs before that, and without a message none ever does.
    """
    code = EXIT_NOT_STARTED
    try:
        descriptor, *groups = given
        _settle(start, groups, sandbox=sandbox, prepared=False)
        _close_all(descriptor)
        os.umask(0o077)
        _forget()
        task.settle(start)
        _warm()
        code = _attend(socket.socket(fileno=descriptor), start)
    except BaseException as fault:  # noqa: BLE001 - there is nobody above to tell
        _complain(fault, what=_NOT_WAITING)
    finally:
        os._exit(code)


def _attend(channel: socket.socket, ready: Start) -> int:
    """Wait for the one attempt and run it; the exit code."""
    packet, received, _, _ = socket.recv_fds(channel, LARGEST_MESSAGE, MOST_DESCRIPTORS)
    channel.close()
    if len(received) != 2:
        return EXIT_NOT_STARTED  # there will be none
    output, done = received
    _redirect(output)
    os.close(output)
    try:
        start = Start.parse(packet, bundle=ready.bundle)
        if (start.directory, start.module, start.waits) != (ready.directory, ready.module, False):
            raise OSError("it is not the attempt that this process waits for")
        return _run(start, _Done(done))
    except BaseException as fault:  # noqa: BLE001 - there is nobody above to tell
        _complain(fault)
        return EXIT_NOT_STARTED


def _become(
    start: Start, gate: int, given: Sequence[int], *, sandbox: ModuleType | None, prepared: bool
) -> NoReturn:
    code = EXIT_NOT_STARTED
    try:
        output, *groups = given
        done = groups.pop(0) if start.done else -1
        _redirect(output)
        _settle(start, groups, sandbox=sandbox, prepared=prepared)
        if os.read(gate, 1):
            raise OSError("the gate is no message")
        _close_all(done)
        os.umask(0o077)
        if not prepared:
            _forget()
        code = _run(start, None if done < 0 else _Done(done))
    except BaseException as fault:  # noqa: BLE001 - there is nobody above to tell
        _complain(fault)
    finally:
        os._exit(code)


def _settle(start: Start, groups: Sequence[int], *, sandbox: ModuleType | None, prepared: bool) -> None:
    """Enter the control groups, take on the limits, and close itself off."""
    plan = start.sandbox
    if not prepared:
        _begin(sandbox if plan is not None and plan["namespaces"] else None)
    for group in groups:
        os.write(group, b"0")  # names the writer: the kernel then needs no global lock
    _limit(start.limits)
    if plan is not None:
        if sandbox is None:
            raise OSError("nothing keeps it apart")
        sandbox.close(plan)


def _run(start: Start, pipe: _Done | None) -> int:
    code = task.run(start)
    if pipe is not None and code == task.EXIT_OK:
        pipe.tell()
    return code


def _complain(fault: BaseException, *, what: str = "The attempt could not be started") -> None:
    """On standard error: the attempt's, or the template's as long as there is no attempt."""
    with contextlib.suppress(OSError):
        os.write(2, f"{what}: {type(fault).__name__}: {fault}\n".encode())


class _Done:
    """The pipe by which the process says that its result is written, and that all it does now is to end."""

    def __init__(self, descriptor: int) -> None:
        os.set_inheritable(descriptor, False)
        self._descriptor = descriptor
        self._facts = os.fstat(descriptor)
        self._own = os.getpid()

    def tell(self) -> None:
        """Nothing of the user's runs after this. If user code has closed the pipe, the end alone tells."""
        if os.getpid() != self._own:
            return  # a fork that user code made, and that came back from it
        with contextlib.suppress(OSError):
            if os.path.samestat(os.fstat(self._descriptor), self._facts):
                os.write(self._descriptor, b"\0")


def _warm() -> None:
    """Use what every attempt uses: memory shared with the template is copied when it is touched first."""
    common_pb2.Inputs.FromString(b"").SerializeToString()
    json.loads("{}")
    # a loop made by hand touches no policy and is nobody's current one: the attempt finds all that unused
    with asyncio.Runner(loop_factory=asyncio.SelectorEventLoop) as runner:
        runner.run(asyncio.sleep(0))


def _begin(sandbox: ModuleType | None) -> None:
    """Be nobody's but the template's child, in namespaces of its own where there is a script for them."""
    if sandbox is None:
        _die_with_template()
    else:
        sandbox.first()  # as a member of its process table this process ends with the template anyhow
    os.setsid()


def _die_with_template() -> None:
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
    if os.getppid() != _TEMPLATE:  # it ended before the line above
        os._exit(EXIT_NOT_STARTED)


def _limit(limits: Limits) -> None:
    for kind, value in (
        # at 0 a program that catches dumps still gets one from the kernel; at 1 neither it nor a file does
        (resource.RLIMIT_CORE, 1),
        (resource.RLIMIT_DATA, limits.memory),
        (resource.RLIMIT_NPROC, limits.processes),
    ):
        if value is None:
            continue
        _, hard = resource.getrlimit(kind)
        lowest = value if hard == resource.RLIM_INFINITY else min(value, hard)
        resource.setrlimit(kind, (lowest, lowest))
    if limits.cpu is not None:
        cores = sorted(os.sched_getaffinity(0))
        os.sched_setaffinity(0, cores[: max(1, math.ceil(limits.cpu))])


def _redirect(output: int) -> None:
    null = os.open(os.devnull, os.O_RDONLY)
    os.dup2(null, 0)
    os.dup2(output, 1)
    os.dup2(output, 2)
    for stream in (sys.stdout, sys.stderr):
        with contextlib.suppress(AttributeError, ValueError, OSError):  # user code may have put another there
            stream.reconfigure(line_buffering=True)  # type: ignore[union-attr]


def _close_all(keep: int = 2) -> None:
    """Nothing of the template's is open in an attempt: not its socket, not another attempt's output."""
    highest = max(int(name) for name in os.listdir("/proc/self/fd"))
    os.closerange(3, keep)
    os.closerange(max(keep, 2) + 1, highest + 1)


def _forget() -> None:
    """What the template's code has set up for the template."""
    for number in range(1, signal.NSIG):
        with contextlib.suppress(OSError, ValueError):
            # without the enumerations of `signal`, which take longer than all else here
            if callable(_signal.getsignal(number)):
                signal.signal(number, signal.SIG_DFL)
    signal.set_wakeup_fd(-1)
    signal.pthread_sigmask(signal.SIG_SETMASK, ())
    random.seed()
    if "numpy" in sys.modules:
        sys.modules["numpy"].random.seed()
    tempfile.tempdir = None
    time.tzset()
