"""The loop of runs: what is queued is started as far as there is room, in the order it came."""

from __future__ import annotations

import asyncio
import time

import structlog

from tower.control.reconcile.attempt import Attempt
from tower.control.reconcile.parts import Handle, Parts
from tower.control.reconcile.recording import Recording
from tower.control.waiting import Place
from tower.store import attempts as store
from tower.store import runs
from tower.store.runs import ActionKey, ActionRow

log = structlog.get_logger("tower.reconcile")

_SECONDS_BETWEEN_LOOKS = 1.0


class Reconcile:
    """One per process. `start` it after the database is open, `stop` it before the doors' rooms close."""

    def __init__(self, parts: Parts) -> None:
        self._parts = parts
        self._recording = Recording(db=parts.db, events=parts.events)
        self._active: dict[ActionKey, tuple[Attempt, asyncio.Task[None]]] = {}
        self._taken: set[ActionKey] = set()
        self._none_taken = asyncio.Event()
        self._none_taken.set()
        self._loop: asyncio.Task[None] | None = None
        self._woken = asyncio.Event()
        self._deadline: Handle | None = None
        self._look_later: Handle | None = None
        self._look_due = False
        self._overdue = False
        self._draining = False

    @property
    def running(self) -> int:
        """How many attempts are on their way or running."""
        return len(self._active)

    async def start(self) -> None:
        """Take up what a former life of Tower left, and begin."""
        left = await self._recording.recover()
        if left:
            log.warning("attempts of a former process ended", actions=left)
        self._loop = asyncio.create_task(self._run())
        if self._parts.waiting is not None:
            self._parts.waiting.places = self

    def take(self, key: ActionKey) -> Place | None:
        """Room for an action that is about to be stored, if there is some now.

        What waits is started as soon as there is room: where there is some, and no look at the queue is due,
        nothing waits.
        """
        if self._draining or self._woken.is_set() or key in self._active or key in self._taken:
            return None
        if self._room() <= 0:
            return None
        self._taken.add(key)
        self._none_taken.clear()
        return _Place(self, key)

    def settle(self, key: ActionKey, row: ActionRow | None) -> None:
        """A taken place is used, by an action that is stored with its first attempt, or given back."""
        self._taken.discard(key)
        if row is not None:
            self._launch(key, row)
        else:
            self._woken.set()
        if not self._taken:
            self._none_taken.set()

    def rest(self) -> None:
        """Start nothing more; what runs goes on. What is queued stays so for the next start of Tower."""
        self._draining = True
        self._woken.set()
        if self._parts.ahead is not None:
            self._parts.ahead.close()

    async def stop(self) -> None:
        """Rest, wait for what runs, at last stop it: those actions are queued again."""
        self.rest()
        if self._loop is not None:
            await self._loop
        await self._none_taken.wait()
        running = [task for _, task in self._active.values()]
        if not running:
            return
        _, late = await asyncio.wait(running, timeout=self._parts.settings.drain_seconds)
        if late:
            log.warning("attempts stopped", attempts=len(late))
            for attempt, _ in list(self._active.values()):
                attempt.drain()
            await asyncio.wait(late)

    async def _run(self) -> None:
        with self._parts.events.subscribe(("queue",)) as self._woken:
            try:
                while not self._draining:
                    self._woken.clear()
                    await self._turn()
                    await self._woken.wait()
            finally:
                for timer in (self._deadline, self._look_later):
                    if timer is not None:
                        timer.cancel()

    async def _turn(self) -> None:
        try:
            if self._overdue:
                self._overdue = False
                await self._expire()
            if not self._draining:
                self._fill()
        except Exception:
            # a store that does not answer now is asked again: this loop is all that starts runs
            log.exception("the queue could not be read")
            self._parts.timers.later(_SECONDS_BETWEEN_LOOKS, self._woken.set)

    def _fill(self) -> None:
        """Start what waits longest, as far as there is room."""
        room = self._room()
        if room <= 0:
            self._watch_deadlines()
            return
        # those being leased right now still look queued
        keys = self._parts.db.read_now(lambda reader: store.queued(reader, room + len(self._active)))
        queued = [key for key in keys if key not in self._active]
        for key in queued[:room]:
            self._launch(key)
        if len(queued) >= room:
            self._watch_deadlines()

    def _room(self) -> int:
        waiting = self._parts.waiting.among(self._active) if self._parts.waiting is not None else 0
        return self._parts.settings.parallel_attempts + waiting - len(self._active) - len(self._taken)

    def _launch(self, key: ActionKey, leased: ActionRow | None = None) -> None:
        attempt = Attempt(self._parts, self._recording, key, leased=leased)
        task = asyncio.create_task(attempt.run())
        self._active[key] = attempt, task
        task.add_done_callback(lambda task: self._done(key, task))

    def _done(self, key: ActionKey, task: asyncio.Task[None]) -> None:
        del self._active[key]
        if not task.cancelled() and task.exception() is not None:
            log.error("an attempt was not recorded", run=key.run, exc_info=task.exception())
            # its action looks started; the next start of Tower takes it up
        self._woken.set()

    def _watch_deadlines(self) -> None:
        """There is no room: see to those that wait too long, and to those who have none of it.

        A look is a scan of all that waits: one a second at most, and never more than one percent of the time.
        """
        if self._look_later is None:
            begun = time.thread_time()
            self._look()
            pause = max(_SECONDS_BETWEEN_LOOKS, 100 * (time.thread_time() - begun))
            self._look_later = self._parts.timers.later(pause, self._look_again)
        else:
            self._look_due = True

    def _look_again(self) -> None:
        self._look_later = None
        if self._look_due:
            self._look_due = False
            self._watch_deadlines()

    def _look(self) -> None:
        if self._deadline is not None:
            self._deadline.cancel()
            self._deadline = None
        deadline = self._parts.db.read_now(store.next_queue_deadline)
        if deadline is not None:
            wait = max(0.0, deadline - self._parts.clock.now())
            self._deadline = self._parts.timers.later(wait, self._due)
        self._let_in()

    def _let_in(self) -> None:
        """Start something of one for whom nothing runs: what others run keeps nobody out (T45).

        All together are so at most twice as many; who has such a place has one less when others end.
        """
        if self._draining or not -self._parts.settings.parallel_attempts < self._room() <= 0:
            return
        if self._taken:  # for whom is not known yet
            self._look_due = True
            return
        waiting = self._parts.waiting
        busy = [key for key in self._active if waiting is None or not waiting.waits(key)]
        key = self._parts.db.read_now(lambda reader: store.queued_of_others(reader, busy))
        if key is not None:
            self._look_due = True
            if key not in self._active:
                self._launch(key)

    def _due(self) -> None:
        self._deadline = None
        self._overdue = True
        self._woken.set()

    async def _expire(self) -> None:
        now = self._parts.clock.now()
        keys = await self._parts.db.read(lambda reader: store.overdue(reader, now))
        for key in keys:
            row = await self._parts.db.read(lambda reader, key=key: runs.get(reader, key))  # type: ignore[misc]
            if row is not None and key not in self._active:
                await self._recording.expire_queued(row, waited=row.queue_timeout or 0.0)
        self._look_due = True
        self._woken.set()


class _Place:
    """Room for one action; it is used, or given back, once."""

    def __init__(self, owner: Reconcile, key: ActionKey) -> None:
        self._owner = owner
        self._key = key
        self._settled = False

    def begin(self, row: ActionRow) -> None:
        self._settle(row)

    def give_back(self) -> None:
        self._settle(None)

    def _settle(self, row: ActionRow | None) -> None:
        if not self._settled:
            self._settled = True
            self._owner.settle(self._key, row)
