"""Landlock: the list of what a process may reach, which it and all that it starts can only make shorter."""

from __future__ import annotations

import ctypes
import os
import stat
import struct

from .kernel import LIBC, call

_SYS_LANDLOCK = 444
_PR_SET_NO_NEW_PRIVS = 38

# rights of Landlock: what may be done to files that are only read, and to all files
_READ = 1 << 0 | 1 << 2 | 1 << 3
_FILE = 1 << 0 | 1 << 1 | 1 << 2 | 1 << 14 | 1 << 15
_BY_ABI = {1: 13, 2: 14, 3: 15, 4: 15, 5: 16}
_SCOPES = 3  # abstract unix sockets and signals


def landlock_abi() -> int:
    """The version of Landlock that this kernel has; 0 for none."""
    return max(0, int(LIBC.syscall(ctypes.c_long(_SYS_LANDLOCK), None, ctypes.c_size_t(0), ctypes.c_uint(1))))


def landlock(read: list[str] | None, write: list[str]) -> None:
    """Allow reading below `read` and everything below `write`, and nothing else of the file system.

    `read=None` leaves the file system to others. Where the kernel can, neither abstract sockets nor signals
    reach anything outside. Descriptors that are open stay usable.
    """
    abi = landlock_abi()
    if abi < 1:
        raise OSError(95, "this kernel has no Landlock")
    handled = (1 << _BY_ABI.get(abi, 16)) - 1 if read is not None else 0
    scoped = _SCOPES if abi >= 6 else 0
    if not handled and not scoped:
        return
    attributes = struct.pack("=3Q", handled, 0, scoped)[: 24 if abi >= 6 else 16 if abi >= 4 else 8]
    ruleset = call(
        "landlock",
        _SYS_LANDLOCK,
        attributes,
        ctypes.c_size_t(len(attributes)),
        ctypes.c_uint(0),
    )
    try:
        rules = [(path, _READ) for path in read or ()] + [(path, -1) for path in write if handled]
        for path, rights in rules:
            _rule(ruleset, path, rights & handled)
        LIBC.prctl(_PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0)
        call("landlock", _SYS_LANDLOCK + 2, ctypes.c_int(ruleset), ctypes.c_uint(0))
    finally:
        os.close(ruleset)


def _rule(ruleset: int, path: str, rights: int) -> None:
    try:
        descriptor = os.open(path, os.O_PATH | os.O_CLOEXEC)
    except (FileNotFoundError, NotADirectoryError):
        return
    try:
        if not stat.S_ISDIR(os.fstat(descriptor).st_mode):
            rights &= _FILE
        rule = struct.pack("=Qi", rights, descriptor)
        call("landlock", _SYS_LANDLOCK + 1, ctypes.c_int(ruleset), ctypes.c_int(1), rule, ctypes.c_uint(0))
    finally:
        os.close(descriptor)
