"""One request that was let through: to which app, as whom, and whether that still holds."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass

from tower.control.places import Place
from tower.gateway import headers
from tower.gateway.paths import Target
from tower.identity.principal import Principal

RECHECK_SECONDS = 0.5
"""How often it is asked again whether the caller of an open stream or websocket still may."""


class Gone(Exception):
    """The client hung up, or its right ended: nobody waits for the answer any more."""


class HungUp(Gone):
    """The client hung up before the app had begun to answer; what the app was doing for it is cancelled."""

    def __init__(self, size: int) -> None:
        super().__init__()
        self.size = size
        """Bytes of the request's body that had arrived."""


@dataclass(frozen=True, slots=True)
class Passage:
    """What the forwarding side needs. `authorization` is the value for the app, None for an anonymous caller.

    `prefix` is where a path-form app is mounted, "" for its own host. `holds` asks again whether the caller's
    credential and right still stand, for streams that outlive a decision.
    """

    place: Place
    target: Target
    prefix: str
    host: str
    scheme: str
    client: str
    request_id: str
    principal: Principal | None
    extra: tuple[tuple[bytes, bytes], ...]
    inbound: tuple[tuple[bytes, bytes], ...]
    holds: Callable[[], Awaitable[bool]]

    @property
    def shared_origin(self) -> bool:
        """Whether the app's pages would live on the console's own origin."""
        return bool(self.prefix)

    def request_headers(self) -> list[tuple[bytes, bytes]]:
        """The headers of the request that the app gets."""
        own = [
            (b"host", self.host.encode()),
            (b"x-forwarded-for", self.client.encode()),
            (b"x-forwarded-host", self.host.encode()),
            (b"x-forwarded-proto", self.scheme.encode()),
            (b"x-request-id", self.request_id.encode()),
        ]
        if self.prefix:
            own.append((b"x-forwarded-prefix", self.prefix.encode()))
        return [*headers.inbound(self.inbound, keep_cookies=not self.prefix), *own, *self.extra]

    def response_headers(self, raw: headers.Headers) -> list[tuple[bytes, bytes]]:
        """The headers of the app's answer that the caller gets."""
        kept = headers.outbound(raw, host=self.host, shared_origin=self.shared_origin)
        return [*kept, (b"x-request-id", self.request_id.encode())]
