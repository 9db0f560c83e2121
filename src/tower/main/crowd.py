"""The public listener leaves descriptors to the rest of Tower, and room to who has a question (T45)."""

from __future__ import annotations

import asyncio
import resource
from contextlib import suppress
from typing import ClassVar

from tower.direct import Piecewise

_LARGEST = 1 << 20
_PUBLIC_PART = 2 / 3


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

    To hold connections open is so no way to keep others out: who asks is answered.
    """

    most: ClassVar[int] = 1 << 16
    began = 0.0

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        if len(self.connections) >= self.most and not self._make_way():
            self.transport = transport
            transport.abort()
        else:
            self.began = self.loop.time()
            super().connection_made(transport)

    def data_received(self, data: bytes) -> None:
        if not self.transport.is_closing():
            super().data_received(data)

    def _make_way(self) -> bool:
        resting = [other for other in self.connections if isinstance(other, Crowded) and other.resting]
        if not resting:
            return False
        oldest = min(resting, key=lambda other: other.began)
        oldest.transport.abort()
        self.connections.discard(oldest)  # it hears of that a turn later
        return True

    @property
    def resting(self) -> bool:
        """Whether nothing is asked, or nothing to the end of a head."""
        return not self._in_body and (self.cycle is None or self.cycle.response_complete)


def of_at_most(most: int) -> type[Crowded]:
    """The protocol for so many connections."""
    return type("Public", (Crowded,), {"most": most})
