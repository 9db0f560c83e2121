"""How many unfinished runs one caller may have, so that one of them cannot fill the queue for all (T45)."""

from __future__ import annotations

from collections import OrderedDict
from dataclasses import dataclass

from tower.clock import Clock
from tower.errors import Exhausted
from tower.store import runs as store
from tower.store.database import Database

_COUNT_AGAIN = 1.0
_REMEMBER = 16_384


@dataclass(slots=True)
class _Count:
    """What was counted, plus what was accepted since: never less than there are."""

    open: int
    at: float


class Quota:
    """Counts in memory; the store is asked only where the limit seems to be reached."""

    def __init__(self, *, db: Database, clock: Clock, limit: int) -> None:
        self._db = db
        self._clock = clock
        self._limit = limit
        self._counts: OrderedDict[str, _Count] = OrderedDict()

    async def take(self, subject: str) -> None:
        """Count one more run of this caller. Raises Exhausted over the limit."""
        count = self._counts.get(subject)
        if count is None or count.open >= self._limit:
            count = await self._count(subject, count)
        if count.open >= self._limit:
            raise Exhausted(
                f"You have {self._limit} runs that have not ended.",
                hint="Wait for some of them, or abort some.",
            )
        count.open += 1

    async def _count(self, subject: str, known: _Count | None) -> _Count:
        now = self._clock.now()
        if known is not None and now - known.at < _COUNT_AGAIN:
            return known
        found = await self._db.read(lambda reader: store.count_open(reader, executed_by=subject))
        count = self._counts[subject] = _Count(found, now)
        self._counts.move_to_end(subject)
        if len(self._counts) > _REMEMBER:
            self._counts.popitem(last=False)
        return count
