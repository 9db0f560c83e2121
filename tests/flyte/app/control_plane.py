"""A control plane that knows callers by their header and writes down who asked for what."""

from __future__ import annotations

import asyncio
import contextlib
import gzip
import socket
import threading
from collections.abc import Iterator
from typing import Any

import uvicorn
from flyteidl2.auth import identity_pb2

USER_INFO = "/flyteidl2.auth.IdentityService/UserInfo"


class ControlPlane:
    """An ASGI app: `Bearer NAME` and the cookie `tower_session=NAME` are the caller NAME.

    `Bearer bad` is refused, `Bearer down` is answered as if the server were overloaded.
    """

    def __init__(self) -> None:
        self.asked: list[tuple[str, dict[str, str]]] = []
        self.url = ""

    def callers(self) -> list[str]:
        """Who asked, in order."""
        return [name(headers) for _, headers in self.asked]

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] == "lifespan":
            while True:
                message = await receive()
                await send({"type": f"{message['type']}.complete"})
                if message["type"] == "lifespan.shutdown":
                    return
        headers = {key.decode(): value.decode("latin-1") for key, value in scope["headers"]}
        body, more = b"", True
        while more:
            message = await receive()
            body, more = body + message.get("body", b""), message.get("more_body", False)
        if headers.get("content-encoding") == "gzip":
            body = gzip.decompress(body)
        self.asked.append((scope["path"], headers))
        who = name(headers)
        if who in {"", "bad"}:
            await _answer(send, 401, b'{"code":"unauthenticated","message":"unknown caller"}')
        elif who == "down":
            await _answer(send, 503, b'{"code":"unavailable","message":"secret-host-7 is down"}')
        elif who == "denied":
            await _answer(send, 403, b'{"code":"permission_denied","message":"not you"}')
        else:
            info = identity_pb2.UserInfoResponse(subject=who, name=who.title())
            await _answer(send, 200, info.SerializeToString(), "application/proto")


def name(headers: dict[str, str]) -> str:
    """The caller that these headers name."""
    bearer = headers.get("authorization", "").removeprefix("Bearer ")
    return bearer or headers.get("cookie", "").removeprefix("tower_session=")


async def _answer(send: Any, status: int, body: bytes, kind: str = "application/json") -> None:
    headers = [(b"content-type", kind.encode()), (b"content-length", str(len(body)).encode())]
    await send({"type": "http.response.start", "status": status, "headers": headers})
    await send({"type": "http.response.body", "body": body})


@contextlib.contextmanager
def in_thread(app: Any, **config: Any) -> Iterator[str]:
    """Serve an ASGI app from a thread with a loop of its own; gives `host:port`."""
    server = uvicorn.Server(uvicorn.Config(app, log_level="critical", ws="websockets-sansio", **config))
    ready = threading.Event()
    startup = server.startup

    async def announced(sockets: list[socket.socket] | None = None) -> None:
        await startup(sockets)
        ready.set()

    server.startup = announced  # type: ignore[method-assign]
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        place = f"127.0.0.1:{listener.getsockname()[1]}"
        thread = threading.Thread(target=lambda: asyncio.run(server.serve([listener])), daemon=True)
        thread.start()
        assert ready.wait(120)
        try:
            yield place
        finally:
            server.should_exit = True
            thread.join(120)


@contextlib.contextmanager
def control_plane() -> Iterator[ControlPlane]:
    """A running control plane."""
    plane = ControlPlane()
    with in_thread(plane) as place:
        plane.url = f"http://{place}"
        yield plane
