"""Requests that a trusted proxy passed on: its side of the connection is not the caller's."""

from __future__ import annotations

import ipaddress
from collections.abc import Coroutine
from typing import Any

from tower.direct import Answer
from tower.main.doors import App, Receive, Scope, Send, direct


class BehindProxy:
    """Sets the scheme that callers use, and the address that the proxy says they have.

    Only for a listener that nothing but the proxy reaches: whoever else reaches it can claim any address.
    """

    def __init__(self, app: App, public_url: str) -> None:
        self._app = app
        self._secure = public_url.startswith("https://")

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request or websocket."""
        if scope["type"] in {"http", "websocket"}:
            self._translate(scope)
        await self._app(scope, receive, send)

    def direct(self, scope: Scope, body: bytes) -> Coroutine[Any, Any, Answer] | None:
        """The same for a request that is here as a whole (`tower.direct`)."""
        self._translate(scope)
        return direct(self._app, scope, body)

    def _translate(self, scope: Scope) -> None:
        scheme = "ws" if scope["type"] == "websocket" else "http"
        scope["scheme"] = f"{scheme}s" if self._secure else scheme
        address = _caller(scope["headers"])
        if address:
            scope["client"] = (address, 0)


def _caller(headers: list[tuple[bytes, bytes]]) -> str:
    """The last address of the last `x-forwarded-for`: what stands before it, the caller may have written."""
    found = [value for name, value in headers if name == b"x-forwarded-for"]
    if not found:
        return ""
    text = found[-1].rpartition(b",")[2].strip().decode("latin-1")
    try:
        return str(ipaddress.ip_address(text))
    except ValueError:
        return ""
