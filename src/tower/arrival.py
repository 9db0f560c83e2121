"""A request on its way in: whether all of it is here, and its body once more for another reader."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any

Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]


class Arrival:
    """Watches the messages of one HTTP request: hand its own `receive` on in place of the one given."""

    __slots__ = ("_more", "_receive", "size", "waited_for")

    def __init__(self, scope: MutableMapping[str, Any], receive: Receive) -> None:
        self._receive = receive
        self.size = 0
        """Bytes of the body so far."""
        self.waited_for = False
        """Whether the call ended while more of its body was awaited: its sender is gone, or we are."""
        self._more = any(
            name == b"transfer-encoding" or (name == b"content-length" and value.strip() != b"0")
            for name, value in scope["headers"]
        )

    async def receive(self) -> Message:
        """The next message."""
        try:
            message = await self._receive()
        except asyncio.CancelledError:
            self.waited_for = self._more
            raise
        if message["type"] == "http.disconnect":
            self.waited_for = self.waited_for or self._more
        else:
            self.size += len(message.get("body", b""))
            self._more = bool(message.get("more_body", False))
        return message


def again(body: bytes, receive: Receive) -> Receive:
    """The body once more, as one message, then whatever comes."""
    given = False

    async def receiving() -> Message:
        nonlocal given
        if given:
            return await receive()
        given = True
        return {"type": "http.request", "body": body, "more_body": False}

    return receiving
