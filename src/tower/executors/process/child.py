"""A direct child of Tower: started through `launch` in a session of its own, its end seen by pidfd."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from types import MappingProxyType

from tower.errors import Unavailable
from tower.executors.process.isolation import Shown

_LAUNCHER = Path(__file__).with_name("launch.py")
_LAUNCHERS_OWN = MappingProxyType({"PATH": "/usr/local/bin:/usr/bin:/bin", "LANG": "C.UTF-8"})
"""The environment of the launcher, which runs as Tower does: nothing that a user chose is in it."""


@dataclass(frozen=True, slots=True)
class Plan:
    """What `launch` sets before the program runs. None leaves a limit as it is."""

    die_with_parent: bool = True
    groups: tuple[str, ...] = ()
    memory: int | None = None
    processes: int | None = None
    open_files: int | None = 4096
    cpus: tuple[int, ...] = ()
    sandbox: Shown | None = None


class Child:
    """A started process. `on_exit` is called once in the event loop with the wait status."""

    def __init__(
        self,
        arguments: Sequence[str],
        *,
        environment: Mapping[str, str],
        directory: Path,
        plan: Plan,
        output: int,
        on_exit: Callable[[int], None],
        given: bytes = b"",
        keep: tuple[int, ...] = (),
    ) -> None:
        """Start `arguments` with exactly `environment`; `given` is its standard input. Raises Unavailable."""
        opened: list[int] = []
        self._descriptor = -1
        try:
            opened.append(variables := _memory_file(json.dumps(dict(environment)).encode()))
            opened.append(standard_input := _memory_file(given))
            text = json.dumps(asdict(plan) | {"parent": os.getpid(), "environment": variables})
            # the pid stays the launcher's, so a signal or a limit can never hit the wrong program
            self._popen = subprocess.Popen(
                [sys.executable, "-I", "-S", str(_LAUNCHER), text, *arguments],
                stdin=standard_input,
                stdout=output,
                stderr=output,
                cwd=directory,
                env=_LAUNCHERS_OWN,
                pass_fds=(*keep, variables),
                start_new_session=True,
            )
        except OSError as error:
            raise Unavailable("The process could not be started.", cause=str(error)) from error
        finally:
            for descriptor in opened:
                os.close(descriptor)
        self.pid = self._popen.pid
        self._on_exit = on_exit
        self._loop = asyncio.get_running_loop()
        self._ended = self._loop.create_future()
        try:
            self._descriptor = os.pidfd_open(self.pid)
            self._loop.add_reader(self._descriptor, self._exited)
        except OSError as error:
            self._give_up()
            raise Unavailable("The process could not be started.", cause=str(error)) from error

    async def wait(self) -> None:
        """Wait for the end."""
        await asyncio.shield(self._ended)

    def _give_up(self) -> None:
        """End a process whose end nobody would hear of; with the launcher goes all that is in its table."""
        if self._descriptor >= 0:
            os.close(self._descriptor)
        with suppress(ProcessLookupError):
            os.killpg(self.pid, signal.SIGKILL)
        self._popen.wait()

    def _exited(self) -> None:
        code = self._popen.poll()
        if code is None:
            return
        self._loop.remove_reader(self._descriptor)
        os.close(self._descriptor)
        if not self._ended.done():
            self._ended.set_result(None)
        self._on_exit(-code if code < 0 else code << 8)


def _memory_file(content: bytes) -> int:
    """A descriptor that reads `content`, or nothing."""
    if not content:
        return os.open(os.devnull, os.O_RDONLY | os.O_CLOEXEC)
    descriptor = os.memfd_create("start", os.MFD_CLOEXEC)
    try:
        with os.fdopen(descriptor, "wb", closefd=False) as file:
            file.write(content)
        os.lseek(descriptor, 0, os.SEEK_SET)
    except OSError:
        os.close(descriptor)
        raise
    return descriptor
