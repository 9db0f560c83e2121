"""Attempts served by an agent process each, as on another node; apps stay with Tower's own sockets."""

from __future__ import annotations

import asyncio
import json
import os
import sys
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import structlog

from tower.control.reconcile.parts import Agent
from tower.errors import Unavailable

_START_SECONDS = 40.0
_END_SECONDS = 2.0
_READY = b"ready\n"
log = structlog.get_logger("tower.reconcile")


class Ticketing(Protocol):
    """Gives tickets to agents; `tower.control.agents.Agents` does."""

    @property
    def public(self) -> str:
        """Tower's half of what agents agree on."""

    def ticket(self, attempt_id: str) -> str:
        """What the agent of an attempt is launched with."""

    async def forget(self, attempt_id: str) -> None:
        """The attempt is over."""


@dataclass(frozen=True, slots=True)
class Reach:
    """Where an agent finds Tower: its URL, and the authorities that vouch for it (None: the system's)."""

    url: str
    ca: Path | None = None


class BesideAgents:
    """An `Agent` of the loops: starts `tower agent` for each attempt and tells it the process it serves."""

    def __init__(
        self, inside: Agent, *, ticketing: Ticketing, reach: Reach, python: str = sys.executable
    ) -> None:
        """`inside` serves whatever is no attempt."""
        self._inside = inside
        self._ticketing = ticketing
        self._reach = reach
        self._python = python
        self._running: dict[str, asyncio.subprocess.Process] = {}

    async def open(self, key: str, kind: str, path: Path, /, *, workload_id: str = "") -> None:
        """Start the agent of an attempt and wait until it listens. Raises Unavailable."""
        if kind != "attempt":
            await self._inside.open(key, kind, path, workload_id=workload_id)
            return
        launch = {
            "tower": self._reach.url,
            "ca": None if self._reach.ca is None else str(self._reach.ca),
            "attempt": workload_id or key,
            "ticket": self._ticketing.ticket(workload_id or key),
            "tower_key": self._ticketing.public,
            "socket": str(path),
            "health": str(path.with_name("health")),
        }
        process = await asyncio.create_subprocess_exec(
            *(self._python, "-P", "-m", "tower.agent"),
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
            env=_environment(),
            cwd="/",
            start_new_session=True,
        )
        self._running[key] = process
        assert process.stdin is not None
        assert process.stdout is not None
        try:
            process.stdin.write(json.dumps(launch).encode() + b"\n")
            async with asyncio.timeout(_START_SECONDS):
                answer = await process.stdout.readline()
        except (TimeoutError, ConnectionError):
            answer = b""
        except BaseException:
            await self.close(key)
            raise
        if answer != _READY:
            await self.close(key)
            cause = f"exit code {process.returncode}"
            raise Unavailable("The agent of the attempt did not start.", cause=cause)

    def register(self, key: str, pid: int, /) -> None:
        """Tell the agent which process it serves."""
        process = self._running.get(key)
        if process is None or process.stdin is None:
            self._inside.register(key, pid)
            return
        with suppress(OSError, ValueError):
            stat = Path(f"/proc/{pid}/stat").read_bytes()
            started = int(stat[stat.rindex(b")") + 2 :].split()[19])
            process.stdin.write(json.dumps({"root": pid, "started": started}).encode() + b"\n")

    async def close(self, key: str, /) -> None:
        """End the agent of an attempt: what it held is worth nothing, and its socket is gone."""
        process = self._running.pop(key, None)
        if process is None:
            await self._inside.close(key)
            return
        with suppress(ProcessLookupError):
            process.terminate()
        try:
            async with asyncio.timeout(_END_SECONDS):
                await process.wait()
        except TimeoutError:
            log.warning("agent killed", attempt=key)
            with suppress(ProcessLookupError):
                process.kill()
            await process.wait()
        await self._ticketing.forget(key)


def _environment() -> dict[str, str]:
    """Nothing of Tower's own but where Python finds its modules."""
    kept = {name: os.environ[name] for name in ("PYTHONPATH", "LD_LIBRARY_PATH") if name in os.environ}
    return {"PATH": "/usr/local/bin:/usr/bin:/bin", "LANG": "C.UTF-8", **kept}
