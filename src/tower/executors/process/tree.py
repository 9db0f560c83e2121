"""All the processes that grew out of one: found by session and parent in /proc, signalled together.

What is asked of a process raises OSError when nobody can tell, for want of a descriptor say: only the
kernel's word that it is not there means that.
"""

from __future__ import annotations

import os
import signal
from contextlib import suppress

_NOT_THERE = (FileNotFoundError, ProcessLookupError, PermissionError)
"""How /proc says that a process has gone, or is none of ours where it shows everybody only their own."""


def members(root: int) -> set[int]:
    """The living processes of the session and process group `root`, and all their descendants."""
    parents: dict[int, int] = {}
    found: set[int] = set()
    for name in os.listdir("/proc"):
        if not name.isdigit():
            continue
        facts = _facts(int(name))
        if facts is None:
            continue
        parent, group, session = facts
        parents[int(name)] = parent
        if root in (int(name), group, session):
            found.add(int(name))
    grown = True
    while grown:
        children = {pid for pid, parent in parents.items() if parent in found and pid not in found}
        found |= children
        grown = bool(children)
    return found


def children(pid: int) -> list[int]:
    """The children of a single-threaded process."""
    try:
        with open(f"/proc/{pid}/task/{pid}/children", "rb") as file:
            return [int(word) for word in file.read().split()]
    except (FileNotFoundError, ProcessLookupError):  # gone, or a kernel that does not list them
        found = {int(name): _facts(int(name)) for name in os.listdir("/proc") if name.isdigit()}
        return [each for each, facts in found.items() if facts is not None and facts[0] == pid]


def parent(pid: int) -> int:
    """The parent of a process that lives or was not reaped yet; 0 when it is gone."""
    with suppress(*_NOT_THERE), open(f"/proc/{pid}/stat", "rb") as file:
        text = file.read()
        return int(text[text.rindex(b")") + 2 :].split()[1])
    return 0


def names(pid: int) -> list[int]:
    """What a process is called in each process table that it is in, from ours inwards."""
    with suppress(*_NOT_THERE), open(f"/proc/{pid}/status", "rb") as file:
        for line in file:
            if line.startswith(b"NSpid:"):
                return [int(word) for word in line.split()[1:]]
    return []


def signal_all(pids: set[int], number: signal.Signals) -> None:
    """Send a signal to each process that still exists."""
    for pid in pids:
        with suppress(ProcessLookupError, PermissionError):
            os.kill(pid, number)


def _facts(pid: int) -> tuple[int, int, int] | None:
    """Parent, process group and session of a living process; None when it is gone or only a zombie."""
    try:
        with open(f"/proc/{pid}/stat", "rb") as file:
            text = file.read()
    except _NOT_THERE:
        return None
    fields = text[text.rindex(b")") + 2 :].split()
    if fields[0] in (b"Z", b"X"):
        return None
    return int(fields[1]), int(fields[2]), int(fields[3])
