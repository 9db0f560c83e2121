"""The calls of the kernel by which a process changes what it sees: each raises OSError where it fails."""

from __future__ import annotations

import ctypes
import os
import struct
from typing import Any, NoReturn

LIBC = ctypes.PyDLL(None, use_errno=True)
"""The C library; what it says went wrong is in `ctypes.get_errno`."""

BIND, REC, PRIVATE = 0x1000, 0x4000, 1 << 18
RDONLY, NOSUID, NODEV, NOEXEC = 1, 2, 4, 8
_REMOUNT, _DETACH = 32, 2
_SYS_MOUNT_SETATTR, _SYS_OPEN_TREE, _SYS_MOVE_MOUNT = 442, 428, 429
_AT_FDCWD, _AT_RECURSIVE = -100, 0x8000
_OPEN_TREE_CLONE = 1
_MOVE_EMPTY_PATH = 4

LEAST_MEMORY = 1 << 20
_BYTES_PER_FILE = 1 << 12


def failed(what: str) -> NoReturn:
    """Raise what the C library noted."""
    number = ctypes.get_errno()
    raise OSError(number, f"{what}: {os.strerror(number)}")


def call(what: str, number: int, *arguments: Any) -> int:
    """A system call that the C library has no function for."""
    result: int = LIBC.syscall(ctypes.c_long(number), *arguments)
    if result < 0:
        failed(what)
    return result


def mount(source: str | None, target: str, kind: str | None, flags: int, data: str | None = None) -> None:
    """Mount something, or change how it is mounted."""
    words = [None if text is None else os.fsencode(text) for text in (source, target, kind, data)]
    if LIBC.mount(words[0], words[1], words[2], ctypes.c_ulong(flags), words[3]) != 0:
        failed(f"mount {target}")


def in_memory(target: str, size: int, *, again: bool = False) -> None:
    """A folder in memory for everybody, of so many bytes; `again`: it is there, with another size."""
    size = max(size, LEAST_MEMORY)  # none at all would be no limit
    data = f"mode=1777,size={size},nr_inodes={size // _BYTES_PER_FILE}"
    mount("tmpfs", target, "tmpfs", NOSUID | NODEV | (_REMOUNT if again else 0), data)


def restrict(target: str, flags: int, *, recursive: bool = True) -> None:
    """Add flags to a mount, and to all below it."""
    attributes = struct.pack("=4Q", flags, 0, 0, 0)
    call(
        f"restrict {target}",
        _SYS_MOUNT_SETATTR,
        ctypes.c_int(_AT_FDCWD),
        os.fsencode(target),
        ctypes.c_uint(_AT_RECURSIVE if recursive else 0),
        attributes,
        ctypes.c_size_t(len(attributes)),
    )


def write(path: str, text: str) -> None:
    """Write a file of the kernel's."""
    descriptor = os.open(path, os.O_WRONLY | os.O_CLOEXEC)
    try:
        os.write(descriptor, text.encode())
    finally:
        os.close(descriptor)


def pivot_root(new: str, old: str) -> None:
    """Have a mount for root; the one that was it hangs at `old` from then on."""
    if LIBC.pivot_root(os.fsencode(new), os.fsencode(old)) != 0:
        failed("pivot_root")


def detach(target: str) -> None:
    """Let go of a mount and all below it."""
    if LIBC.umount2(os.fsencode(target), _DETACH) != 0:
        failed("umount")


def copy_of(path: str) -> int:
    """A descriptor of a copy of what is mounted at a path, all that is mounted below included."""
    return call(
        f"open {path}",
        _SYS_OPEN_TREE,
        ctypes.c_int(_AT_FDCWD),
        os.fsencode(path),
        ctypes.c_uint(_OPEN_TREE_CLONE | os.O_CLOEXEC | _AT_RECURSIVE),
    )


def attach(tree: int, path: str) -> None:
    """Mount such a copy at a path; the descriptor is closed."""
    call(
        f"mount {path}",
        _SYS_MOVE_MOUNT,
        ctypes.c_int(tree),
        b"",
        ctypes.c_int(_AT_FDCWD),
        os.fsencode(path),
        ctypes.c_uint(_MOVE_EMPTY_PATH),  # the source is the descriptor itself
    )
    os.close(tree)
