"""Run as a script before every process that Tower starts: set its limits, then become the program.

    python -I -S launch.py PLAN PROGRAM ARGUMENT...

PLAN is JSON: `parent` (the pid that must still be ours), `die_with_parent`, `groups` (files that take "0"),
`memory` (bytes), `processes`, `open_files`, `cpus` (indices of the processors to stay on). It imports nothing
of Tower, keeps the process id and passes its environment on as it is.
"""

from __future__ import annotations

import ctypes
import json
import os
import resource
import signal
import sys
from typing import Any

_PR_SET_PDEATHSIG = 1
_PR_SET_NO_NEW_PRIVS = 38
_CANNOT_EXECUTE = 126


def main() -> None:
    """Apply the plan and become the program. Ends with 126 and one line of output when that fails."""
    plan: dict[str, Any] = json.loads(sys.argv[1])
    program = sys.argv[2:]
    try:
        prepare(plan)
        os.execv(program[0], program)  # noqa: S606  (a list of arguments, no shell)
    except OSError as error:
        os.write(2, f"cannot start {os.path.basename(program[0])}: {error.strerror}\n".encode())
        os._exit(_CANNOT_EXECUTE)


def prepare(plan: dict[str, Any]) -> None:
    """Set what the plan says on this process. Raises OSError when a limit cannot be set."""
    control = ctypes.CDLL(None, use_errno=True).prctl
    if plan.get("die_with_parent"):
        control(_PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
        if os.getppid() != plan["parent"]:  # it ended before the line above
            os._exit(_CANNOT_EXECUTE)
    control(_PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0)
    for path in plan.get("groups", ()):
        enter(path)
    limit(resource.RLIMIT_CORE, 0)
    for name, kind in (
        ("open_files", resource.RLIMIT_NOFILE),
        ("memory", resource.RLIMIT_DATA),
        ("processes", resource.RLIMIT_NPROC),
    ):
        if plan.get(name) is not None:
            limit(kind, plan[name])
    if plan.get("cpus"):
        os.sched_setaffinity(0, plan["cpus"])
    signal.pthread_sigmask(signal.SIG_SETMASK, ())


def enter(path: str) -> None:
    """Move this process into a control group: "0" names the writer, and spares the kernel a global lock."""
    descriptor = os.open(path, os.O_WRONLY | os.O_CLOEXEC)
    try:
        os.write(descriptor, b"0")
    finally:
        os.close(descriptor)


def limit(kind: int, value: int) -> None:
    """Lower the soft and the hard limit to `value`, or to the hard limit in force when that is lower."""
    _, hard = resource.getrlimit(kind)
    if hard != resource.RLIM_INFINITY:
        value = min(value, hard)
    resource.setrlimit(kind, (value, value))


if __name__ == "__main__":
    main()
