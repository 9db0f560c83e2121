"""What one caller may take of a gateway that all share: open requests, and memory of websockets (T45)."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager

from tower.errors import Exhausted
from tower.gateway.passage import Passage
from tower.identity.attempts import network

MOST = 512
"""Requests and websockets that an app has open at once."""


LONGEST_MESSAGE = 1024 * 1024
"""Bytes, either way: some of each websocket are in memory as a whole, and nobody may read them."""

MOST_WAITING = 64 * 1024 * 1024
"""Bytes of one caller's websocket messages that wait for a reader, over all their websockets."""


class Shares:
    """Counts what is open. One caller alone has at most half of it: there is always room for another."""

    def __init__(self, most: int = MOST) -> None:
        self._most = most
        self._open: dict[str, Counter[str]] = {}

    @contextmanager
    def taking(self, thing: str, caller: str, *, what: str) -> Iterator[None]:
        """One request for as long as the block lasts. Raises Exhausted for a caller who has their share."""
        counted = self._open.setdefault(thing, Counter())
        if counted[caller] >= self._most - counted.total():
            raise Exhausted(f"You have too many open {what}.", hint="Let some of them end.", wait=1.0)
        counted[caller] += 1
        try:
            yield
        finally:
            counted[caller] -= 1
            if not counted[caller]:
                del counted[caller]
            if not counted:
                self._open.pop(thing, None)


class Backlog:
    """Counts messages under way on websockets, by their caller: a side that does not read holds them up."""

    def __init__(self) -> None:
        self._waiting: Counter[str] = Counter()

    @contextmanager
    def taking(self, caller: str, size: int) -> Iterator[None]:
        """So many bytes, for as long as the block lasts. Raises Exhausted where there would be too many."""
        if self._waiting[caller] + size > MOST_WAITING:
            raise Exhausted("Your websockets are read too slowly.", hint="Read what has come.", wait=1.0)
        self._waiting[caller] += size
        try:
            yield
        finally:
            self._waiting[caller] -= size
            if not self._waiting[caller]:
                del self._waiting[caller]


def caller(passage: Passage) -> str:
    """A person or service, whatever they show; without a name, where the request comes from."""
    if passage.principal is not None:
        return f"subject {passage.principal.subject}"
    return place(passage.client)


def place(client: str) -> str:
    """Where a request without a name comes from."""
    return f"address {network(client)}"
