"""The two routes that signed URLs lead to: `PUT /data/upload/<ticket>` and `GET /data/download/<ticket>`.

The ticket in the path is the whole credential: no header of the request counts, and no log names the path.
"""

from __future__ import annotations

import asyncio
import base64
import binascii
import json
import secrets
from collections.abc import AsyncIterator, Awaitable, Callable, MutableMapping
from typing import Any

import structlog

from tower.arrival import Arrival
from tower.control.data import Data
from tower.errors import Code, Exhausted, Fault, Invalid
from tower.routes import Table
from tower.rpc.codes import HTTP, WIRE

Scope = MutableMapping[str, Any]
Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]

UPLOAD = "/data/upload/"
DOWNLOAD = "/data/download/"
_log = structlog.get_logger("tower.rpc")


class _Gone(Exception):
    """The client left before its body was complete."""


class Transfer:
    """The ASGI application of both routes."""

    prefixes = (UPLOAD, DOWNLOAD)

    def __init__(self, data: Data, *, version: str) -> None:
        self._data = data
        self._version = version.encode()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one upload or download."""
        if scope["type"] != "http":
            raise RuntimeError("The data door serves HTTP only.")
        path, method = scope["path"], scope["method"]
        found = _TABLE.find(method, path)
        try:
            if found is None:
                allowed = ", ".join(_TABLE.methods(path))
                await self._answer(
                    send, 405, problem="Only uploads by PUT and downloads by GET.", allowed=allowed
                )
            else:
                await found[0](self, found[1], scope, receive, send)
        except _Gone:
            _log.info("transfer", method=method, outcome="cancelled")
        except Fault as fault:
            await self._refuse(fault, send, method=method)

    async def _upload(self, ticket: str, scope: Scope, receive: Receive, send: Send) -> None:
        headers = dict(scope["headers"])
        length = headers.get(b"content-length", b"").decode("latin-1")
        arrival = Arrival(scope, receive)
        request_id = secrets.token_hex(16)
        try:
            await self._data.receive(
                ticket,
                _body(arrival.receive),
                content_md5=_md5(headers.get(b"content-md5")),
                length=int(length) if length.isdigit() and len(length) < 16 else None,
                request_id=request_id,
            )
        except (_Gone, asyncio.CancelledError):
            if arrival.waited_for:
                await self._data.gave_up(ticket, size=arrival.size, request_id=request_id)
            raise
        await self._answer(send, 200)

    async def _download(self, ticket: str, scope: Scope, receive: Receive, send: Send) -> None:
        name, size, chunks = await self._data.send(ticket)
        headers = [
            (b"content-type", b"application/octet-stream"),
            (b"content-length", str(size).encode()),
            (b"content-disposition", f'attachment; filename="{name}"'.encode("ascii", "replace")),
            (b"x-content-type-options", b"nosniff"),
            (b"content-security-policy", b"sandbox"),
            (b"cache-control", b"private, no-store"),
            (b"x-tower", self._version),
        ]
        await send({"type": "http.response.start", "status": 200, "headers": headers})
        if scope["method"] != "HEAD":
            async for chunk in chunks:
                await send({"type": "http.response.body", "body": chunk, "more_body": True})
        await send({"type": "http.response.body", "body": b""})

    async def _refuse(self, fault: Fault, send: Send, *, method: str) -> None:
        problem = fault.public
        if fault.code is Code.INTERNAL:
            reference = secrets.token_hex(6)
            _log.error("broken", method=method, reference=reference, cause=fault.cause, exc_info=fault)
            problem = f"Tower failed. Report the reference {reference}."
        # 429 would have the official client send the same file again
        status = 413 if isinstance(fault, Exhausted) else HTTP[WIRE[fault.code]]
        _log.info("transfer", method=method, outcome="fault", code=fault.code.value, cause=fault.cause)
        await self._answer(send, status, problem=problem)

    async def _answer(self, send: Send, status: int, *, problem: str = "", allowed: str = "") -> None:
        body = json.dumps({"detail": problem}).encode() if problem else b""
        headers = [
            (b"content-type", b"application/json"),
            (b"content-length", str(len(body)).encode()),
            (b"x-tower", self._version),
            *([(b"allow", allowed.encode())] if allowed else []),
        ]
        await send({"type": "http.response.start", "status": status, "headers": headers})
        await send({"type": "http.response.body", "body": body})


_TABLE = Table(
    "data",
    [
        ("PUT", UPLOAD + "{ticket}", Transfer._upload),
        ("GET", DOWNLOAD + "{ticket}", Transfer._download),
        ("HEAD", DOWNLOAD + "{ticket}", Transfer._download),
    ],
)
ROUTES = _TABLE.names


async def _body(receive: Receive) -> AsyncIterator[bytes]:
    more = True
    while more:
        message = await receive()
        if message["type"] == "http.disconnect":
            raise _Gone
        yield message.get("body", b"")
        more = message.get("more_body", False)


def _md5(header: bytes | None) -> bytes | None:
    if header is None:
        return None
    try:
        digest = base64.b64decode(header, validate=True)
    except binascii.Error as error:
        raise Invalid("The Content-MD5 is not base64.") from error
    if len(digest) != 16:
        raise Invalid("The Content-MD5 is not of 16 bytes.")
    return digest
