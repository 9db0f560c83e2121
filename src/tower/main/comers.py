"""What came from where, in the order it came; who has most is known at once, however many there are (T45)."""

from __future__ import annotations

from collections import OrderedDict
from typing import Generic, TypeVar

Comer = TypeVar("Comer")


class Comers(Generic[Comer]):
    """Connections by the address they come from. Everything here takes the same time for few and for many.

    The dictionaries are ordered ones: what is first in a plain one takes ever longer to find where the first
    are taken out again and again.
    """

    def __init__(self) -> None:
        self._places: dict[Comer, str] = {}
        self._of: dict[str, OrderedDict[Comer, None]] = {}
        self._having: dict[int, OrderedDict[str, None]] = {}
        self._most = 0

    def __len__(self) -> int:
        return len(self._places)

    def __contains__(self, comer: Comer) -> bool:
        return comer in self._places

    def add(self, comer: Comer, place: str) -> None:
        """One more from this address; it is not here yet."""
        self._places[comer] = place
        own = self._of.setdefault(place, OrderedDict())
        own[comer] = None
        self._moved(place, len(own) - 1, len(own))

    def discard(self, comer: Comer) -> None:
        """It has gone, if it was here."""
        place = self._places.pop(comer, None)
        if place is None:
            return
        own = self._of[place]
        del own[comer]
        if not own:
            del self._of[place]
        self._moved(place, len(own) + 1, len(own))

    def number(self, place: str) -> int:
        """How many there are from an address."""
        return len(self._of.get(place, ()))

    def most(self) -> tuple[str, int]:
        """The address that most are from, and how many; of several the one that has had so many longest."""
        return (next(iter(self._having[self._most])), self._most) if self._most else ("", 0)

    def oldest(self, place: str) -> Comer:
        """The first that came from an address that has one."""
        return next(iter(self._of[place]))

    def _moved(self, place: str, before: int, now: int) -> None:
        if before:
            having = self._having[before]
            del having[place]
            if not having:
                del self._having[before]
        if now:
            self._having.setdefault(now, OrderedDict())[place] = None
        if now > self._most or self._most not in self._having:
            self._most = now  # by one at most: nobody else has more than what is one less
