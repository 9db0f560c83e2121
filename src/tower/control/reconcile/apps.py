"""Every app as it is wanted, and for the gateway: a process that answers, started if need be."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from pathlib import Path

import structlog

from tower.control.reconcile.appkeeper import AppKeeper, Report
from tower.control.reconcile.appprocess import AppProcess, AppRunner
from tower.control.reconcile.parts import Parts
from tower.errors import Unavailable
from tower.states import AppStatus, Desired
from tower.store import apps as store
from tower.store.apps import AppRow

log = structlog.get_logger("tower.apps")

_Key = tuple[str, str, str]


@dataclass(slots=True)
class _Use:
    """One request of the gateway, and the process that it was sent to."""

    key: _Key
    process: AppProcess | None = None


_use: ContextVar[_Use | None] = ContextVar("tower_app_use", default=None)


class AppSupervisor:
    """One per process; it is `tower.control.apps.Processes` for the gateway."""

    def __init__(self, parts: Parts, *, report: Report, runner: AppRunner | None = None) -> None:
        """`report` is `Apps.report`."""
        self._parts = parts
        self._report = report
        self._runner = runner or AppRunner(parts)
        self._keepers: dict[_Key, tuple[AppKeeper, asyncio.Task[None]]] = {}
        self._loop: asyncio.Task[None] | None = None
        self._closing = False

    async def start(self) -> None:
        """Bring up what is wanted up. What was up before and may sleep waits for its next request."""
        rows = await self._parts.db.read(store.everything)
        for row in rows:
            self._keep(row, asleep=row.status is AppStatus.ACTIVE and row.desired is Desired.ACTIVE)
        self._loop = asyncio.create_task(self._run())

    async def stop(self) -> None:
        """End every process; what is wanted stays as it is."""
        self._closing = True
        if self._loop is not None:
            self._loop.cancel()
            await asyncio.wait([self._loop])
        for keeper, _ in self._keepers.values():
            keeper.close(self._parts.settings.drain_seconds)
        if self._keepers:
            await asyncio.wait([task for _, task in self._keepers.values()])

    async def wake(self, project: str, domain: str, name: str, seconds: float, /) -> Path:
        """The unix socket of a process that answers, started if need be. Raises Unavailable."""
        key = (project, domain, name)
        keeper = self._keeper(key)
        process = keeper.current
        if process is None:
            try:
                process = await asyncio.wait_for(keeper.ready(), seconds)
            except TimeoutError as error:
                raise Unavailable("The app is still starting.", hint="Try again in a moment.") from error
        use = _use.get()
        if use is not None and use.key == key and use.process is not process:
            self._release(use)
            use.process = process
            process.users += 1
        return process.socket

    @contextmanager
    def serving(self, project: str, domain: str, name: str) -> Iterator[None]:
        """Count one request as long as the block lasts; call `wake` inside it, in the same task."""
        use = _Use((project, domain, name))
        _use.set(use)
        try:
            yield
        finally:
            _use.set(None)
            self._release(use)
            kept = self._keepers.get(use.key)
            if kept is not None:
                kept[0].used()

    @staticmethod
    def _release(use: _Use) -> None:
        if use.process is not None:
            use.process.users -= 1
            if use.process.users == 0:
                use.process.unused.set()
            use.process = None

    def _keeper(self, key: _Key) -> AppKeeper:
        kept = self._keepers.get(key)
        if kept is not None:
            return kept[0]
        row = None if self._closing else self._parts.db.read_now(lambda reader: store.get(reader, *key))
        if row is None:
            raise Unavailable("The app is not running.")
        return self._keep(row, asleep=False)

    async def _run(self) -> None:
        """Follow the news: each commit that changes an app publishes ("apps",)."""
        async for _ in self._parts.events.changes(("apps",)):
            try:
                rows = await self._parts.db.read(store.everything)
            except Exception:
                log.exception("the apps could not be read")
                continue
            for row in rows:
                if (row.project, row.domain, row.name) not in self._keepers:
                    self._keep(row, asleep=False)
            for keeper, _ in self._keepers.values():
                keeper.poke()

    def _keep(self, row: AppRow, *, asleep: bool) -> AppKeeper:
        key = (row.project, row.domain, row.name)
        if key in self._keepers:
            return self._keepers[key][0]
        keeper = AppKeeper(self._parts, self._runner, self._report, row=row, asleep=asleep)
        task = asyncio.create_task(keeper.run())
        self._keepers[key] = keeper, task
        task.add_done_callback(lambda task: self._done(key, task))
        return keeper

    def _done(self, key: _Key, task: asyncio.Task[None]) -> None:
        del self._keepers[key]
        if not task.cancelled() and task.exception() is not None:
            log.error("an app is not kept any more", app="/".join(key), exc_info=task.exception())
            # begin anew a little later: an app must not stay down for a fault of ours
            self._parts.timers.later(5.0, lambda: self._parts.events.publish(("apps",)))
