"""The life of one attempt: leased, made ready, started, watched, and its outcome recorded."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from dataclasses import replace
from enum import Enum, auto
from pathlib import Path
from typing import Any

import structlog
from flyteidl2.task import run_pb2, task_definition_pb2

from tower.control.definitions import read_spec
from tower.control.reconcile import hosting, imagebuild, official, outcome, plan
from tower.control.reconcile.ahead import Kind, Ready
from tower.control.reconcile.doubt import TOPIC, Doubt
from tower.control.reconcile.outcome import Failure
from tower.control.reconcile.parts import Handle, Parts
from tower.control.reconcile.plan import Ground
from tower.control.reconcile.recording import Recording, Seen
from tower.control.reconcile.rooms import Room
from tower.errors import Exhausted, Fault, Invalid, NotFound, Precondition, Unsupported
from tower.executors.port import Process, TaskJob
from tower.store import attempts as store
from tower.store import blobs as naming
from tower.store import runs
from tower.store.logs import LogSink, attempt_path
from tower.store.runs import ActionKey, ActionRow

log = structlog.get_logger("tower.reconcile")

_SECONDS_UNTIL_LOGS_SHOW = 1.0
_SECONDS_UNTIL_RUNNING_SHOWS = 0.02


class Why(Enum):
    """Why an attempt is ended before it ends by itself."""

    OVER = auto()
    TIMEOUT = auto()
    DRAIN = auto()
    GONE = auto()
    """Nobody is left for whom it could act."""


class Attempt:
    """One attempt of one action. `run` returns when nothing of it is left."""

    def __init__(
        self, parts: Parts, recording: Recording, key: ActionKey, *, leased: ActionRow | None = None
    ) -> None:
        """`leased` is the row of an action that was stored together with this attempt."""
        self._leased = leased
        self._parts = parts
        self._recording = recording
        self._key = key
        self._why: Why | None = None
        self._doubt = Doubt(parts.watch, self._stir)
        self._wake = asyncio.Event()
        self._timer: Handle | None = None
        self._sink: LogSink | None = None
        self._shown: Handle | None = None
        self._starting: Handle | None = None
        self._began_at: float | None = None
        self._writes: set[asyncio.Task[None]] = set()
        self._process: Process | None = None
        self._leaving: asyncio.Task[None] | None = None
        self._id = ""
        self._number = 0

    def drain(self) -> None:
        """Stop the attempt; its action goes back to the queue."""
        self._why = self._why or Why.DRAIN
        self._wake.set()

    async def run(self) -> None:
        """Lease the action and see its attempt through; nothing happens when it is not queued any more."""
        row = self._leased or self._parts.db.read_now(lambda reader: runs.get(reader, self._key))
        if row is None or row.phase.terminal:
            return
        self._number = row.attempts if row is self._leased else row.attempts + 1
        self._id = "/".join((*self._key, str(self._number)))
        with (
            self._parts.events.subscribe(("action", *self._key)) as self._wake,
            self._parts.events.joined(TOPIC, self._doubt),
        ):
            leasing = asyncio.ensure_future(self._lease(row))
            working = asyncio.ensure_future(self._work(row, leasing))
            working.add_done_callback(lambda _: self._wake.set())
            try:
                await self._watch(working)
            finally:
                leased = await leasing
                self._cancel_timers()
            if leased is None:
                await asyncio.wait([working])
                return
            try:
                await self._conclude(leased, working)
            finally:
                if self._leaving is not None:
                    await self._leaving

    async def _lease(self, row: ActionRow) -> ActionRow | None:
        return row if row is self._leased else await self._recording.lease(row)

    async def _watch(self, working: asyncio.Future[bytes | Failure | None]) -> None:
        """Wait for the end of the work, or for a reason to end it; then the reason is in `_why`."""
        while not working.done():
            self._wake.clear()
            if self._why is None and self._over():
                self._why = Why.OVER
            if self._why is None and await self._doubt.confirmed(self._id):
                self._why = self._why or Why.GONE
            if self._why is not None:
                return
            await self._wake.wait()

    def _stir(self) -> None:
        self._wake.set()

    def _over(self) -> bool:
        phase = self._parts.db.read_now(lambda reader: store.phase(reader, self._key))
        return phase is None or phase.terminal

    async def _conclude(self, row: ActionRow, working: asyncio.Future[bytes | Failure | None]) -> None:
        why = None if working.done() else self._why
        if why is Why.TIMEOUT:
            # written before the process is stopped: from here on nothing that it does counts
            await self._recording.timed_out(row, seconds=row.run_timeout or 0.0, seen=self._seen)
        elif why is Why.GONE:
            failure = Failure(self._doubt.gone, "NotPermitted", user=True, retry=False)
            await self._recording.failed(row, failure, seen=self._seen)
        await self._parts.agent.close(self._id)
        if why is not None:
            working.cancel()
        await asyncio.wait([working])
        self._close_log()
        self._parts.redaction.drop(self._id)
        if why is Why.OVER:
            await self._recording.over(row, seen=self._seen)
        elif why is Why.DRAIN:
            await self._recording.stopped(row, seen=self._seen)
        elif why is None:
            await self._record(row, self._result(working))

    def _result(self, working: asyncio.Future[bytes | Failure | None]) -> bytes | Failure:
        try:
            result = working.result()
        except (Invalid, Unsupported, Precondition, NotFound, Exhausted) as fault:
            log.info("attempt cannot start", attempt=self._id, message=fault.message, cause=fault.cause)
            return Failure(fault.public, type(fault).__name__, user=True, retry=False)
        except Fault as fault:
            log.warning("attempt did not start", attempt=self._id, message=fault.message, cause=fault.cause)
            return Failure(fault.public, type(fault).__name__, user=False)
        except (Exception, asyncio.CancelledError):
            reference = self._parts.clock.name("e")
            log.exception("attempt broke", attempt=self._id, reference=reference)
            return Failure(f"Tower failed at this attempt (reference {reference}).", "Internal", user=False)
        assert result is not None
        return result

    async def _record(self, row: ActionRow, result: bytes | Failure) -> None:
        if isinstance(result, Failure):
            await self._recording.failed(row, result, seen=self._seen)
            return
        place = f"outputs/{self._id}"
        try:
            outputs = await self._parts.blobs.put_with(f"{place}/{outcome.OUTPUTS}", result)
        except (OSError, Fault) as error:
            log.warning("outputs not stored", attempt=self._id, error=str(error))
            failure = Failure("The outputs could not be stored.", "Storage", user=False)
            await self._recording.failed(row, failure, seen=self._seen)
            return
        await self._recording.succeeded(row, outputs_uri=naming.uri(place), outputs=outputs, seen=self._seen)

    async def _work(
        self, row: ActionRow, leasing: asyncio.Future[ActionRow | None]
    ) -> bytes | Failure | None:
        """Everything up to the outputs or the failure; None when the action could not be leased.

        The commit of the lease and the preparation go on at the same time; nothing starts before both.
        """
        await asyncio.sleep(0)  # let the lease reach the writer first
        ground = self._parts.ground()
        declared = plan.task(self._spec(row), run_pb2.RunSpec.FromString(row.run_spec), ground)
        if declared.builds_image:
            return await self._make_image(row, leasing)
        image = await self._parts.images.ready(declared.image, progress=self._say)
        bundle = None
        if not declared.command:
            bundle = await self._parts.bundles.ready(declared.bundle, row.code_digest)
        inputs = await self._parts.inputs.read(row)
        leased = await self._permitted(leasing)
        if not isinstance(leased, ActionRow):
            return leased
        kind = hosting.kind(declared, ground, image=image, bundle=bundle, code=row.code_digest)
        # the code of one whose variables somebody chose is imported nowhere else
        ready = None if declared.chosen else self._ahead(kind)
        room = self._parts.rooms.make(beside=kind.beside) if ready is None else ready.room
        try:
            job = hosting.job(
                self._id, leased, declared, kind=kind, room=room, number=self._number, name=self._name(leased)
            )
            if declared.command:
                return await self._official(leased, job, ground, inputs=inputs)
            self._parts.rooms.put(room, "inputs.pb", inputs)
            return await self._host(leased, job, results=room.directory, kind=kind, ready=ready)
        finally:
            self._leaving = asyncio.ensure_future(self._leave(room, ready))

    async def _leave(self, room: Room, ready: Ready | None) -> None:
        """See the process out, whose result is known, and remove its room. One that lingers is ended."""
        if self._process is not None:
            try:
                await asyncio.wait_for(self._process.wait(), self._parts.grace)
            except TimeoutError:
                log.info("the process did not end after its result", attempt=self._id)
                await self._process.stop(0.0)
        if ready is not None and self._parts.ahead is not None:
            self._parts.ahead.release(ready)
        self._parts.rooms.remove(room)

    async def _official(
        self, row: ActionRow, job: TaskJob, ground: Ground, *, inputs: bytes
    ) -> bytes | Failure:
        """Host a task of the official SDK by its own runtime."""
        spec, bundles, rawdata = self._spec(row), self._parts.bundles, self._parts.rawdata
        job = await official.prepare(
            job, spec, row=row, ground=ground, inputs=inputs, bundles=bundles, rawdata=rawdata
        )
        folder = job.directory / official.FOLDER
        self._parts.handovers.open(self._id, folder)
        try:
            result = await self._host(row, job, results=folder)
        finally:
            self._parts.handovers.close(self._id)
        if isinstance(result, Failure):
            return result
        return await official.results(result, job, row=row, rawdata=rawdata)

    async def _make_image(
        self, row: ActionRow, leasing: asyncio.Future[ActionRow | None]
    ) -> bytes | Failure | None:
        leased = await self._permitted(leasing)
        if not isinstance(leased, ActionRow):
            return leased
        self._began_at = self._parts.clock.now()
        self._show()
        return await imagebuild.make(
            await self._parts.inputs.read(row),
            project=row.project,
            domain=row.domain,
            blobs=self._parts.blobs,
            images=self._parts.images,
            say=self._say,
        )

    async def _permitted(self, leasing: asyncio.Future[ActionRow | None]) -> ActionRow | Failure | None:
        """The leased action when it may still run; None when it could not be leased."""
        leased = await asyncio.shield(leasing)
        if leased is None:
            return None
        refusal = await self._parts.permit(leased, self._number)
        if refusal:
            return Failure(refusal, "NotPermitted", user=True, retry=False)
        return leased

    def _ahead(self, kind: Kind) -> Ready | None:
        return None if self._parts.ahead is None else self._parts.ahead.take(kind)

    async def _host(
        self,
        row: ActionRow,
        job: TaskJob,
        *,
        results: Path,
        kind: Kind | None = None,
        ready: Ready | None = None,
    ) -> bytes | Failure:
        """Run the process until its result is known; it may still be about to end, but is heard no more."""
        listener = None if ready is None else ready.listener
        await self._parts.agent.open(self._id, "attempt", job.agent_socket, listener=listener)
        self._arm(row.run_timeout)
        process = await self._parts.executor.start_task(job, on_output=self._output, on_start=self._started)
        self._process = process
        try:
            if kind is not None and not job.alone and self._parts.ahead is not None:
                self._parts.ahead.expect(kind, task=job.task)
            exit_ = await process.finished()
        except asyncio.CancelledError:
            await process.stop(self._parts.grace)
            raise
        await self._parts.agent.close(self._id)
        return await self._confidential(outcome.read(results, exit_, limits=job.limits))

    async def _confidential(self, result: bytes | Failure) -> bytes | Failure:
        """A result without what was given to the attempt in confidence: it would be kept, and seen (T31)."""
        redaction = self._parts.redaction
        if isinstance(result, Failure):
            message = redaction.hide(self._id, result.message.encode(errors="replace"))
            return replace(result, message=message.decode(errors="replace"))
        if await redaction.found(self._id, result):
            return Failure(
                "The result holds a secret, and is not kept.", "SecretInOutputs", user=True, retry=False
            )
        return result

    def _spec(self, row: ActionRow) -> task_definition_pb2.TaskSpec:
        if row.spec is not None:
            return read_spec(row.spec)
        key = (row.task_project, row.task_domain, row.task_name)
        definition = self._parts.definitions.find(key, row.task_version)
        if definition is None:
            raise NotFound(f"The task {row.task_name} at version {row.task_version} is gone.")
        return definition.spec

    def _name(self, row: ActionRow) -> str:
        """What the person is called for whom it runs."""
        people = self._parts.db.read_now(lambda reader: runs.people(reader, [row.executed_by]))
        known = people.get(row.executed_by)
        return "" if known is None else known.name

    def _started(self, pid: int) -> None:
        self._parts.agent.register(self._id, pid)
        self._began_at = self._parts.clock.now()
        # most ends come before this: then the end and the start are one commit
        self._starting = asyncio.get_running_loop().call_later(_SECONDS_UNTIL_RUNNING_SHOWS, self._show)

    def _show(self) -> None:
        at = self._began_at or 0.0
        self._in_background(self._recording.started(self._key, self._number, at=at))

    def _arm(self, seconds: float | None) -> None:
        if not seconds:
            return
        deadline = self._parts.clock.now() + seconds

        def check() -> None:
            left = deadline - self._parts.clock.now()
            if left > 0:
                self._timer = self._parts.timers.later(left, check)
            else:
                self._why = self._why or Why.TIMEOUT
                self._wake.set()

        self._timer = self._parts.timers.later(seconds, check)

    def _cancel_timers(self) -> None:
        for timer in (self._timer, self._shown, self._starting):
            if timer is not None:
                timer.cancel()

    def _say(self, line: str) -> None:
        """A line about the making of the image, in the attempt's log."""
        self._output(f"[image] {line}\n".encode())

    def _output(self, chunk: bytes) -> None:
        if self._sink is None:
            topic = ("log", self._id)
            self._sink = LogSink(
                attempt_path(self._parts.settings.home, self._id),
                self._parts.settings.max_log,
                now=self._parts.clock.now,
                changed=lambda: self._parts.events.publish(topic),
                hide=lambda line: self._parts.redaction.hide(self._id, line),
                whole=lambda: self._parts.redaction.shown(self._id),
            )
            self._shown = self._parts.timers.later(_SECONDS_UNTIL_LOGS_SHOW, self._show_logs)
        self._sink.write(chunk)

    def _show_logs(self) -> None:
        self._in_background(self._recording.has_logs(self._key, self._number))

    def _close_log(self) -> None:
        if self._sink is not None:
            self._sink.close()

    @property
    def _seen(self) -> Seen:
        return Seen(
            has_logs=self._sink is not None and self._sink.lines > 0,
            started_at=self._began_at,
        )

    def _in_background(self, write: Coroutine[Any, Any, None]) -> None:
        task = asyncio.ensure_future(write)
        self._writes.add(task)
        task.add_done_callback(self._written)

    def _written(self, task: asyncio.Task[None]) -> None:
        self._writes.discard(task)
        if not task.cancelled() and task.exception() is not None:
            log.warning("a step was not recorded", attempt=self._id, error=str(task.exception()))
