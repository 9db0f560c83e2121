"""The filter of system calls, for both processors: run here as the kernel runs it."""

from __future__ import annotations

import errno
import struct

import pytest

from tower.executors.process import seccomp

ALLOWED = seccomp._ALLOW


def answer(machine: str, number: int, *arguments: int, namespaces: bool = True, audit: int = 0) -> int:
    """0 where a call is allowed, else the error that it gets."""
    kind = seccomp._MACHINES[machine]
    words = [*arguments, *[0] * (6 - len(arguments))]
    data = struct.pack("=IIQ6Q", number, audit or kind.audit, 0, *words)
    steps, at, held = seccomp.program(kind, namespaces=namespaces), 0, 0
    while True:
        operation, if_so, if_not, operand = steps[at]
        at += 1
        match operation:
            case seccomp._LOAD:
                held = struct.unpack_from("=I", data, operand)[0]
            case seccomp._EQUAL:
                at += if_so if held == operand else if_not
            case seccomp._AT_LEAST:
                at += if_so if held >= operand else if_not
            case seccomp._ANY_BIT:
                at += if_so if held & operand else if_not
            case _:
                return 0 if operand == ALLOWED else operand & 0xFFFF


@pytest.mark.parametrize("machine", ["x86_64", "aarch64"])
def test_the_same_is_refused_on_both(machine: str) -> None:
    kind = seccomp._MACHINES[machine]
    for number in kind.refused.values():
        assert answer(machine, number) == errno.EPERM
    assert answer(machine, kind.ioctl, 0, 0x5412) == answer(machine, kind.ioctl, 0, 0x541C) == errno.EPERM
    assert answer(machine, kind.ioctl, 0, 0x5401) == 0
    for number in (
        kind.unshare,
        kind.clone,
        kind.clone3,
        kind.setns,
        kind.prlimit,
        *kind.queues,
        *kind.modes,
    ):
        assert answer(machine, number, 0x10000000 | 0o6755, 0o6755, 0o6755) == 0
    assert answer(machine, 0, audit=0x40000003) == errno.ENOSYS
    assert answer(machine, 0x40000000) == errno.ENOSYS


@pytest.mark.parametrize("machine", ["x86_64", "aarch64"])
def test_without_namespaces_more_is_refused(machine: str) -> None:
    kind = seccomp._MACHINES[machine]

    def alone(number: int, *arguments: int) -> int:
        return answer(machine, number, *arguments, namespaces=False)

    assert alone(kind.unshare, 0x10000000) == alone(kind.clone, 0x10000011) == errno.EPERM
    assert alone(kind.unshare, 0x200) == alone(kind.clone, 0x11) == 0
    assert alone(kind.clone3) == errno.ENOSYS
    assert {alone(number) for number in (kind.setns, *kind.queues)} == {errno.EPERM}
    assert alone(kind.prlimit, 0, 7, 1) == alone(kind.prlimit, 5, 7, 0) == 0
    assert alone(kind.prlimit, 5, 7, 1) == alone(kind.prlimit, 5, 7, 1 << 32) == errno.EPERM
    for number, position in kind.modes.items():
        words = [0] * 3
        words[position] = 0o4755
        assert alone(number, *words) == errno.EPERM
        words[position] = 0o755
        assert alone(number, *words) == 0
