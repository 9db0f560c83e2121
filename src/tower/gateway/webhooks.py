"""A signed delivery of a third party at the gateway: checked from its headers first, its body read once."""

from __future__ import annotations

import asyncio
from contextlib import AsyncExitStack
from dataclasses import dataclass

from tower.arrival import again
from tower.clock import Clock
from tower.control.webhooks import Delivery, Webhooks
from tower.errors import Unavailable
from tower.gateway.answers import Message, Receive, Send, TooLarge
from tower.gateway.headers import first
from tower.gateway.passage import Gone
from tower.gateway.request import Request
from tower.gateway.shares import Shares, place
from tower.identity.webhooks import read

MAX_BODY = 5 * 1024 * 1024
"""Of a delivery: its body is held in memory until the signature over all of it is checked."""

AT_ONCE = 32
_READ_SECONDS = 30.0


@dataclass(slots=True)
class Delivered:
    """A delivery that may go on to its app, once the app's own rules allow it."""

    delivery: Delivery
    webhooks: Webhooks
    receive: Receive
    status: int = 0

    async def take(self) -> None:
        """Note it as delivered. Raises Unauthenticated for one that was delivered before."""
        await self.webhooks.take(self.delivery)

    def watching(self, send: Send) -> Send:
        """Pass the answer on and note its status."""

        async def sending(message: Message) -> None:
            if message["type"] == "http.response.start":
                self.status = message["status"]
            await send(message)

        return sending

    async def settle(self, *, failed: bool) -> None:
        """After the answer: what the app did not handle may be delivered again."""
        if failed or self.status >= 500:
            await self.webhooks.give_back(self.delivery)


class Inlet:
    """Checks deliveries, a bounded number at once."""

    def __init__(self, webhooks: Webhooks, *, clock: Clock, limit: int = MAX_BODY) -> None:
        self._webhooks = webhooks
        self._clock = clock
        self._limit = limit
        self._room = asyncio.Semaphore(AT_ONCE)
        self._shares = Shares(AT_ONCE)

    @staticmethod
    def claims(request: Request) -> bool:
        """Whether a request is a delivery: to a path that its app declared, and without a credential."""
        return (
            request.place is not None
            and not request.credential
            and not request.websocket
            and request.method == "POST"
            and request.target.path in request.place.webhooks
        )

    async def check(self, request: Request, receive: Receive) -> Delivered:
        """Whom it runs as. Raises Unauthenticated, Denied, TooLarge, Exhausted, Unavailable and Gone."""
        app = request.place
        assert app is not None
        path = request.target.path
        shown = read(app.webhooks[path], request.headers, now=self._clock.now())
        length = first(request.headers, b"content-length")
        if length is not None and int(length) > self._limit:
            raise self._too_large()
        if self._room.locked():
            raise Unavailable("Too many webhooks are being delivered.", hint="Try again in a moment.")
        # bodies that hardly come, from one place, leave room for those of others
        share = self._shares.taking("", place(request.client), what="deliveries")
        async with AsyncExitStack() as room:
            room.enter_context(share)
            await room.enter_async_context(self._room)
            try:
                async with asyncio.timeout(_READ_SECONDS):
                    body = await self._body(receive)
            except TimeoutError as error:
                raise Gone from error
            delivery = self._webhooks.verify((app.project, app.domain, app.name), path, shown, body)
        return Delivered(delivery, self._webhooks, again(body, receive))

    async def _body(self, receive: Receive) -> bytes:
        chunks: list[bytes] = []
        size = 0
        while True:
            message = await receive()
            if message["type"] == "http.disconnect":
                raise Gone
            chunk: bytes = message.get("body", b"")
            size += len(chunk)
            if size > self._limit:
                raise self._too_large()
            chunks.append(chunk)
            if not message.get("more_body", False):
                return b"".join(chunks)

    def _too_large(self) -> TooLarge:
        return TooLarge(f"The body of a webhook is larger than {self._limit} bytes.")


def signatures(request: Request) -> bytes:
    """What failures of deliveries are counted by."""
    return b"\0".join(value for name, value in request.headers if b"signature" in name) or b"unsigned"
