"""One process of an app: made ready, started, asked whether it answers, ended."""

from __future__ import annotations

import asyncio
import json
import shutil
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from flyteidl2.app import app_definition_pb2

from tower.control.reconcile import plan
from tower.control.reconcile.parts import Parts
from tower.control.reconcile.rooms import Room, pin
from tower.errors import Fault, Precondition
from tower.executors.port import AppJob, Exit, Process
from tower.store.apps import AppRow

_PROBE = b"GET / HTTP/1.1\r\nhost: app.internal\r\nuser-agent: tower-readiness\r\nconnection: close\r\n\r\n"
_SECONDS_TO_ANSWER = 5.0
_FIRST_PAUSE = 0.01
_LONGEST_PAUSE = 0.2
_UNBOUNDED = 1 << 62
_SOCKET = "$FLYTE_APP_SOCKET"
"""In a command of the user's own it stands for the path to listen on: there is no shell to put it in."""


@dataclass(eq=False, slots=True)
class AppProcess:
    """A process that answered. `users` counts the requests that were sent its way and are not over."""

    revision: int
    socket: Path
    process: Process
    room: Room
    key: str
    ended: asyncio.Task[Exit]
    began_at: float
    users: int = 0
    unused: asyncio.Event = field(default_factory=asyncio.Event)


class AppRunner:
    """Starts and ends processes of apps; what should run when is decided by `AppKeeper`."""

    def __init__(self, parts: Parts, *, ready_seconds: float = 120.0, grace: float = 17.0) -> None:
        """A process has `ready_seconds` to answer for the first time, and `grace` to end by itself."""
        self._parts = parts
        self._ready_seconds = ready_seconds
        self._grace = grace
        self._serial = 0

    async def start(self, row: AppRow, *, output: Callable[[bytes], None]) -> AppProcess:
        """Start the app's revision; returns when it answers. Raises Fault; then nothing of it is left."""
        ground = self._parts.ground()
        declared = plan.app(app_definition_pb2.App.FromString(row.spec), ground)
        image = await self._parts.images.ready(
            declared.image, progress=lambda line: output(f"[image] {line}\n".encode())
        )
        bundle = await self._parts.bundles.ready(declared.bundle, row.code_digest)
        self._serial += 1
        key = f"{row.id}@{row.revision}.{self._serial}"
        room = self._parts.rooms.make(beside=key)
        if declared.command and bundle is not None:
            # a command of the user's own expects its files in the working directory, as in a container
            await asyncio.to_thread(shutil.copytree, bundle, room.directory, dirs_exist_ok=True)
            room.directory.chmod(0o700)  # it got the bundle's, which everybody may read
        own = {
            "FLYTE_INTERNAL_EXECUTION_PROJECT": row.project,
            "FLYTE_INTERNAL_EXECUTION_DOMAIN": row.domain,
            "FLYTE_AGENT_SOCKET": str(room.agent_socket),
            "FLYTE_APP_SOCKET": str(room.app_socket),
            "FLYTE_APP_NAME": row.name,
            "TMPDIR": str(room.temporary),
        }
        ticket = ""
        if declared.secrets:
            ticket = self._parts.starting.expect(row)
            own["FLYTE_ATTEMPT_FACTS"] = json.dumps({"secrets": str(room.secrets), "ticket": ticket})
        if declared.command:
            own["PYTHONPATH"] = str(room.directory)
        job = AppJob(
            id=key,
            python=image.python,
            bundle=bundle,
            module=declared.module,
            app=declared.name,
            directory=room.directory,
            app_socket=room.app_socket,
            agent_socket=room.agent_socket,
            command=tuple(word.replace(_SOCKET, str(room.app_socket)) for word in declared.command),
            env=plan.process_env(declared, ground, image_env=image.env, python=image.python, own=own),
            # the log turns over by itself: an app may speak for years
            limits=replace(declared.limits, output=_UNBOUNDED),
            needs=image.needs,
            secrets=declared.secrets,
        )
        process: Process | None = None
        try:
            await self._parts.agent.open(key, "app", room.agent_socket, workload_id=row.id)
            process = await self._parts.executor.start_app(
                job, on_output=output, on_start=lambda pid: self._parts.agent.register(key, pid)
            )
            ended = asyncio.ensure_future(process.wait())
            socket = await self._answers(room, ended)
        except BaseException:
            if process is not None:
                await process.stop(0.0)
            await self._clear(key, room)
            raise
        finally:
            self._parts.starting.forget(ticket)
        return AppProcess(
            revision=row.revision,
            socket=socket,
            process=process,
            room=room,
            key=key,
            ended=ended,
            began_at=self._parts.clock.now(),
        )

    async def stop(self, running: AppProcess, *, grace: float | None = None) -> None:
        """End a process and clear what it had."""
        await running.process.stop(self._grace if grace is None else grace)
        await self._clear(running.key, running.room)

    async def _clear(self, key: str, room: Room) -> None:
        await self._parts.agent.close(key)
        self._parts.rooms.remove(room)

    async def _answers(self, room: Room, ended: asyncio.Future[Exit]) -> Path:
        """The socket on which the process answers. Raises Precondition when it ends first or is too slow."""
        asking = asyncio.ensure_future(_until_answered(room))
        try:
            either: set[asyncio.Future[Any]] = {asking, ended}
            await asyncio.wait(either, timeout=self._ready_seconds, return_when=asyncio.FIRST_COMPLETED)
            if asking.done() and not ended.done():
                return asking.result()
        finally:
            asking.cancel()
        if ended.done():
            raise Precondition(f"The app {describe(ended.result())} before it answered.")
        raise Precondition(f"The app did not answer within {self._ready_seconds:g} seconds.")


def describe(exit_: Exit) -> str:
    """How a process ended, as the end of a sentence."""
    if exit_.out_of_memory:
        return "needed more memory than its limit"
    if exit_.signal is not None:
        return f"was ended by signal {exit_.signal}"
    return f"ended with exit status {exit_.code}"


def reason(fault: BaseException) -> str:
    """What to show of a failed start."""
    return fault.public if isinstance(fault, Fault) else "Tower could not start the app."


async def _until_answered(room: Room) -> Path:
    pause = _FIRST_PAUSE
    while True:
        with suppress(OSError, TimeoutError):
            async with asyncio.timeout(_SECONDS_TO_ANSWER):
                socket = pin(room)
                if await _ask(socket):
                    return socket
        # nobody tells when a socket begins to listen
        await asyncio.sleep(pause)
        pause = min(_LONGEST_PAUSE, pause * 1.5)


async def _ask(socket: Path) -> bool:
    reader, writer = await asyncio.open_unix_connection(str(socket))
    try:
        writer.write(_PROBE)
        return (await reader.readline()).startswith(b"HTTP/1.")
    finally:
        writer.close()
        with suppress(OSError):
            await writer.wait_closed()
