"""What the kernel does to keep a process to itself: namespaces, a file system of its own, Landlock.

It stands alone (standard library only, any supported Python): `launch` loads it before every process that
Tower starts, and a template process loads it by the path of this file to close each child off from the next.
All of it is done to the calling process, by system calls; a failure raises OSError, and then the process must
not go on.
"""

from __future__ import annotations

import sys
from types import ModuleType
from typing import Any

if __name__ not in sys.modules:  # loaded by its path, by who does not enter it there: its parts look for it
    _entry = ModuleType(__name__)
    _entry.__path__ = __path__
    sys.modules[__name__] = _entry

from .namespaces import drop, first, fork, own_keyring, resign, unshare
from .rules import landlock, landlock_abi
from .world import EVERYWHERE, build, narrow

__all__ = [
    "EVERYWHERE",
    "build",
    "close",
    "drop",
    "first",
    "fork",
    "landlock",
    "landlock_abi",
    "unshare",
]


def close(plan: dict[str, Any]) -> None:
    """In a child of a template, before it runs anything of an attempt: keep what is the attempt's own.

    With namespaces, `fork` and `first` came before.
    """
    if plan["namespaces"]:
        narrow(plan)
    else:
        own_keyring()  # the template's would be that of all its children
    resign()
    if plan["landlock"]:
        landlock(plan["read"], [*(EVERYWHERE if plan["namespaces"] else ()), *plan["write"]])
