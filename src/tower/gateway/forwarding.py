"""The side of the gateway towards the apps, with the HTTP client that only it needs: loaded on first use."""

from __future__ import annotations

from pathlib import Path

from tower.gateway.answers import Receive, Scope, Send
from tower.gateway.http import Exchange
from tower.gateway.passage import Passage
from tower.gateway.shares import Backlog
from tower.gateway.upstream import Upstreams
from tower.gateway.websocket import Socket


class Forwarding:
    """Legs of requests to apps, over connections that are kept."""

    def __init__(self, *, limit: int, recheck: float) -> None:
        """`limit`: bytes of a request; `recheck`: seconds between two looks whether a passage holds."""
        self._upstreams = Upstreams()
        self._backlog = Backlog()
        self._limit = limit
        self._recheck = recheck

    def leg(self, passage: Passage, *, scope: Scope, receive: Receive, send: Send) -> Exchange | Socket:
        """One try to forward one request or websocket."""
        if scope["type"] == "websocket":
            return Socket(
                passage,
                scope=scope,
                receive=receive,
                send=send,
                limit=self._limit,
                recheck=self._recheck,
                backlog=self._backlog,
            )
        return Exchange(passage, receive=receive, send=send, limit=self._limit, recheck=self._recheck)

    async def run(self, leg: Exchange | Socket, socket: Path, *, method: str) -> None:
        """Forward it to the app that listens on a socket, until it is over."""
        if isinstance(leg, Socket):
            await leg.run(self._upstreams, socket)
        else:
            await leg.run(self._upstreams, socket, method=method)

    async def close(self) -> None:
        """Close the connections to the apps."""
        await self._upstreams.close()
