"""The public listener leaves descriptors to the rest of Tower, and room to who has a question (T45)."""

from __future__ import annotations

import asyncio
import resource
from collections import Counter
from collections.abc import Callable
from contextlib import suppress
from typing import Any, ClassVar

from tower.direct import Piecewise
from tower.identity.attempts import network
from tower.protocol import BODY_SECONDS

_LARGEST = 1 << 20
_PUBLIC_PART = 2 / 3
_SECONDS_TO_SHOW = 5.0
"""How long a body may come before it is asked how fast it does."""

_SLOW = 16 * 1024
"""Bytes of a body in a second: where there are too many connections, slower ones make way."""

_SHARE = 1 / 4
"""Of all connections: who has more from one address makes way for others."""


def room() -> int:
    """Raise the limit of descriptors as far as it goes; how many connections from outside may be open."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    limit = _LARGEST if hard == resource.RLIM_INFINITY else min(hard, _LARGEST)
    with suppress(OSError, ValueError):  # the kernel may have a lower one
        resource.setrlimit(resource.RLIMIT_NOFILE, (limit, hard))
        soft = limit
    return int(soft * _PUBLIC_PART)


class Crowded(Piecewise):
    """A connection from outside. Where there are too many, one that asks for nothing makes way.

    Without such a one it is the slowest of the bodies that hardly come, then one of the address that has most
    of all. To hold connections open is so no way to keep others out: who asks is answered.
    """

    most: ClassVar[int] = 1 << 16
    began = 0.0

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        if len(self.connections) >= self.most and not self._make_way(address(transport)):
            self.transport = transport
            transport.abort()
        else:
            self.began = self.loop.time()
            super().connection_made(transport)

    def data_received(self, data: bytes) -> None:
        if not self.transport.is_closing():
            super().data_received(data)

    def _make_way(self, newcomer: str) -> bool:
        others = [other for other in self.connections if isinstance(other, Crowded)]
        leaving = _first([other for other in others if other.resting], lambda other: other.began)
        if leaving is None:
            leaving = _first([other for other in others if other.pace < _SLOW], lambda other: other.pace)
        if leaving is None:
            leaving = self._of_the_many(others, newcomer)
        if leaving is None:
            return False
        leaving.transport.abort()
        self.connections.discard(leaving)  # it hears of that a turn later
        return True

    def _of_the_many(self, others: list[Crowded], newcomer: str) -> Crowded | None:
        """The oldest connection of the address that has most, where the newcomer's has far fewer."""
        places = [address(other.transport) for other in others]
        counted = Counter(places)
        ((place, number),) = counted.most_common(1) or [("", 0)]
        if number <= self.most * _SHARE or counted[newcomer] > number / 2:
            return None
        found = [other for other, its in zip(others, places, strict=True) if its == place]
        return _first(found, lambda other: other.began)

    @property
    def resting(self) -> bool:
        """Whether nothing is asked, nothing to the end of a head, or what was asked is answered."""
        asked: Any = self.cycle
        return not self._in_body if asked is None else bool(asked.response_complete)

    @property
    def pace(self) -> float:
        """Bytes in a second at which a body has been coming lately; infinite for all that is no slow body."""
        if self._part is None or (self.flow is not None and self.flow.read_paused):
            return float("inf")
        seconds = self.loop.time() - (self._part.when() - BODY_SECONDS)
        talking = self.cycle is not None and self.cycle.response_started
        if seconds < _SECONDS_TO_SHOW or talking:
            return float("inf")
        return (self._body - self._arrived) / max(seconds, 0.001)


def _first(found: list[Crowded], key: Callable[[Crowded], float]) -> Crowded | None:
    return min(found, key=key, default=None)


def address(transport: asyncio.BaseTransport) -> str:
    """Where a connection comes from: an address, or the network that one host has."""
    peer: Any = transport.get_extra_info("peername")
    return network(str(peer[0])) if isinstance(peer, tuple) and peer else ""


def of_at_most(most: int) -> type[Crowded]:
    """The protocol for so many connections."""
    return type("Public", (Crowded,), {"most": most})
