"""The loop of schedules: it sleeps until the next trigger is due, and wakes when a trigger changes."""

from __future__ import annotations

import asyncio
from typing import Protocol

import structlog

from tower.clock import Clock
from tower.control.events import Events
from tower.control.reconcile.parts import Handle, Timers
from tower.control.schedules import CHANGED

log = structlog.get_logger("tower.schedules")

_SECONDS_BETWEEN_LOOKS = 1.0
_LONGEST_SLEEP = 300.0
"""The clock of the machine may be set, or stand still while it sleeps: then this is how late it may be."""


class Fires(Protocol):
    """Starts what is due; `tower.control.firing.Firing` does."""

    async def next_due(self) -> float | None:
        """When the next trigger is due, if any."""

    async def fire_due(self) -> int:
        """Fire what is due now; how many triggers that were."""


class ScheduleLoop:
    """One per process. `start` it when runs can be started, `stop` it before the database closes."""

    def __init__(self, *, firing: Fires, clock: Clock, events: Events, timers: Timers) -> None:
        self._firing = firing
        self._clock = clock
        self._events = events
        self._timers = timers
        self._loop: asyncio.Task[None] | None = None
        self._woken = asyncio.Event()
        self._timer: Handle | None = None
        self._ending = False

    async def start(self) -> None:
        """Begin; what came due while Tower was down is seen to at once."""
        self._loop = asyncio.create_task(self._run())

    async def stop(self) -> None:
        """Start nothing more; what is due stays due."""
        self._ending = True
        self._woken.set()
        if self._loop is not None:
            await self._loop

    async def _run(self) -> None:
        with self._events.subscribe(CHANGED) as self._woken:
            while not self._ending:
                self._woken.clear()
                await self._turn()
                await self._woken.wait()
                self._unset()

    async def _turn(self) -> None:
        try:
            while not self._ending and await self._firing.fire_due():
                pass
            due = await self._firing.next_due()
        except Exception:
            # this loop is all that starts what is due
            log.exception("the schedules could not be seen to")
            self._set(_SECONDS_BETWEEN_LOOKS)
            return
        if due is not None:
            self._set(due - self._clock.now())

    def _set(self, seconds: float) -> None:
        self._unset()
        self._timer = self._timers.later(min(max(seconds, 0.0), _LONGEST_SLEEP), self._woken.set)

    def _unset(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
