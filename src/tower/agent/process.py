"""`tower agent`: a process that serves the socket of one attempt, on a node where Tower is not.

It is launched with one line of JSON on a descriptor, never with an argument or a variable: the attempt, a
ticket that works once, where Tower is, and where to listen. It prints `ready` once the socket listens; then
the launcher tells the root process of the attempt in a second line. It ends with that process, or at SIGTERM,
or when the launcher goes away before there is one.
"""

from __future__ import annotations

import asyncio
import ctypes
import json
import logging
import os
import resource
import signal
import socket
import sys
from contextlib import AsyncExitStack, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import structlog
import uvloop

from tower.agent.forward import Caller, Forward
from tower.agent.keeper import Assignment, Keeper, RefusedError
from tower.agent.sockets import AgentSockets, Kind
from tower.agent.upstream import Upstream
from tower.clock import SystemClock

READY = "ready"
DONE, NOT_REACHED, REFUSED, MISUSED = 0, 1, 3, 2
"""Exit codes."""

_LARGEST_LINE = 65_536
_START_SECONDS = 30.0
_PR_SET_DUMPABLE = 4
log = structlog.get_logger("tower.agent")


@dataclass(frozen=True, slots=True)
class Launch:
    """The first line: where Tower is and which authorities vouch for it, where to listen, and for whom.

    `health` is a second socket, for whoever runs the agent: it answers health and metrics alone. `listener`
    is a descriptor that listens at `socket` already: a launcher that keeps it, too, can replace an agent that
    died without a call being lost.
    """

    tower: str
    ca: Path | None
    socket: Path
    health: Path | None
    assignment: Assignment
    listener: int | None = None

    @classmethod
    def read(cls, line: bytes) -> Launch:
        """Raises ValueError for anything else."""
        match json.loads(line):
            case {
                "tower": str(tower),
                "attempt": str(attempt),
                "ticket": str(ticket),
                "tower_key": str(tower_key),
                "socket": str(socket),
                **more,
            } if set(more) <= {"ca", "health", "listener"}:
                ca, health, listener = (more.get(name) for name in ("ca", "health", "listener"))
                return cls(
                    tower,
                    Path(str(ca)) if ca else None,
                    Path(socket),
                    Path(str(health)) if health else None,
                    Assignment(attempt, ticket, tower_key),
                    None if listener is None else int(str(listener)),
                )
        raise ValueError("not a launch")


def main(descriptor: int = 0) -> int:
    """Serve until the attempt ends; the exit code."""
    os.umask(0o077)
    hide()
    _speak()
    return uvloop.run(_serve(descriptor))


def hide() -> None:
    """Let nobody of the same user read the memory or the descriptors, and leave no core dump (proc(5))."""
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    ctypes.CDLL(None).prctl(_PR_SET_DUMPABLE, 0, 0, 0, 0)


def _speak() -> None:
    """One JSON object a line on standard error; standard output has the one word for the launcher."""
    structlog.configure(
        processors=[
            structlog.stdlib.add_log_level,
            structlog.processors.TimeStamper(fmt="iso", utc=True),
            structlog.processors.format_exc_info,
            structlog.processors.JSONRenderer(),
        ],
        wrapper_class=structlog.make_filtering_bound_logger(logging.INFO),
        logger_factory=structlog.WriteLoggerFactory(file=sys.stderr),
        cache_logger_on_first_use=True,
    )


async def _serve(descriptor: int) -> int:
    lines = await _lines(descriptor)
    try:
        launch = Launch.read(await lines.readline())
        upstream = Upstream(launch.tower, ca=launch.ca)
        keeper = Keeper(launch.assignment, upstream, clock=SystemClock())
    except (ValueError, OSError) as error:
        log.error("not launched", error=str(error))
        return MISUSED
    stopped = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, stopped.set)
    async with AsyncExitStack() as closing:
        closing.callback(upstream.close)
        closing.callback(keeper.end)
        try:
            await keeper.begin(patience=_START_SECONDS)
        except RefusedError as refused:
            log.error("no token", attempt=launch.assignment.attempt, reason=str(refused))
            return REFUSED
        except OSError as error:
            log.error("no token", attempt=launch.assignment.attempt, reason=str(error))
            return NOT_REACHED
        sockets = AgentSockets(Forward(keeper, upstream), name=Caller)
        closing.push_async_callback(sockets.close_all)
        given = None if launch.listener is None else socket.socket(fileno=launch.listener)
        await sockets.open("attempt", Kind.ATTEMPT, launch.socket, listener=given)
        if launch.health is not None:
            await sockets.open("health", Kind.ADMIN, launch.health)
        keeping = asyncio.create_task(keeper.keep())
        closing.callback(keeping.cancel)
        following = asyncio.create_task(_follow(lines, sockets, stopped))
        closing.callback(following.cancel)
        print(READY, flush=True)  # noqa: T201
        log.info("agent ready", attempt=launch.assignment.attempt)
        await stopped.wait()
        log.info("agent ends", attempt=launch.assignment.attempt)
    return DONE


async def _lines(descriptor: int) -> asyncio.StreamReader:
    reader = asyncio.StreamReader(limit=_LARGEST_LINE)
    pipe = os.fdopen(descriptor, "rb", buffering=0)
    await asyncio.get_running_loop().connect_read_pipe(lambda: asyncio.StreamReaderProtocol(reader), pipe)
    return reader


async def _follow(lines: asyncio.StreamReader, sockets: AgentSockets, stopped: asyncio.Event) -> None:
    """Learn the root process; end with it."""
    try:
        root: dict[str, Any] = json.loads(await lines.readline())
        pid, started = int(root["root"]), int(root["started"])
        watched = os.pidfd_open(pid)
    except (ValueError, KeyError, TypeError, OSError):
        stopped.set()  # the launcher is gone, or the process already
        return
    sockets.register("attempt", pid, started=started)
    ended = asyncio.Event()
    loop = asyncio.get_running_loop()
    loop.add_reader(watched, ended.set)
    try:
        with suppress(asyncio.CancelledError):
            await ended.wait()
    finally:
        loop.remove_reader(watched)
        os.close(watched)
        stopped.set()
