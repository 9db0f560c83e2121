"""Run as a script before every process that Tower starts: set its limits, close it off, become the program.

    python -I -S launch.py PLAN PROGRAM ARGUMENT...

PLAN is JSON: `parent` (the pid that must still be ours), `die_with_parent`, `groups` (files that take "0"),
`memory` (bytes), `processes`, `open_files`, `cpus` (indices of the processors to stay on), and `sandbox`:
what the process may see (`tower.executors.process.isolation` makes it) or null. It imports nothing of Tower
but what is in `sandbox` and `seccomp.py` beside it.

`environment` is a descriptor with the program's variables as JSON; without it those of this process are
passed on. Whoever chooses variables (`LD_AUDIT`, say) chooses code that runs as the process starts: this one
is not closed off yet, so they are only for the program.

With a process table of its own the program is a grandchild: this process stays outside and ends as the
program did, and between them stands the first process of the table, with whose end all that is left ends.
"""

from __future__ import annotations

import contextlib
import ctypes
import importlib.util
import json
import os
import resource
import select
import signal
import sys
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import Any, NoReturn

_PR_SET_PDEATHSIG = 1
_PR_SET_NO_NEW_PRIVS = 38
_RLIMIT_LOCKS = 10
_CANNOT_EXECUTE = 126
_ASKED_TO_END = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP)


def main() -> None:
    """Apply the plan and become the program. Ends with 126 and one line of output when that fails."""
    plan: dict[str, Any] = json.loads(sys.argv[1])
    program = sys.argv[2:]
    try:
        prepare(plan)
        groups = [os.open(path, os.O_WRONLY | os.O_CLOEXEC) for path in plan.get("groups", ())]
        shown = plan.get("sandbox")
        environment = variables(plan.get("environment"))
        if shown is None:
            become(program, environment, groups=groups)
        sandbox = load("sandbox/__init__.py")
        # now, while these scripts can still be seen
        seal = (
            partial(load("seccomp.py").refuse, namespaces=shown["namespaces"]) if shown["filter"] else nothing
        )
        if shown["namespaces"]:
            contain(sandbox, shown, program, environment, groups=groups, seal=seal)
        if shown["landlock"]:
            sandbox.drop(None, last=False)
            sandbox.landlock([*shown["system"], *shown["read"]], shown["write"])
        seal()
        become(program, environment, groups=groups)
    except OSError as error:
        fail(program, error)


def variables(descriptor: int | None) -> Mapping[bytes, bytes]:
    """The environment of the program; the descriptor is closed. Raises OSError."""
    if descriptor is None:
        return dict(os.environb)
    with os.fdopen(descriptor, "rb") as file:
        given: dict[str, str] = json.loads(file.read())
    coded = {name: value.encode(errors="surrogateescape") for name, value in given.items()}
    return {name.encode(errors="surrogateescape"): value for name, value in coded.items()}


def nothing() -> None:
    """No filter, where the kernel has none."""


def load(path: str) -> Any:
    """A script beside this one, as a module."""
    name = path.partition("/")[0].removesuffix(".py")
    spec = importlib.util.spec_from_file_location(name, Path(__file__).parent / path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def fail(program: list[str], error: OSError) -> NoReturn:
    """Say why on the program's own output, and end."""
    os.write(2, f"cannot start {os.path.basename(program[0])}: {error.strerror or error}\n".encode())
    os._exit(_CANNOT_EXECUTE)


def contain(
    sandbox: Any,
    shown: dict[str, Any],
    program: list[str],
    environment: Mapping[bytes, bytes],
    *,
    groups: list[int],
    seal: Callable[[], None],
) -> NoReturn:
    """Have the program run in a world of its own, and end as it does."""
    root = os.geteuid() == 0
    for number in _ASKED_TO_END:
        signal.signal(number, signal.SIG_IGN)  # the program is asked itself
    sandbox.unshare(own_user=not root)
    opened = descriptors()
    report, reporter = os.pipe()
    lifeline, held = os.pipe()  # `held` is open as long as this process lives
    pid = os.fork()
    if pid == 0:
        os.close(held)
        try:
            first_process(
                *(sandbox, shown, program, environment),
                groups=groups,
                seal=seal,
                reporter=reporter,
                lifeline=lifeline,
            )
        except OSError as error:
            fail(program, error)
    for descriptor in (*opened, reporter, lifeline):
        os.close(descriptor)  # nothing that belongs to the program is held here
    told = os.read(report, 4)
    _, status = os.waitpid(pid, 0)
    end_like(int.from_bytes(told, "little") if len(told) == 4 else status)


def first_process(
    sandbox: Any,
    shown: dict[str, Any],
    program: list[str],
    environment: Mapping[bytes, bytes],
    *,
    groups: list[int],
    seal: Callable[[], None],
    reporter: int,
    lifeline: int,
) -> NoReturn:
    """Build the world, start the program in it, and take in every orphan until the program has ended."""
    for number in _ASKED_TO_END:
        signal.signal(number, signal.SIG_DFL)  # which the first process of a table never hears
    sandbox.build(shown)
    sandbox.drop(shown["user"], last=not shown["parent"])
    die_with_parent()  # a change of the user would undo it
    if select.select([lifeline], [], [], 0)[0]:
        os._exit(_CANNOT_EXECUTE)
    pid = os.fork()
    if pid == 0:
        try:
            os.setsid()  # a signal to its group stays within
            if shown["landlock"]:
                sandbox.landlock(None if shown["parent"] else ["/"], [*sandbox.EVERYWHERE, *shown["write"]])
            seal()
            become(program, environment, groups=groups)
        except OSError as error:
            fail(program, error)
    for descriptor in descriptors() - {reporter}:
        os.close(descriptor)
    while True:
        ended, status = os.wait()
        if ended == pid:
            os.write(reporter, status.to_bytes(4, "little"))
            os._exit(0)


def become(program: list[str], environment: Mapping[bytes, bytes], *, groups: list[int]) -> NoReturn:
    """Enter the control groups and become the program. Raises OSError."""
    for group in groups:
        os.write(group, b"0")  # names the writer, and spares the kernel a global lock
    os.execve(program[0], program, environment)  # noqa: S606  (a list of arguments, no shell)


def end_like(status: int) -> NoReturn:
    """End as another process did."""
    if os.WIFSIGNALED(status):
        number = os.WTERMSIG(status)
        if number != signal.SIGKILL:
            signal.signal(number, signal.SIG_DFL)
        os.kill(os.getpid(), number)
    os._exit(os.waitstatus_to_exitcode(status) if os.WIFEXITED(status) else _CANNOT_EXECUTE)


def descriptors() -> set[int]:
    """What is open besides the standard three."""
    found = set()
    for descriptor in map(int, os.listdir("/proc/self/fd")):
        with contextlib.suppress(OSError):  # the listing's own is closed by now
            os.fstat(descriptor)
            found.add(descriptor)
    return found - {0, 1, 2}


def die_with_parent() -> None:
    """Have the kernel end this process when its parent ends."""
    ctypes.CDLL(None, use_errno=True).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)


def prepare(plan: dict[str, Any]) -> None:
    """Set what the plan says on this process. Raises OSError when a limit cannot be set."""
    if plan.get("die_with_parent"):
        die_with_parent()
        if os.getppid() != plan["parent"]:  # it ended before the line above
            os._exit(_CANNOT_EXECUTE)
    ctypes.CDLL(None, use_errno=True).prctl(_PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0)
    limit(resource.RLIMIT_CORE, 1)  # no file, and other than at 0 nothing for a program that catches dumps
    # says for all time that Tower started this: the administration socket asks for it (tower.agent.attest)
    limit(_RLIMIT_LOCKS, 0)
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


def limit(kind: int, value: int) -> None:
    """Lower the soft and the hard limit to `value`, or to the hard limit in force when that is lower."""
    _, hard = resource.getrlimit(kind)
    if hard != resource.RLIM_INFINITY:
        value = min(value, hard)
    resource.setrlimit(kind, (value, value))


if __name__ == "__main__":
    main()
