"""Keeps one app as it is wanted: up, asleep, at its newest revision, or stopped."""

from __future__ import annotations

import asyncio
from contextlib import suppress
from dataclasses import dataclass
from typing import Protocol

import structlog
from flyteidl2.app import app_definition_pb2

from tower.control.reconcile.appprocess import AppProcess, AppRunner, describe, reason
from tower.control.reconcile.parts import Handle, Parts
from tower.errors import Unavailable
from tower.states import AppStatus, Desired
from tower.store import apps as store
from tower.store import logs
from tower.store.apps import AppRow
from tower.store.logs import LogSink

log = structlog.get_logger("tower.apps")

MAX_FAILURES = 5
_LONGEST_PAUSE = 60.0
_QUICK = 60.0
"""A process that ends within so many seconds has failed to start in all but name."""
_SECONDS_TO_DRAIN = 30.0
_TAIL_LINES = 10


class Report(Protocol):
    """Records where an app stands; `tower.control.apps.Apps.report` does."""

    async def __call__(
        self,
        project: str,
        domain: str,
        name: str,
        *,
        revision: int,
        status: AppStatus,
        message: str = "",
        started_at: float | None = None,
    ) -> bool:
        """False when the app has moved on: then nothing was recorded."""


@dataclass(frozen=True, slots=True)
class _Scaling:
    """Whether the app may sleep, and after how long without a request (seconds)."""

    sleeps: bool
    idle: float


class AppKeeper:
    """One app. `run` is its life; `poke` makes it look again at what is wanted."""

    def __init__(self, parts: Parts, runner: AppRunner, report: Report, *, row: AppRow, asleep: bool) -> None:
        """`asleep`: it was up before Tower restarted and may wait for a request."""
        self._parts = parts
        self._runner = runner
        self._report = report
        self._row: AppRow = row
        self._key = (row.project, row.domain, row.name)
        self._wanted = (row.revision, row.desired)
        self._stored = (row.revision, row.status, row.message)
        self._current: AppProcess | None = None
        self._asleep = asleep
        self._wake = False
        self._failures = 0
        self._next_try = 0.0
        self._gave_up = False
        self._closing = False
        self._grace: float | None = None
        self._poked = asyncio.Event()
        self._waiting: set[asyncio.Future[AppProcess]] = set()
        self._timer: Handle | None = None
        self._used_at = parts.clock.now()
        self._draining: set[asyncio.Task[None]] = set()
        self._sink: LogSink | None = None

    @property
    def current(self) -> AppProcess | None:
        """The process that answers now."""
        if self._current is None or self._current.ended.done():
            return None
        return self._current

    def poke(self) -> None:
        """Something changed."""
        self._poked.set()

    def close(self, grace: float) -> None:
        """Stop the app for good, its process within `grace` seconds; what is stored of it stays."""
        self._closing = True
        self._grace = grace
        self._poked.set()

    async def ready(self) -> AppProcess:
        """A process that answers, started if need be. Raises Unavailable when it does not start."""
        if self.current is not None:
            return self.current
        if self._row.desired is Desired.STOPPED or self._closing:
            raise Unavailable("The app is stopped.", hint="Start it first.")
        if self._gave_up and self._parts.clock.now() < self._next_try:
            raise Unavailable("The app does not start.", hint="Its log says why.")
        future: asyncio.Future[AppProcess] = asyncio.get_running_loop().create_future()
        self._waiting.add(future)
        self._wake = True
        self._poked.set()
        try:
            return await future
        finally:
            self._waiting.discard(future)

    def used(self) -> None:
        """A request ended: the time of idleness begins."""
        self._used_at = self._parts.clock.now()

    async def run(self) -> None:
        """Follow what is wanted until the app is deleted or `close` is called."""
        try:
            while await self._turn():
                await self._poked.wait()
        finally:
            await self._shut_down()

    async def _turn(self) -> bool:
        """Move towards what is wanted as far as possible now; False when it is over."""
        while True:
            self._poked.clear()
            self._unset_timer()
            row = self._read()
            if row is None or self._closing:
                return False
            self._look(row)
            if row.desired is Desired.STOPPED:
                await self._stopped()
                return True
            current = self._current
            if current is not None and current.ended.done():
                await self._ended_by_itself(current)
            elif current is not None and current.revision == row.revision:
                if not await self._fell_asleep(current):
                    await self._tell_up(row)
                    return True
            elif not self._may_start():
                return True
            else:
                await self._start(row)

    def _read(self) -> AppRow | None:
        return self._parts.db.read_now(lambda reader: store.get(reader, *self._key))

    def _look(self, row: AppRow) -> None:
        """Another revision or another wish: past failures count no more."""
        self._row = row
        self._stored = (row.revision, row.status, row.message)
        if (row.revision, row.desired) != self._wanted:
            self._wanted = (row.revision, row.desired)
            self._failures, self._next_try = 0, 0.0
            self._gave_up = self._asleep = False

    def _may_start(self) -> bool:
        if self._asleep and not self._wake and self._scaling().sleeps:
            return False
        if self._gave_up and not self._wake:
            return False
        wait = self._next_try - self._parts.clock.now()
        if wait > 0:
            self._timer = self._parts.timers.later(wait, self.poke)
            return False
        return True

    async def _start(self, row: AppRow) -> None:
        """Start the wanted revision, unless another wish comes meanwhile."""
        waking = self._asleep
        self._asleep = self._wake = False
        await self._tell(row, AppStatus.SCALING_UP if waking else AppStatus.DEPLOYING)
        starting = asyncio.ensure_future(self._runner.start(row, output=self._output))
        starting.add_done_callback(lambda _: self._poked.set())
        while not starting.done():
            await self._poked.wait()
            self._poked.clear()
            if not starting.done() and self._changed(row):
                starting.cancel()
                await asyncio.wait([starting])
        if starting.cancelled():
            return
        fault = starting.exception()
        if fault is not None:
            await self._failed(row, fault)
            return
        before, self._current = self._current, starting.result()
        self._current.ended.add_done_callback(lambda _: self._poked.set())
        self._gave_up = False
        self.used()
        if before is not None:
            self._drain(before)
        await self._tell_up(row, started_at=self._parts.clock.now())
        for future in self._waiting:
            if not future.done():
                future.set_result(self._current)

    def _changed(self, row: AppRow) -> bool:
        now = self._read()
        return self._closing or now is None or now.revision != row.revision or now.desired is Desired.STOPPED

    async def _failed(self, row: AppRow, fault: BaseException) -> None:
        log.info("app did not start", app=row.id, revision=row.revision, error=str(fault))
        self._refuse("The app did not start.")
        await self._count_failure(row, reason(fault))

    async def _ended_by_itself(self, ended: AppProcess) -> None:
        self._current = None
        await self._runner.stop(ended, grace=0.0)
        what = f"The app {describe(ended.ended.result())}."
        self._output(f"[tower] {what}\n".encode())
        if self._parts.clock.now() - ended.began_at >= _QUICK:
            self._failures = 0
        await self._count_failure(self._row, what)

    async def _count_failure(self, row: AppRow, what: str) -> None:
        self._failures += 1
        now = self._parts.clock.now()
        if self._failures >= MAX_FAILURES:
            self._gave_up = True
            self._next_try = now + _LONGEST_PAUSE
            self._refuse("The app does not start.")
            await self._tell(row, AppStatus.FAILED, self._with_tail(row, what))
            return
        self._next_try = now + min(_LONGEST_PAUSE, 2.0 ** (self._failures - 1))
        await self._tell(row, AppStatus.PENDING, what)

    def _with_tail(self, row: AppRow, what: str) -> str:
        if self._sink is not None:
            self._sink.close()
            self._sink = None
        tail = logs.tail(logs.app_path(self._parts.settings.home, row.id), lines=_TAIL_LINES)
        return f"{what}\n{tail}".strip()

    async def _fell_asleep(self, current: AppProcess) -> bool:
        """End a process that nobody used for long; otherwise set the timer to look again."""
        scaling = self._scaling()
        if not scaling.sleeps:
            return False
        since = self._parts.clock.now() if current.users else self._used_at
        left = since + scaling.idle - self._parts.clock.now()
        if left > 0:
            self._timer = self._parts.timers.later(left, self.poke)
            return False
        self._current = None
        self._asleep = True
        await self._runner.stop(current)
        await self._tell(self._row, AppStatus.ACTIVE, "Asleep: the next request wakes it.")
        return True

    async def _stopped(self) -> None:
        current, self._current = self._current, None
        self._refuse("The app is stopped.")
        if current is not None:
            await self._runner.stop(current)
        await self._finish_draining()
        await self._tell(self._row, AppStatus.STOPPED)

    def _drain(self, before: AppProcess) -> None:
        """Let the former revision finish what it was given, then end it."""

        async def drain() -> None:
            before.unused.clear()
            if before.users:
                with suppress(TimeoutError):
                    await asyncio.wait_for(before.unused.wait(), _SECONDS_TO_DRAIN)
            await self._runner.stop(before)

        task = asyncio.ensure_future(drain())
        self._draining.add(task)
        task.add_done_callback(self._draining.discard)

    async def _shut_down(self) -> None:
        self._closing = True
        self._unset_timer()
        self._refuse("The app is stopped.")
        current, self._current = self._current, None
        if current is not None:
            await self._runner.stop(current, grace=self._grace)
        await self._finish_draining()
        if self._sink is not None:
            self._sink.close()

    async def _finish_draining(self) -> None:
        if self._draining:
            await asyncio.wait(self._draining)

    def _refuse(self, message: str) -> None:
        for future in self._waiting:
            if not future.done():
                future.set_exception(Unavailable(message, hint="Its log says why."))

    def _scaling(self) -> _Scaling:
        autoscaling = app_definition_pb2.App.FromString(self._row.spec).spec.autoscaling
        period = autoscaling.scaledown_period.ToNanoseconds() / 1e9
        return _Scaling(
            sleeps=self._row.desired is Desired.ACTIVE and autoscaling.replicas.min == 0,
            idle=period if period > 0 else self._parts.settings.idle_app_seconds,
        )

    async def _tell_up(self, row: AppRow, *, started_at: float | None = None) -> None:
        status = AppStatus.STARTED if row.desired is Desired.STARTED else AppStatus.ACTIVE
        await self._tell(row, status, started_at=started_at)

    async def _tell(
        self, row: AppRow, status: AppStatus, message: str = "", *, started_at: float | None = None
    ) -> None:
        if self._stored == (row.revision, status, message) and started_at is None:
            return
        self._stored = (row.revision, status, message)
        await self._report(
            *self._key, revision=row.revision, status=status, message=message, started_at=started_at
        )

    def _output(self, chunk: bytes) -> None:
        if self._sink is None:
            app_id = "/".join(self._key)
            self._sink = LogSink(
                logs.app_path(self._parts.settings.home, app_id),
                self._parts.settings.max_log,
                now=self._parts.clock.now,
                changed=lambda: self._parts.events.publish(("log", app_id)),
                rotate=True,
                hide=lambda line: self._parts.redaction.hide(app_id, line),
                whole=lambda: self._parts.redaction.shown(app_id),
            )
        self._sink.write(chunk)

    def _unset_timer(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
