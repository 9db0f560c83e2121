"""Which values must not show up in what a process prints or leaves: those that it was given in confidence."""

from __future__ import annotations

import re
from collections.abc import Iterable

from tower.store.logs import masked

SHORTEST = 8
"""Shorter values are not looked for: they stand in too much that is no secret."""

MASK = b"[secret]"
_KEY = re.compile(rb"twr_[A-Za-z0-9]{12}_[A-Za-z0-9_-]{43}")


class Redaction:
    """The values of each attempt and app that runs, as long as it runs."""

    def __init__(self) -> None:
        self._values: dict[str, tuple[bytes, ...]] = {}

    def add(self, workload: str, values: Iterable[bytes]) -> None:
        """Note values that a workload was given; of those with several lines each line, too."""
        found = set(self._values.get(workload, ()))
        for value in values:
            found.update(part for part in (value, *value.splitlines()) if len(part.strip()) >= SHORTEST)
        if found:
            # the longest first: one value may be the beginning of another
            self._values[workload] = tuple(sorted((each.strip() for each in found), key=len, reverse=True))

    def drop(self, workload: str) -> None:
        """Forget the values of a workload that has ended."""
        self._values.pop(workload, None)

    def hide(self, workload: str, text: bytes) -> bytes:
        """The text without the values that the workload was given."""
        for value in self._values.get(workload, ()):
            if value in text:
                text = text.replace(value, MASK)
        return masked(text)

    def holds(self, workload: str, data: bytes) -> bool:
        """Whether the data has one of those values, or what can only be an API key of Tower's."""
        return any(value in data for value in self._values.get(workload, ())) or (
            b"twr_" in data and _KEY.search(data) is not None
        )
