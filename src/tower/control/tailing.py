"""The output of attempts, as it is written and until they have ended."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable, Sequence

from tower.control.access import not_found
from tower.control.events import Events
from tower.control.runs import run_resource
from tower.control.watching import Seen, Watching
from tower.errors import Invalid
from tower.identity.principal import Principal
from tower.store.logs import Line
from tower.store.runs import ActionKey

__all__ = ["Line", "Read", "Tailing"]

MAX_ATTEMPT = 1_000_000


Read = Callable[[str, int], Awaitable[tuple[Sequence[Line], int]]]
"""Given `project/domain/run/action/attempt` and an offset: the next lines and the offset behind them, at most
about a megabyte at a time; no lines where nothing more was written so far."""


class Tailing:
    """Follows logs. What is written is never waited for by looking again and again."""

    def __init__(self, *, watching: Watching, events: Events, read: Read) -> None:
        self._watching = watching
        self._events = events
        self._read = read

    async def follow(
        self, principal: Principal, key: ActionKey, *, attempt: int, request_id: str, mark: bool = False
    ) -> AsyncIterator[list[Line]]:
        """The output of an attempt from its beginning; 0 is the newest attempt. Raises NotFound.

        It ends once the attempt has ended and everything was read. The right to view is asked for again
        whenever the attempt changes. With `mark` there is one time without lines: behind what was there
        already, where the attempt goes on.
        """
        if attempt > MAX_ATTEMPT:
            raise Invalid("There is no attempt of that number.")
        seen = await self._watching.get(principal, key, request_id=request_id)
        number = attempt or max(1, len(seen.attempts))
        if number > max(1, len(seen.attempts)) and (
            seen.row.phase.terminal or number > seen.row.max_attempts
        ):
            raise not_found(run_resource(key))
        log_id = "/".join((*key, str(number)))
        offset = 0
        with self._events.subscribe(("log", log_id), ("action", *key)) as changed:
            while True:
                changed.clear()
                # look at the state first: what was written before the end is then read for certain
                seen = await self._watching.get(principal, key, request_id=request_id)
                over = _over(seen, number)
                while True:
                    lines, offset = await self._read(log_id, offset)
                    if not lines:
                        break
                    yield list(lines)
                if over:
                    return
                if mark:
                    mark = False
                    yield []
                await changed.wait()


def _over(seen: Seen, number: int) -> bool:
    """Whether the attempt has ended."""
    found = next((each for each in seen.attempts if each.attempt == number), None)
    if found is None:
        return seen.row.phase.terminal
    return found.phase.terminal or found.ended_at is not None or seen.row.phase.terminal
