"""Apps and calls for the tests of the middleware: no server where none is needed, uvicorn where it shows."""

from __future__ import annotations

import asyncio
import contextlib
import socket
from collections.abc import AsyncIterator, Iterable
from typing import Any

import httpx
import uvicorn
from fastapi import FastAPI

from flyte import _context
from flyte.app.extras import FastAPIPassthroughAuthMiddleware

ALICE = {"authorization": "Bearer alice"}
BOB = {"authorization": "Bearer bob"}


def seen() -> dict[str, str] | None:
    """The caller metadata in force here, as a handler's Flyte call would send it."""
    pairs = _context.caller()
    return None if pairs is None else dict(pairs)


def make_app(**options: Any) -> FastAPI:
    """An app with a protected `/me`, a public-looking `/health`, and the middleware with these options."""
    app = FastAPI()

    @app.get("/health")
    async def health() -> dict[str, Any]:
        return {"seen": seen()}

    @app.api_route("/me", methods=["GET", "POST", "DELETE"], include_in_schema=False)
    async def me() -> dict[str, Any]:
        return {"seen": seen()}

    app.add_middleware(FastAPIPassthroughAuthMiddleware, **options)
    return app


def client(app: Any, *, root_path: str = "", base_url: str = "http://app.test") -> httpx.AsyncClient:
    """A client that calls the app in this process."""
    transport = httpx.ASGITransport(app=app, root_path=root_path, raise_app_exceptions=False)
    return httpx.AsyncClient(transport=transport, base_url=base_url)


async def get(app: Any, path: str, headers: Any = None, **options: Any) -> httpx.Response:
    """One GET."""
    async with client(app, **options) as http:
        return await http.get(path, headers=headers)


async def call(
    app: Any,
    *,
    path: str = "/me",
    headers: Iterable[tuple[bytes, bytes]] = (),
    method: str = "GET",
    kind: str = "http",
    extensions: dict[str, Any] | None = None,
    **scope: Any,
) -> list[dict[str, Any]]:
    """Call an ASGI app with exactly this scope, and give back every message it sent."""
    sent: list[dict[str, Any]] = []
    full = {
        "type": kind,
        "asgi": {"version": "3.0"},
        "http_version": "1.1",
        "method": method,
        "scheme": "http" if kind == "http" else "ws",
        "path": path,
        "raw_path": path.encode(),
        "query_string": b"",
        "root_path": "",
        "headers": list(headers),
        "client": ("127.0.0.1", 1),
        "server": ("app.test", 80),
        "extensions": extensions or {},
        **scope,
    }
    if kind == "websocket":
        del full["method"]
    incoming = [{"type": "http.request", "body": b"", "more_body": False}]
    if kind == "websocket":
        incoming = [{"type": "websocket.connect"}, {"type": "websocket.disconnect", "code": 1000}]

    async def receive() -> dict[str, Any]:
        return incoming.pop(0) if incoming else {"type": f"{kind}.disconnect", "code": 1000}

    async def send(message: dict[str, Any]) -> None:
        sent.append(message)

    await app(full, receive, send)
    return sent


@contextlib.asynccontextmanager
async def serving(app: Any, **config: Any) -> AsyncIterator[str]:
    """Serve an app with uvicorn on loopback; gives `host:port`."""
    server = uvicorn.Server(uvicorn.Config(app, log_level="critical", ws="websockets-sansio", **config))
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        port = listener.getsockname()[1]
        started = asyncio.Event()
        startup = server.startup

        async def announced(sockets: list[socket.socket] | None = None) -> None:
            await startup(sockets)
            started.set()

        server.startup = announced  # type: ignore[method-assign]
        task = asyncio.create_task(server.serve([listener]))
        try:
            await asyncio.wait_for(started.wait(), 120)
            yield f"127.0.0.1:{port}"
        finally:
            server.should_exit = True
            await task
