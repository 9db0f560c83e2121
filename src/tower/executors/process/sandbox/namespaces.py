"""Namespaces and privileges: whom else a process sees and meets, and what it may do in the kernel."""

from __future__ import annotations

import ctypes
import errno
import os
import struct

from .kernel import LEAST_MEMORY, LIBC, NODEV, NOEXEC, NOSUID, failed, in_memory, mount, write

_NEWNS, _NEWIPC, _NEWUSER, _NEWPID = 0x00020000, 0x08000000, 0x10000000, 0x20000000
_SETTID, _CLEARTID = 0x01000000, 0x00200000
_SYS_CLONE3 = 435
_SYS_CLONE = {"x86_64": 56, "aarch64": 220}
_PR_SET_DUMPABLE, _PR_CAPBSET_DROP, _PR_SET_NO_NEW_PRIVS, _PR_GET_TID_ADDRESS = 4, 24, 38, 40
_SIGCHLD = 17


def unshare(*, own_user: bool) -> None:
    """Leave the mounts, the queues and (for children) the process table of the others behind.

    `own_user`: through a user namespace, as a process without privileges must.
    """
    user, group = os.geteuid(), os.getegid()
    if LIBC.unshare(_NEWNS | _NEWIPC | _NEWPID | (_NEWUSER if own_user else 0)) != 0:
        failed("unshare")
    if own_user:
        _map(user, group)


def _map(user: int, group: int) -> None:
    """Be the same user inside; nobody else exists there."""
    write("/proc/self/setgroups", "deny")
    write("/proc/self/uid_map", f"{user} {user} 1")
    write("/proc/self/gid_map", f"{group} {group} 1")


def fork() -> int:
    """Fork into user, mount, process and queue namespaces of the child's own, where it may do all.

    The child is the first process of its process table: with its end all that it started ends. One fork does
    what `unshare` needs two for. The Python of this process is told by the functions that `os.fork` calls.
    """
    user, group = os.geteuid(), os.getegid()
    own = ctypes.c_void_p()
    # the C library's own fork keeps its note of the thread's id right by these two flags
    known = LIBC.prctl(_PR_GET_TID_ADDRESS, ctypes.byref(own), 0, 0, 0) == 0 and bool(own.value)
    flags = _NEWUSER | _NEWNS | _NEWPID | _NEWIPC | ((_SETTID | _CLEARTID) if known else 0)
    place = own.value if known else None
    arguments = struct.pack("=8Q", flags, 0, place or 0, 0, _SIGCHLD, 0, 0, 0)
    size = ctypes.c_size_t(len(arguments))
    older = ctypes.c_long(_SYS_CLONE[os.uname().machine]) if os.uname().machine in _SYS_CLONE else None
    # the last two arguments of the older call stand in another order on the other processor
    last = (place, None) if os.uname().machine == "x86_64" else (None, place)
    number, nothing = ctypes.c_long(_SYS_CLONE3), ctypes.c_void_p()
    python = ctypes.pythonapi
    python.PyOS_BeforeFork()
    pid: int = LIBC.syscall(number, arguments, size)
    if pid < 0 and older is not None and ctypes.get_errno() == errno.ENOSYS:  # filtered, in containers
        words = [ctypes.c_void_p(word) for word in last]
        pid = LIBC.syscall(older, ctypes.c_ulong(flags | _SIGCHLD), nothing, nothing, *words)
    if pid == 0:
        python.PyOS_AfterFork_Child()
        _map(user, group)
        return 0
    python.PyOS_AfterFork_Parent()
    if pid < 0:
        failed("clone3")
    return pid


def first() -> None:
    """In a child of `fork`: a process table and shared memory of its own. The rest is `world.narrow`'s."""
    mount("proc", "/proc", "proc", NOSUID | NODEV | NOEXEC)
    in_memory("/dev/shm", LEAST_MEMORY)  # noqa: S108  (`world.narrow` knows how much it may be)
    _no_more_users()
    own_keyring()


def _no_more_users() -> None:
    """No further user namespaces below this one: without them a good part of the kernel is out of reach."""
    write("/proc/sys/user/max_user_namespaces", "0")


def drop(user: int | None, *, last: bool = True) -> None:
    """Have no privilege, and no way to get one; `user` is who to be instead of root.

    `last`: nothing below makes user namespaces, so that nothing below can.
    """
    own = os.geteuid() != 0
    LIBC.prctl(_PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0)
    number = 0
    while LIBC.prctl(_PR_CAPBSET_DROP, number, 0, 0, 0) == 0:
        number += 1
    if user is not None:
        os.setgroups([])
        os.setresgid(user, user, user)
        os.setresuid(user, user, user)
        LIBC.prctl(_PR_SET_DUMPABLE, 1, 0, 0, 0)  # its own files in /proc are its own again
        if last:
            if LIBC.unshare(_NEWUSER) != 0:
                failed("unshare")
            _map(user, user)
            own = True
    if last and own:
        _no_more_users()
    own_keyring()
    resign()


def resign() -> None:
    """Give up every privilege that this process has in its namespaces."""
    LIBC.prctl(_PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0)
    header, none = struct.pack("=Ii", 0x20080522, 0), bytes(24)
    if LIBC.capset(header, none) != 0:
        failed("capset")


def own_keyring() -> None:
    """Leave the session keyring that was inherited, which is everybody's; a kernel without any refuses."""
    LIBC.syscall(ctypes.c_long(250 if os.uname().machine == "x86_64" else 219), ctypes.c_long(1), None)
