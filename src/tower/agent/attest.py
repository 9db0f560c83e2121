"""Who is on the other end of a unix socket, and does it belong to a workload? Asked of the kernel."""

from __future__ import annotations

import socket
import struct
from dataclasses import dataclass

_DEEPEST = 64
_MARK = (b"Max file locks", b"0")
_CREDENTIALS = struct.Struct("3i")


@dataclass(frozen=True, slots=True)
class Peer:
    """The process that connected, as it was then: a child that got the descriptor later is not seen here."""

    pid: int
    uid: int
    gid: int


@dataclass(frozen=True, slots=True)
class Birth:
    """A process that no later one can be taken for: its id and its start in clock ticks since the boot."""

    pid: int
    started: int


def peer(connection: socket.socket) -> Peer:
    """The credentials that the kernel kept when the peer connected. Raises OSError."""
    data = connection.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _CREDENTIALS.size)
    return Peer(*_CREDENTIALS.unpack(data))


def birth(pid: int) -> Birth | None:
    """A living process, or None."""
    found = _stat(pid)
    return None if found is None else Birth(pid, found[1])


def descends(pid: int, root: Birth) -> bool:
    """Whether a process is `root` or grew out of it, seen through the parents as they are now.

    A process cannot be older than its parent: where one is, an id was given anew meanwhile and the answer
    is no. A daemon that left its parents is a stranger too.
    """
    younger: int | None = None
    for _ in range(_DEEPEST):
        found = _stat(pid)
        if found is None:
            return False
        parent, started = found
        if younger is not None and started > younger:
            return False
        if pid == root.pid:
            return started == root.started
        if pid <= 1:
            return False
        pid, younger = parent, started
    return False


def hosted(pid: int) -> bool:
    """Whether Tower started a process, or what it grew out of: for all time, whoever its parent is now.

    The launcher lowers a limit that no kernel since 2.4 looks at and that nobody else sets; who has no
    privilege cannot raise it again. A process that is gone may have been one.
    """
    try:
        with open(f"/proc/{pid}/limits", "rb") as file:
            lines = file.read().splitlines()
    except OSError:
        return True
    name, mark = _MARK
    found = [line[len(name) :].split() for line in lines if line.startswith(name)]
    return not found or found[0][1] == mark


def _stat(pid: int) -> tuple[int, int] | None:
    """The parent and the start of a process that lives, or None."""
    try:
        with open(f"/proc/{pid}/stat", "rb") as file:
            text = file.read()
    except OSError:
        return None
    # the name in parentheses may hold anything, blanks and parentheses too
    fields = text[text.rindex(b")") + 2 :].split()
    if fields[0] in (b"Z", b"X"):
        return None
    return int(fields[1]), int(fields[19])
