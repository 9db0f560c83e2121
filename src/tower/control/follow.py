"""Following the children of one action: each as it is, then each change, at the price of the changes."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator
from contextlib import ExitStack
from dataclasses import dataclass

from tower.control.events import Events
from tower.control.traces import Traced
from tower.control.waiting import Waiting
from tower.states import Phase
from tower.store import family, runs, shelf
from tower.store.database import Database
from tower.store.runs import ActionKey, ActionRow


@dataclass(frozen=True, slots=True)
class Update:
    """How a child stands, with its outputs (flyteidl2.task.Outputs) where they are small."""

    row: ActionRow
    outputs: bytes | None = None


class _Child:
    """Tells the follower which child it was that changed."""

    __slots__ = ("_follower", "_key")

    def __init__(self, follower: Follower, key: ActionKey) -> None:
        self._follower = follower
        self._key = key

    def set(self) -> None:
        """There was a change."""
        self._follower.tell(self._key)


class Follower:
    """One stream of updates. It must be known to whoever adds children before it reads the first time."""

    def __init__(self, parent: ActionKey, *, db: Database, events: Events, waiting: Waiting) -> None:
        self._parent = parent
        self._db = db
        self._events = events
        self._waiting = waiting
        self._changed = asyncio.Event()
        self._steps: list[Traced] = []
        self._news: dict[ActionKey, None] = {}
        self._open: dict[ActionKey, _Child] = {}
        self._known: dict[ActionKey, Phase] = {}

    def tell(self, key: ActionKey) -> None:
        """A child is new or has changed. In the event loop, after the commit."""
        self._news[key] = None
        self._changed.set()

    def echo(self, step: Traced) -> None:
        """A step that the parent recorded itself."""
        self._steps.append(step)
        self._changed.set()

    async def updates(self) -> AsyncGenerator[Update | Traced | None, None]:
        """Every child, then None, then each change. A phase that lasts only a moment may be left out."""
        for key in self._db.read_now(lambda reader: family.children(reader, self._parent)):
            update = self._look(key)
            if update is not None:
                yield update
        yield None
        with ExitStack() as pause:
            pausing = False
            while True:
                self._changed.clear()
                steps, self._steps = self._steps, []
                for step in steps:
                    yield step
                news, self._news = self._news, {}
                for key in news:
                    update = self._look(key)
                    if update is not None:
                        yield update
                if self._news or self._steps:
                    continue
                if bool(self._open) is not pausing:
                    pausing = bool(self._open)
                    if pausing:
                        pause.enter_context(self._waiting.waiting(self._parent))
                    else:
                        pause.close()
                await self._changed.wait()

    def close(self) -> None:
        """Follow nothing any more."""
        for key, child in self._open.items():
            self._events.part(("action", *key), child)
        self._open.clear()

    def _look(self, key: ActionKey) -> Update | None:
        """The child as it is now, followed until it ends; None when there is nothing new."""
        if key not in self._open and key not in self._known:
            child = self._open[key] = _Child(self, key)
            # before it is read: what changes afterwards is told
            self._events.join(("action", *key), child)
        row = self._db.read_now(lambda reader: runs.get(reader, key))
        if row is None:
            return None
        if row.phase.terminal and key in self._open:
            self._events.part(("action", *key), self._open.pop(key))
        if self._known.get(key) == row.phase:
            return None
        self._known[key] = row.phase
        if row.phase is Phase.INITIALIZING:
            return None
        where = row.outputs_key
        return Update(row, self._db.read_now(lambda reader: shelf.read(reader, where)) if where else None)
