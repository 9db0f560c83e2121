"""How many requests of one caller are open at one thing: half of what is left, whoever has the rest (T45)."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager

from tower.errors import Exhausted
from tower.gateway.passage import Passage
from tower.identity.attempts import network

MOST = 512
"""Requests and websockets that an app has open at once."""


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


def caller(passage: Passage) -> str:
    """A person or service, whatever they show; without a name, where the request comes from."""
    if passage.principal is not None:
        return f"subject {passage.principal.subject}"
    return place(passage.client)


def place(client: str) -> str:
    """Where a request without a name comes from."""
    return f"address {network(client)}"
