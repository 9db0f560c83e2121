"""Run a program as on a machine that can do less: `python lesser.py WITHOUT PROGRAM ARGUMENT...`.

WITHOUT is a list, with commas, of `landlock`, `namespaces` and `seccomp`. The kernel then answers as one
without it, or as a container that forbids it.
"""

from __future__ import annotations

import errno
import importlib.util
import os
import sys
from pathlib import Path
from typing import Any

_SECCOMP = Path(__file__).parents[1] / "src" / "tower" / "executors" / "process" / "seccomp.py"


def command(without: str) -> tuple[str, ...]:
    """What to put before a command; nothing to leave the machine as it is."""
    return (sys.executable, str(Path(__file__)), without) if without else ()


def main() -> None:
    """Install the filter, become the program."""
    spec = importlib.util.spec_from_file_location("seccomp", _SECCOMP)
    assert spec is not None
    assert spec.loader is not None
    seccomp: Any = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(seccomp)
    machine = seccomp._MACHINES[os.uname().machine]
    steps = [(seccomp._LOAD, 0, 0, seccomp._NUMBER)]
    without = sys.argv[1].split(",")
    if "landlock" in without:
        steps += seccomp._when(444, [], answer=errno.ENOSYS)
    if "namespaces" in without:
        steps += seccomp._when(machine.unshare, [])
        steps += seccomp._when(machine.clone3, [], answer=errno.ENOSYS)
        steps += seccomp._when(machine.clone, [(seccomp._ANY_BIT, 0, seccomp._NEWUSER)])
    if "seccomp" in without:
        steps += seccomp._when(machine.asks, [], answer=errno.ENOSYS)
    seccomp.install([*steps, (seccomp._RETURN, 0, 0, seccomp._ALLOW)])
    os.execv(sys.argv[2], sys.argv[2:])


if __name__ == "__main__":
    main()
