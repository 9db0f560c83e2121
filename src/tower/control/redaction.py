"""Which values must not show up in what a process prints or leaves: those that it was given in confidence."""

from __future__ import annotations

import asyncio
import re
from collections.abc import Iterable
from dataclasses import dataclass

from tower.store.logs import masked

SHORTEST = 8
"""Shorter values are not looked for: they stand in too much that is no secret."""

MOST_LINES = 64
"""So many lines of all values together are looked for by themselves, as logs show them."""

MASK = b"[secret]"
_KEY = re.compile(rb"twr_[A-Za-z0-9]{12}_[A-Za-z0-9_-]{43}")
_PIECE = 1 << 20
_SMALL = 1 << 18


@dataclass(frozen=True, slots=True)
class _Given:
    """Whole values, and what to replace in a log: these and their lines, the longest first."""

    values: tuple[bytes, ...] = ()
    shown: tuple[bytes, ...] = ()


_NOTHING = _Given()


class Redaction:
    """The values of each attempt and app that runs, as long as it runs."""

    def __init__(self) -> None:
        self._given: dict[str, _Given] = {}

    def add(self, workload: str, values: Iterable[bytes]) -> None:
        """Note values that a workload was given."""
        before = self._given.get(workload, _NOTHING)
        whole = {*before.values, *(value.strip() for value in values if len(value.strip()) >= SHORTEST)}
        lines = [line.strip() for value in sorted(whole) for line in value.splitlines()]
        shown = whole | set([line for line in lines if len(line) >= SHORTEST][:MOST_LINES])
        # the longest first: one value may be the beginning of another
        self._given[workload] = _Given(tuple(whole), tuple(sorted(shown, key=len, reverse=True)))

    def drop(self, workload: str) -> None:
        """Forget the values of a workload that has ended."""
        self._given.pop(workload, None)

    def shown(self, workload: str) -> tuple[bytes, ...]:
        """What `hide` looks for: nothing may part one of these before it is asked."""
        return self._given.get(workload, _NOTHING).shown

    def hide(self, workload: str, text: bytes) -> bytes:
        """The text without the values that the workload was given."""
        for value in self._given.get(workload, _NOTHING).shown:
            if value in text:
                text = text.replace(value, MASK)
        return masked(text)

    async def found(self, workload: str, data: bytes) -> bool:
        """Whether the data has one of those values, or what can only be an API key of Tower's."""
        if len(data) <= _SMALL:
            return self._holds(workload, data)
        return await asyncio.to_thread(self._holds, workload, data)

    def _holds(self, workload: str, data: bytes) -> bool:
        values = self._given.get(workload, _NOTHING).values
        overlap = max((len(value) for value in values), default=0) + 64
        # in pieces: other threads get their turn between them
        for start in range(0, max(1, len(data)), _PIECE):
            piece = data[start : start + _PIECE + overlap]
            if any(value in piece for value in values):
                return True
            if b"twr_" in piece and _KEY.search(piece) is not None:
                return True
        return False
