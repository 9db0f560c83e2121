"""One ASGI application in front of all doors: which request belongs to which."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Coroutine, MutableMapping, Sequence
from typing import Any

from tower.direct import Answer, Direct

Scope = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Any]]
Send = Callable[[Any], Awaitable[None]]
App = Callable[[Scope, Receive, Send], Awaitable[None]]


class Doors:
    """Routes by path prefix; what no prefix claims goes to `otherwise`.

    The public listener adds the gateway, which also claims whole hosts. On the sockets of tasks, apps and the
    administration there is none, and no console.
    """

    def __init__(
        self,
        prefixes: Sequence[tuple[str, App]],
        *,
        otherwise: App,
        claimed: Callable[[Scope], bool] | None = None,
        claimer: App | None = None,
    ) -> None:
        self._prefixes = tuple(prefixes)
        self._otherwise = otherwise
        self._claimed = claimed
        self._claimer = claimer
        # by all that stands before the last slash: the first of the prefixes that is such a place has it
        self._direct: dict[str, Direct] = {
            prefix[:-1]: app.direct
            for prefix, app in reversed(self._prefixes)
            if prefix.endswith("/") and hasattr(app, "direct")
        }

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request or websocket."""
        if self._claimed is not None and self._claimer is not None and self._claimed(scope):
            await self._claimer(scope, receive, send)
            return
        path: str = scope["path"]
        for prefix, app in self._prefixes:
            if path.startswith(prefix):
                # only the gateway and the console speak websocket, and the console only to refuse it
                await (app if scope["type"] == "http" else nothing_here)(scope, receive, send)
                return
        await self._otherwise(scope, receive, send)

    def direct(self, scope: Scope, body: bytes) -> Coroutine[Any, Any, Answer] | None:
        """The same for a request that is here as a whole (`tower.direct`), where its door takes such."""
        offered = self._direct.get(scope["path"].rpartition("/")[0])
        if offered is None or (self._claimed is not None and self._claimed(scope)):
            return None
        return offered(scope, body)


def direct(app: App, scope: Scope, body: bytes) -> Coroutine[Any, Any, Answer] | None:
    """What an application answers directly; None where it does not."""
    offered: Direct | None = getattr(app, "direct", None)
    return None if offered is None else offered(scope, body)


async def nothing_here(scope: Scope, receive: Receive, send: Send) -> None:
    """404 for http, a refusal for a websocket."""
    if scope["type"] == "websocket":
        await send({"type": "websocket.close", "code": 1008})
        return
    headers = [(b"content-type", b"text/plain"), (b"content-length", b"0")]
    await send({"type": "http.response.start", "status": 404, "headers": headers})
    await send({"type": "http.response.body", "body": b""})
