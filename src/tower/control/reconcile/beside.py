"""Attempts served by an agent process each, as on another node; apps stay with Tower's own sockets."""

from __future__ import annotations

import asyncio
import json
import os
import socket
import sys
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol

import structlog

from tower.control.reconcile.parts import Agent
from tower.errors import Unavailable

_START_SECONDS = 40.0
_END_SECONDS = 2.0
_MOST_STARTS = 5
_READY = b"ready\n"
log = structlog.get_logger("tower.reconcile")


class Ticketing(Protocol):
    """Gives tickets to agents; `tower.control.agents.Agents` does."""

    @property
    def public(self) -> str:
        """Tower's half of what agents agree on."""

    def ticket(self, attempt_id: str) -> str:
        """What the agent of an attempt is launched with."""

    async def replace(self, attempt_id: str) -> str:
        """A ticket for another agent of an attempt whose agent died."""

    async def forget(self, attempt_id: str) -> None:
        """The attempt is over."""


@dataclass(frozen=True, slots=True)
class Reach:
    """Where an agent finds Tower: its URL, and the authorities that vouch for it (None: the system's)."""

    url: str
    ca: Path | None = None


@dataclass(slots=True)
class _Served:
    """An attempt with its agent. The listener is kept here, too: calls wait while an agent is replaced."""

    listener: socket.socket
    path: Path
    process: asyncio.subprocess.Process
    starts: int = 1
    root: bytes = b""
    watching: asyncio.Task[None] | None = field(default=None, repr=False)


class BesideAgents:
    """An `Agent` of the loops: starts `tower agent` for each attempt and tells it the process it serves."""

    def __init__(
        self,
        inside: Agent,
        *,
        ticketing: Ticketing,
        reach: Reach,
        listening: Callable[[Path], socket.socket],
        python: str = sys.executable,
    ) -> None:
        """`inside` serves whatever is no attempt; `listening` makes a private socket at a path."""
        self._inside = inside
        self._ticketing = ticketing
        self._reach = reach
        self._listening = listening
        self._python = python
        self._served: dict[str, _Served] = {}

    async def open(
        self,
        key: str,
        kind: str,
        path: Path,
        /,
        *,
        workload_id: str = "",
        listener: socket.socket | None = None,
    ) -> None:
        """Start the agent of an attempt and wait until it listens. Raises Unavailable, OSError."""
        if kind != "attempt":
            await self._inside.open(key, kind, path, workload_id=workload_id, listener=listener)
            return
        listener = listener or self._listening(path)
        try:
            process = await self._start(key, path, listener, ticket=self._ticketing.ticket(key))
        except BaseException:
            _remove(listener, path)
            raise
        served = self._served[key] = _Served(listener, path, process)
        served.watching = asyncio.create_task(self._watch(key, served))

    def register(self, key: str, pid: int, /) -> None:
        """Tell the agent which process it serves."""
        served = self._served.get(key)
        if served is None:
            self._inside.register(key, pid)
            return
        with suppress(OSError, ValueError):
            stat = Path(f"/proc/{pid}/stat").read_bytes()
            started = int(stat[stat.rindex(b")") + 2 :].split()[19])
            served.root = json.dumps({"root": pid, "started": started}).encode() + b"\n"
            _tell(served.process, served.root)

    async def close(self, key: str, /) -> None:
        """End the agent of an attempt: what it held is worth nothing, and its socket is gone."""
        served = self._served.pop(key, None)
        if served is None:
            await self._inside.close(key)
            return
        if served.watching is not None:
            served.watching.cancel()
            await asyncio.wait([served.watching])
        _remove(served.listener, served.path)
        await _end(served.process)
        await self._ticketing.forget(key)

    async def _start(
        self, key: str, path: Path, listener: socket.socket, *, ticket: str
    ) -> asyncio.subprocess.Process:
        descriptor = listener.fileno()
        launch = {
            "tower": self._reach.url,
            "ca": None if self._reach.ca is None else str(self._reach.ca),
            "attempt": key,
            "ticket": ticket,
            "tower_key": self._ticketing.public,
            "socket": str(path),
            "health": str(path.with_name("health")),
            "listener": descriptor,
        }
        process = await asyncio.create_subprocess_exec(
            *(self._python, "-P", "-m", "tower.agent"),
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
            env=_environment(),
            cwd="/",
            start_new_session=True,
            pass_fds=(descriptor,),
        )
        _tell(process, json.dumps(launch).encode() + b"\n")
        answer = b""
        try:
            assert process.stdout is not None
            with suppress(TimeoutError, ConnectionError):
                async with asyncio.timeout(_START_SECONDS):
                    answer = await process.stdout.readline()
        except BaseException:
            await _end(process)
            raise
        if answer != _READY:
            await _end(process)
            cause = f"exit code {process.returncode}"
            raise Unavailable("The agent of the attempt did not start.", cause=cause)
        return process

    async def _watch(self, key: str, served: _Served) -> None:
        """Replace an agent that died while its attempt runs; the key of the dead one is refused then."""
        while True:
            await served.process.wait()
            if served.process.returncode == 0 or served.starts >= _MOST_STARTS:
                return  # the attempt's process has ended; or there is no use in trying again
            served.starts += 1
            log.warning("agent replaced", attempt=key, exit_code=served.process.returncode)
            try:
                ticket = await self._ticketing.replace(key)
                served.process = await self._start(key, served.path, served.listener, ticket=ticket)
            except Unavailable as fault:
                log.warning("agent not replaced", attempt=key, cause=fault.cause)
                continue
            if served.root:
                _tell(served.process, served.root)


def _remove(listener: socket.socket, path: Path) -> None:
    listener.close()
    path.unlink(missing_ok=True)


def _tell(process: asyncio.subprocess.Process, line: bytes) -> None:
    assert process.stdin is not None
    with suppress(OSError, RuntimeError):  # it is gone already
        process.stdin.write(line)


async def _end(process: asyncio.subprocess.Process) -> None:
    with suppress(ProcessLookupError):
        process.terminate()
    try:
        async with asyncio.timeout(_END_SECONDS):
            await process.wait()
    except TimeoutError:
        log.warning("agent killed", pid=process.pid)
        with suppress(ProcessLookupError):
            process.kill()
        await process.wait()


def _environment() -> dict[str, str]:
    """Nothing of Tower's own but where Python finds its modules."""
    kept = {name: os.environ[name] for name in ("PYTHONPATH", "LD_LIBRARY_PATH") if name in os.environ}
    return {"PATH": "/usr/local/bin:/usr/bin:/bin", "LANG": "C.UTF-8", **kept}
