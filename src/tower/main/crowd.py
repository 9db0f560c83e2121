"""The public listener leaves descriptors to the rest of Tower, and room to who has a question (T45)."""

from __future__ import annotations

import asyncio
import resource
from collections import OrderedDict
from collections.abc import Callable
from contextlib import suppress
from typing import Any, ClassVar

from uvicorn.protocols.websockets.websockets_sansio_impl import WebSocketsSansIOProtocol

from tower.direct import Piecewise
from tower.identity.attempts import network
from tower.main.comers import Comers
from tower.protocol import BODY_SECONDS

_LARGEST = 1 << 20
_PUBLIC_PART = 2 / 3
_SECONDS_TO_SHOW = 5.0
"""How long a body may come before it is asked how fast it does."""

_SLOW = 16 * 1024
"""Bytes of a body in a second: where there are too many connections, slower ones make way."""

_SHARE = 1 / 4
"""Of all connections: who has more from one address makes way for others."""

_LOOKED_AT = 32
"""Bodies that are looked at for one newcomer; the next looks at others."""


def room() -> int:
    """Raise the limit of descriptors as far as it goes; how many connections from outside may be open."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    limit = _LARGEST if hard == resource.RLIM_INFINITY else min(hard, _LARGEST)
    with suppress(OSError, ValueError):  # the kernel may have a lower one
        resource.setrlimit(resource.RLIMIT_NOFILE, (limit, hard))
        soft = limit
    return int(soft * _PUBLIC_PART)


class Crowd:
    """All connections from outside, websockets among them, and who of them makes way for a newcomer.

    That is the one that has asked for nothing for longest. Without such a one it is the slowest of the bodies
    that hardly come, then the oldest connection of the address that has most of all, where the newcomer's has
    far fewer. A websocket counts to its address like any other connection and may be that oldest one; but it
    never rests, however quiet it is. However many there are, each newcomer takes the same time: who keeps the
    listener full has nothing of coming again.
    """

    def __init__(self, most: int) -> None:
        self.most = most
        self._comers: Comers[asyncio.Transport] = Comers()
        self._resting: OrderedDict[asyncio.Transport, None] = OrderedDict()
        self._bodies: OrderedDict[asyncio.Transport, Callable[[], float]] = OrderedDict()

    def enter(self, connection: asyncio.Transport) -> bool:
        """Whether there is room for a connection, perhaps after another made way. It asks for nothing yet."""
        place = address(connection)
        if len(self._comers) >= self.most and not self._make_way(place):
            return False
        self._comers.add(connection, place)
        self._resting[connection] = None
        return True

    def leave(self, connection: asyncio.Transport) -> None:
        """It has gone, or was never let in."""
        self._comers.discard(connection)
        self._resting.pop(connection, None)
        self._bodies.pop(connection, None)

    @property
    def resting(self) -> OrderedDict[asyncio.Transport, None]:
        """Connections that ask for nothing, who rests longest first. Each enters itself, and leaves."""
        return self._resting

    def waits(self, connection: asyncio.Transport, pace: Callable[[], float]) -> None:
        """A body has not come as a whole yet; `pace` says how fast it does."""
        if connection in self._comers:
            self._bodies[connection] = pace

    def has_all(self, connection: asyncio.Transport) -> None:
        """No body is waited for any more."""
        self._bodies.pop(connection, None)

    def _make_way(self, newcomer: str) -> bool:
        leaving = next(iter(self._resting), None) or self._slowest() or self._of_the_many(newcomer)
        if leaving is None:
            return False
        self.leave(leaving)  # it hears of that a turn later
        leaving.abort()
        return True

    def _slowest(self) -> asyncio.Transport | None:
        """The slowest of the next bodies in turn, where it is slow."""
        paces: dict[asyncio.Transport, float] = {}
        for _ in range(min(_LOOKED_AT, len(self._bodies))):
            connection, pace = next(iter(self._bodies.items()))
            self._bodies.move_to_end(connection)
            paces[connection] = pace()
        found = min(paces, key=paces.__getitem__, default=None)
        return found if found is not None and paces[found] < _SLOW else None

    def _of_the_many(self, newcomer: str) -> asyncio.Transport | None:
        place, number = self._comers.most()
        if number <= self.most * _SHARE or self._comers.number(newcomer) > number / 2:
            return None
        return self._comers.oldest(place)


class CrowdedWebsocket(WebSocketsSansIOProtocol):
    """What a connection from outside goes on as; it has been let in before."""

    crowd: ClassVar[Crowd]

    def connection_lost(self, exc: Exception | None) -> None:
        self.crowd.leave(self.transport)
        super().connection_lost(exc)


class Crowded(Piecewise):
    """A connection from outside, which makes way as `Crowd` says.

    To hold connections open is so no way to keep others out: who asks is answered.
    """

    crowd: ClassVar[Crowd]
    websocket: ClassVar[type[CrowdedWebsocket]]

    def __init__(self, *arguments: Any, **options: Any) -> None:
        super().__init__(*arguments, **options)
        if self.ws_protocol_class is not None:
            self.ws_protocol_class = self.websocket
        self._resting = self.crowd.resting

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        if self.crowd.enter(transport):
            super().connection_made(transport)
        else:
            self.transport = transport
            transport.abort()

    def connection_lost(self, exc: Exception | None) -> None:
        self.crowd.leave(self.transport)
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        if not self.transport.is_closing():
            super().data_received(data)

    def head_complete(self) -> None:
        self._resting.pop(self.transport, None)
        super().head_complete()

    def rests(self) -> None:
        self._resting[self.transport] = None

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

    def _begin_part(self, arrived: int) -> None:
        super()._begin_part(arrived)
        self.crowd.waits(self.transport, lambda: self.pace)

    def _end_body(self) -> None:
        if self._part is not None:
            self.crowd.has_all(self.transport)
        super()._end_body()


def address(transport: asyncio.BaseTransport) -> str:
    """Where a connection comes from: an address, or the network that one host has."""
    peer: Any = transport.get_extra_info("peername")
    return network(str(peer[0])) if isinstance(peer, tuple) and peer else ""


def of_at_most(most: int) -> type[Crowded]:
    """The protocol for so many connections."""
    crowd = Crowd(most)
    websocket = type("PublicWebsocket", (CrowdedWebsocket,), {"crowd": crowd})
    return type("Public", (Crowded,), {"crowd": crowd, "websocket": websocket})
