"""How many runs one attempt of a task may start, so that none floods the queue with work of its person."""

from __future__ import annotations

from collections import OrderedDict

from tower.errors import Exhausted
from tower.identity.principal import ActorKind, Principal

_REMEMBER = 16_384


class Fanout:
    """Counts in memory: a restart of Tower ends the attempts that it counted for."""

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._counts: OrderedDict[str, int] = OrderedDict()

    def take(self, principal: Principal) -> None:
        """Count one more run that the attempt behind this call starts. Raises Exhausted over the limit."""
        attempt = next((each.id for each in reversed(principal.actors) if each.kind is ActorKind.RUN), None)
        if attempt is None:
            return
        count = self._counts.get(attempt, 0)
        if count >= self._limit:
            raise Exhausted(
                f"A task starts at most {self._limit} runs.",
                hint="Give each run more of the work, or let the runs start some themselves.",
            )
        self._counts[attempt] = count + 1
        self._counts.move_to_end(attempt)
        if len(self._counts) > _REMEMBER:
            self._counts.popitem(last=False)
