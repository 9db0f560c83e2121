"""While what runs may go on, agents are answered; everybody else is told that Tower is stopping."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import uvicorn
from uvicorn.server import ServerState

from tower.main.doors import App, Receive, Scope, Send

_BODY = b"Tower is stopping."


@asynccontextmanager
async def lingering(listener: socket.socket, config: uvicorn.Config) -> AsyncIterator[None]:
    """Serve the application of `config` at a listener until the block ends; then cut what is open."""
    config.load()
    state = ServerState()
    server = await asyncio.get_running_loop().create_server(
        lambda: config.http_protocol_class(config=config, server_state=state, app_state={}),  # type: ignore[call-arg]
        sock=listener,
        ssl=config.ssl,
    )
    try:
        yield
    finally:
        server.close()
        for connection in list(state.connections):
            connection.shutdown()
        for task in list(state.tasks):
            task.cancel()


def stopping() -> App:
    """Answers whoever is no agent: another Tower may be here in a moment."""

    async def answer(scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "websocket":
            await send({"type": "websocket.close", "code": 1012})
            return
        headers = [
            (b"content-type", b"text/plain"),
            (b"content-length", str(len(_BODY)).encode()),
            (b"retry-after", b"5"),
            (b"connection", b"close"),
        ]
        await send({"type": "http.response.start", "status": 503, "headers": headers})
        await send({"type": "http.response.body", "body": _BODY})

    return answer
