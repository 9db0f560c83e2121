"""What an executor is: it starts attempts and apps in their environment and tells how they ended."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol


@dataclass(frozen=True, slots=True)
class Limits:
    """What a process may use. Memory in bytes, cpu in cores, output in bytes; None is no limit."""

    memory: int | None = None
    cpu: float | None = None
    output: int = 16 * 1024 * 1024
    processes: int = 512


@dataclass(frozen=True, slots=True)
class TaskJob:
    """One attempt. It holds ids, paths and public facts; never a credential.

    `python` is the interpreter of the image environment, `bundle` the unpacked code (None: no bundle),
    `directory` the attempt's private directory: it holds `inputs.pb`, and the child leaves `outputs.pb` or
    `error.pb` there. `agent_socket` is where the child finds its identity. A `command` is a program with its
    arguments that is started there instead of this project's runtime.
    """

    id: str
    python: Path
    bundle: Path | None
    module: str
    task: str
    directory: Path
    agent_socket: Path
    env: Mapping[str, str] = field(default_factory=dict)
    limits: Limits = field(default_factory=Limits)
    command: tuple[str, ...] = ()
    needs: tuple[Path, ...] = ()
    """What it must be able to read besides its interpreter's environment and its bundle."""
    links: Mapping[str, str] = field(default_factory=dict)
    """Where its `command` finds links in system folders, and to what: with a view of files of its own."""
    alone: bool = False
    """Whether its code must not be imported where that of other attempts is: its variables are its own."""


@dataclass(frozen=True, slots=True)
class AppJob:
    """One app process.

    `app_socket` is the unix socket it must listen on, `command` replaces the built-in server.
    """

    id: str
    python: Path
    bundle: Path | None
    module: str
    app: str
    directory: Path
    app_socket: Path
    agent_socket: Path
    command: tuple[str, ...] = ()
    env: Mapping[str, str] = field(default_factory=dict)
    limits: Limits = field(default_factory=Limits)
    needs: tuple[Path, ...] = ()
    secrets: bool = False
    """Whether it declares secrets: before a command takes over, they are asked for in its place."""


@dataclass(frozen=True, slots=True)
class Exit:
    """How a process ended: its exit code, or the signal that ended it; `out_of_memory` when the limit did."""

    code: int
    signal: int | None = None
    out_of_memory: bool = False
    output_truncated: bool = False


OnOutput = Callable[[bytes], None]
"""Called in the event loop with each chunk of standard output and standard error, in order."""

OnStart = Callable[[int], None]
"""Called with the process id of the attempt or app before its own code runs."""


class Process(Protocol):
    """A started attempt or app."""

    pid: int

    async def wait(self) -> Exit:
        """Wait for the end; the same answer every time."""

    async def finished(self) -> Exit:
        """Wait until its result is written, by its own word, or for the end, whichever comes first.

        All that it printed until then has been handed over, and nothing that it prints later will be. It may
        still be there: `wait` for that, or `stop` it.
        """

    async def stop(self, grace: float) -> None:
        """Ask the whole process tree to end, then end it after `grace` seconds."""


class Executor(Protocol):
    """Starts work. One implementation per place."""

    async def start_task(self, job: TaskJob, *, on_output: OnOutput, on_start: OnStart) -> Process:
        """Start one attempt. Raises Fault when the process cannot be started."""

    async def start_app(self, job: AppJob, *, on_output: OnOutput, on_start: OnStart) -> Process:
        """Start one app process. Raises Fault when the process cannot be started."""

    async def close(self) -> None:
        """Stop all that was started here."""


Opener = Callable[[str, Path], Awaitable[None]]
"""Opens the agent socket of a workload id at a path."""
