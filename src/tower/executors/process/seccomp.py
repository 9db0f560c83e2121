"""A few system calls that programs of others are refused with EPERM: a filter of the kernel's (seccomp).

Namespaces and Landlock say which files and processes there are; these calls go by them, or are doors into
parts of the kernel that tasks and apps hardly need. Like `sandbox` it stands alone, and `launch` loads it by
its path. What a filtered process starts is filtered too, so a template's children cost nothing.
"""

from __future__ import annotations

import ctypes
import errno
import os
import struct
from collections.abc import Sequence
from typing import NamedTuple

_LIBC = ctypes.PyDLL(None, use_errno=True)

_PR_SET_NO_NEW_PRIVS, _PR_SET_SECCOMP, _MODE_FILTER = 38, 22, 2
_GET_ACTION_AVAIL = 2
_ALLOW, _ERRNO = 0x7FFF0000, 0x00050000

# classic BPF: load a word of `struct seccomp_data`, compare, return
_LOAD, _EQUAL, _AT_LEAST, _ANY_BIT, _RETURN = 0x20, 0x15, 0x35, 0x45, 0x06
_NUMBER, _ARCHITECTURE, _ARGUMENTS = 0, 4, 16

_FOREIGN = 0x40000000
"""From here on x86-64 has the numbers of another ABI (x32)."""

_NEWUSER = 0x10000000
_TIOCSTI, _TIOCLINUX = 0x5412, 0x541C
_SET_ID_BITS = 0o6000


class _Machine(NamedTuple):
    """What one kind of processor calls its system calls; `audit` is how the kernel calls it."""

    audit: int
    asks: int
    refused: dict[str, int]
    ioctl: int
    unshare: int
    clone: int
    clone3: int
    setns: int
    prlimit: int
    modes: dict[int, int]
    queues: tuple[int, ...]


_EVERYWHERE = {"io_uring_setup": 425, "io_uring_enter": 426, "io_uring_register": 427}

_MACHINES = {
    "x86_64": _Machine(
        audit=0xC000003E,
        asks=317,
        refused={
            "add_key": 248,
            "request_key": 249,
            "keyctl": 250,
            "userfaultfd": 323,
            "perf_event_open": 298,
            "bpf": 321,
            "open_by_handle_at": 304,
            "kexec_load": 246,
            "kexec_file_load": 320,
            **_EVERYWHERE,
        },
        ioctl=16,
        unshare=272,
        clone=56,
        clone3=435,
        setns=308,
        prlimit=302,
        modes={90: 1, 91: 1, 268: 2, 452: 2},
        queues=(29, 30, 31, 64, 65, 66, 220, 68, 69, 70, 71, 240, 241),
    ),
    "aarch64": _Machine(
        audit=0xC00000B7,
        asks=277,
        refused={
            "add_key": 217,
            "request_key": 218,
            "keyctl": 219,
            "userfaultfd": 282,
            "perf_event_open": 241,
            "bpf": 280,
            "open_by_handle_at": 265,
            "kexec_load": 104,
            "kexec_file_load": 294,
            **_EVERYWHERE,
        },
        ioctl=29,
        unshare=97,
        clone=220,
        clone3=435,
        setns=268,
        prlimit=261,
        modes={52: 1, 53: 2, 452: 2},
        queues=(194, 196, 195, 190, 193, 191, 192, 186, 189, 188, 187, 180, 181),
    ),
}
"""`modes` are the calls that change a file's mode, and which of their arguments it is; `queues` those for
memory, semaphores and messages that the kernel keeps under a number or a name."""

_Step = tuple[int, int, int, int]
"""Operation, steps to skip where it holds and where not, operand."""


def available() -> bool:
    """Whether this kernel has filters, and this module knows the processor's numbers."""
    machine = _MACHINES.get(os.uname().machine)
    if machine is None:
        return False
    action = ctypes.c_uint32(_ERRNO)
    number, operation = ctypes.c_long(machine.asks), ctypes.c_uint(_GET_ACTION_AVAIL)
    return int(_LIBC.syscall(number, operation, ctypes.c_uint(0), ctypes.byref(action))) == 0


def refuse(*, namespaces: bool) -> None:
    """Refuse the calls to this process and all that it will start. Raises OSError.

    Without namespaces of its own it is refused more: user namespaces, the limits of other processes, what
    the kernel keeps for all of a user (`queues`), and files that run as their owner, since Landlock lets
    modes be changed.
    """
    machine = _MACHINES.get(os.uname().machine)
    if machine is None:
        raise OSError(errno.ENOSYS, "no filter for this processor")
    install(program(machine, namespaces=namespaces))


def check() -> None:
    """Raise OSError unless the calls are refused to this process."""
    machine = _MACHINES[os.uname().machine]
    for name in ("keyctl", "io_uring_setup"):
        ctypes.set_errno(0)
        _LIBC.syscall(ctypes.c_long(machine.refused[name]), ctypes.c_long(-1), None)
        if ctypes.get_errno() != errno.EPERM:
            raise OSError(errno.EPERM, f"{name} is not refused")


def program(machine: _Machine, *, namespaces: bool) -> list[_Step]:
    """The filter. Whatever is not named is allowed; calls of another ABI of the processor are not."""
    steps: list[_Step] = [
        (_LOAD, 0, 0, _ARCHITECTURE),
        (_EQUAL, 1, 0, machine.audit),
        (_RETURN, 0, 0, _ERRNO | errno.ENOSYS),
        (_LOAD, 0, 0, _NUMBER),
        (_AT_LEAST, 0, 1, _FOREIGN),
        (_RETURN, 0, 0, _ERRNO | errno.ENOSYS),
    ]
    for number in machine.refused.values():
        steps += _when(number, [])
    # nobody types into a terminal for somebody else
    steps += _when(machine.ioctl, [(_EQUAL, 1, _TIOCSTI), (_EQUAL, 1, _TIOCLINUX)])
    if not namespaces:
        for each, position in machine.modes.items():
            steps += _when(each, [(_ANY_BIT, position, _SET_ID_BITS)])
        steps += _when(machine.unshare, [(_ANY_BIT, 0, _NEWUSER)])
        steps += _when(machine.clone, [(_ANY_BIT, 0, _NEWUSER)])
        # its flags are out of sight; the C library goes on with the older call
        steps += _when(machine.clone3, [], answer=errno.ENOSYS)
        for each in (machine.setns, *machine.queues):
            steps += _when(each, [])
        steps += _others_limits(machine.prlimit)
    return [*steps, (_RETURN, 0, 0, _ALLOW)]


def _when(number: int, tests: Sequence[tuple[int, int, int]], *, answer: int = errno.EPERM) -> list[_Step]:
    """Refuse a call where one of the tests (comparison, argument, operand) holds; always without any."""
    refusal: _Step = (_RETURN, 0, 0, _ERRNO | answer)
    if not tests:
        return [(_EQUAL, 0, 1, number), refusal]
    inner: list[_Step] = []
    for comparison, position, operand in tests:
        inner += [(_LOAD, 0, 0, _low(position)), (comparison, 0, 1, operand), refusal]
    inner += [(_RETURN, 0, 0, _ALLOW)]
    return [(_EQUAL, 0, len(inner), number), *inner]


def _others_limits(number: int) -> list[_Step]:
    """Refuse to set the limits of a process that is named; its own is number 0 to the C library."""
    return [
        (_EQUAL, 0, 8, number),
        (_LOAD, 0, 0, _low(0)),
        (_EQUAL, 5, 0, 0),
        (_LOAD, 0, 0, _low(2)),
        (_EQUAL, 0, 2, 0),
        (_LOAD, 0, 0, _low(2) + 4),
        (_EQUAL, 1, 0, 0),
        (_RETURN, 0, 0, _ERRNO | errno.EPERM),
        (_RETURN, 0, 0, _ALLOW),
    ]


def _low(position: int) -> int:
    """Where the lower half of an argument stands; both processors are little-endian."""
    return _ARGUMENTS + 8 * position


def install(steps: Sequence[_Step]) -> None:
    """Have the kernel run a filter before each system call from now on. Raises OSError."""
    code = b"".join(struct.pack("=HBBI", *step) for step in steps)
    place = ctypes.create_string_buffer(code, len(code))
    head = struct.pack("=HxxxxxxQ", len(steps), ctypes.addressof(place))
    _LIBC.prctl(_PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0)
    if _LIBC.prctl(_PR_SET_SECCOMP, _MODE_FILTER, head, 0, 0) != 0:
        number = ctypes.get_errno()
        raise OSError(number, f"seccomp: {os.strerror(number)}")
