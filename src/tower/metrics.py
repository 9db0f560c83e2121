"""What is counted. How it is told is `tower.exposition`, which is loaded when somebody asks.

Count in the thread of the event loop alone.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping


class Count:
    """One number of a family."""

    __slots__ = ("_read", "_value")

    def __init__(self) -> None:
        self._value = 0.0
        self._read: Callable[[], float] | None = None

    @property
    def value(self) -> float:
        """As it is now."""
        return self._value if self._read is None else self._read()

    def inc(self) -> None:
        """One more."""
        self._value += 1

    def set_function(self, read: Callable[[], float]) -> None:
        """Ask `read` for the value from now on."""
        self._read = read


class Family:
    """The numbers of one name, one for each outcome, reason, … that was seen."""

    def __init__(self, name: str, says: str, label: str = "") -> None:
        """A name that ends in `_total` is of something that only grows."""
        self.name, self.says, self.label = name, says, label
        self._counts: dict[str, Count] = {}
        FAMILIES.append(self)

    @property
    def counts(self) -> Mapping[str, Count]:
        """By the value of the label; under "" where there is none."""
        return self._counts

    def __getitem__(self, value: str) -> Count:
        """The number of this outcome, reason, …; "" where the family has no label."""
        found = self._counts.get(value)
        if found is None:
            found = self._counts[value] = Count()
        return found


FAMILIES: list[Family] = []
"""All there are in this process."""
