"""Whether a running attempt still acts for somebody: asked again when people, keys or grants change."""

from __future__ import annotations

from collections.abc import Callable

from tower.control.reconcile.parts import Watch

TOPIC = ("people",)


class Doubt:
    """Of one attempt. `join` it to `TOPIC`; a change wakes who waits for the attempt."""

    def __init__(self, watch: Watch | None, wake: Callable[[], None]) -> None:
        self._watch = watch
        self._wake = wake
        self._there = False
        self.gone = ""
        """Why nobody is left, as a sentence, once that was found."""

    def set(self) -> None:
        """Something changed."""
        self._there = self._watch is not None
        if self._there:
            self._wake()

    async def confirmed(self, attempt_id: str) -> bool:
        """Whether there was a change, and nobody is left."""
        if self._there and self._watch is not None:
            self._there = False
            self.gone = await self._watch(attempt_id)
        return bool(self.gone)
