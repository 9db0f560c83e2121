"""The route that only sockets of attempts have: `POST /agent/token` answers a run token as plain text."""

from __future__ import annotations

import secrets
from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any

import structlog

from tower.control.attesting import Attesting
from tower.errors import Code, Fault, retry_after
from tower.identity.chain import Chain, Presented
from tower.routes import Table
from tower.rpc.codes import HTTP, WIRE

Scope = MutableMapping[str, Any]
Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]

PREFIX = "/agent/"
TOKEN = "/agent/token"  # noqa: S105  (a path)
_log = structlog.get_logger("tower.rpc")


class AttestedDoor:
    """The ASGI application behind `PREFIX`. Never mounted on the public listener."""

    def __init__(self, attesting: Attesting, *, chain: Chain, version: str) -> None:
        self._attesting = attesting
        self._chain = chain
        self._version = version.encode()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request."""
        if scope["type"] != "http":
            raise RuntimeError("The door of attested processes serves HTTP only.")
        found = _TABLE.find(scope["method"], scope["path"])
        if found is None:
            await self._answer(send, 405 if _TABLE.methods(scope["path"]) else 404, b"")
            return
        await found[0](self, scope, send)

    async def _token(self, scope: Scope, send: Send) -> None:
        presented = Presented(
            headers=tuple(scope["headers"]),
            workload=(scope.get("state") or {}).get("workload"),
            audience="rpc",
        )
        try:
            principal = await self._chain.authenticate(presented)
            token = await self._attesting.run_token(principal, request_id=secrets.token_hex(16))
        except Fault as fault:
            broken = fault.code is Code.INTERNAL
            _log.info("run token refused", code=fault.code.value, cause=fault.cause)
            told = b"" if broken else fault.public.encode()
            await self._answer(send, HTTP[WIRE[fault.code]], told, wait=retry_after(fault))
            return
        await self._answer(send, 200, token.encode())

    async def _answer(self, send: Send, status: int, body: bytes, *, wait: str = "") -> None:
        headers = [
            (b"content-type", b"text/plain; charset=utf-8"),
            (b"content-length", str(len(body)).encode()),
            (b"cache-control", b"no-store"),
            (b"x-tower", self._version),
            *([(b"retry-after", wait.encode())] if wait else []),
        ]
        await send({"type": "http.response.start", "status": status, "headers": headers})
        await send({"type": "http.response.body", "body": body})


_TABLE = Table("agent", [("POST", TOKEN, AttestedDoor._token)])
ROUTES = _TABLE.names
