"""How often something may be asked for: some at once, then one in so many seconds. Bounded in memory."""

from __future__ import annotations

from collections import OrderedDict

from tower.clock import Clock
from tower.errors import Exhausted

_REMEMBERED = 4096


class Pace:
    """`burst` at once under one name, then one in `seconds`."""

    def __init__(self, clock: Clock, *, burst: int, seconds: float) -> None:
        self._clock = clock
        self._burst = float(burst)
        self._seconds = seconds
        self._levels: OrderedDict[str, tuple[float, float]] = OrderedDict()

    def take(self, name: str, *, what: str) -> None:
        """Count one. Raises Exhausted, naming `what`, when there are none left now."""
        now = self._clock.now()
        level, at = self._levels.get(name, (self._burst, now))
        level = min(self._burst, level + max(0.0, now - at) / self._seconds)
        if level < 1.0:
            raise Exhausted(
                f"This asks for {what} too often.",
                hint="Keep what was given while it holds.",
                wait=(1.0 - level) * self._seconds,
            )
        self._levels[name] = (level - 1.0, now)
        self._levels.move_to_end(name)
        while len(self._levels) > _REMEMBERED:
            self._levels.popitem(last=False)
