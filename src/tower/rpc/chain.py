"""The chain in front of every service: request id, outcome record, authenticate, method row, service.

All of it happens before the body is read. The generated code never sees a credential: of the request's
headers it gets those of the protocol alone.
"""

from __future__ import annotations

import asyncio
import logging
import re
import secrets
import time
from collections.abc import Awaitable, Callable, Coroutine, Iterable, Mapping, MutableMapping, Sequence
from contextvars import Token
from typing import Any, Protocol

import structlog
from connectrpc.code import Code
from connectrpc.errors import ConnectError
from google.protobuf import descriptor_pool

from tower.direct import Answer
from tower.errors import Unsupported, retry_after
from tower.identity.chain import Chain, Presented
from tower.identity.principal import Principal
from tower.policy.actions import METHODS, Action, Row, check_complete
from tower.rpc import caller, wire
from tower.rpc.caller import Call, Origin
from tower.rpc.faults import Exchange, exchange, public

Scope = MutableMapping[str, Any]
Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]


class GaveUp(Protocol):
    """Records a call whose client went away before all of it had arrived (`Access.gave_up`)."""

    async def __call__(
        self, principal: Principal, action: Action | None, *, request_id: str, detail: Mapping[str, Any]
    ) -> None: ...


_log = structlog.get_logger("tower.rpc")
_SANE_ID = re.compile(rb"[\x21-\x7e]{1,128}")
_USUAL = "application/proto"
_USUAL_BYTES = _USUAL.encode()
_USUAL_HEADER = (b"content-type", _USUAL_BYTES)
_PROTOCOL_HEADERS = frozenset(
    {
        b"content-type",
        b"content-encoding",
        b"accept-encoding",
        b"connect-protocol-version",
        b"connect-timeout-ms",
        b"connect-content-encoding",
        b"connect-accept-encoding",
    }
)


def methods(application: wire.Application) -> list[str]:
    """The paths of a mounted service: `/package.Service/Method`."""
    service = descriptor_pool.Default().FindServiceByName(application.path.removeprefix("/"))
    return [f"{application.path}/{method.name}" for method in service.methods]


class Door:
    """The ASGI application in front of all mounted services."""

    def __init__(
        self,
        applications: Sequence[wire.Application],
        *,
        chain: Chain,
        origin: Origin,
        max_body: int,
        version: str,
        gave_up: GaveUp | None = None,
    ) -> None:
        """Raises Broken when a mounted method has no row or a row no method: Tower then does not start (T47).

        A service of the table that is not mounted is answered with Unsupported, once the caller is known.
        """
        mounted = {path: each for each in applications for path in methods(each)}
        check_complete(mounted)
        self._routes: dict[str, tuple[wire.Application | None, Row]] = {
            path: (mounted.get(path), row) for path, row in METHODS.items()
        }
        self._unary = {path: each.unary[path] for path, each in mounted.items() if path in each.unary}
        self._direct = {
            path: unary
            for path, unary in self._unary.items()
            if METHODS[path].action is not None and not METHODS[path].anonymous
        }
        self._gzip = wire.Gzip(max_body)
        self.prefixes = tuple(sorted({path.rpartition("/")[0] for path in self._routes}))
        self._chain = chain
        self._origin = origin
        self._max_body = max_body
        self._version = (b"x-tower", version.encode())
        self._gave_up = gave_up
        self._log = _log.bind()  # unbound it would look up its configuration at each call

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one RPC."""
        if scope["type"] != "http":
            raise RuntimeError("The RPC door serves HTTP only.")
        await _Request(self, scope).serve(receive, send)

    def direct(self, scope: Scope, body: bytes) -> Coroutine[Any, Any, Answer] | None:
        """One RPC of the usual form whose request is here as a whole (`tower.direct`); None for any other."""
        unary = self._direct.get(scope["path"])
        if unary is None:
            return None
        request = _Request(self, scope)
        return request.answer(unary, body) if unary.plain(request.first) else None


class _Request:
    """One RPC on its way through the chain."""

    __slots__ = (
        "call",
        "content_type",
        "door",
        "exchange",
        "first",
        "length",
        "presented",
        "scope",
        "status",
        "subject",
    )

    def __init__(self, door: Door, scope: Scope) -> None:
        self.door = door
        self.scope = scope
        self.status = 0
        self.subject = ""
        self.call: Token[Call] | None = None
        headers = tuple(scope["headers"])
        self.first = first = dict(reversed(headers))
        sent = first.get(b"x-request-id", b"")
        request_id = sent.decode("ascii") if _SANE_ID.fullmatch(sent) else secrets.token_hex(16)
        self.exchange = Exchange(scope["path"], request_id)
        said = first.get(b"content-type", b"")
        self.content_type = (
            _USUAL if said == _USUAL_BYTES else said.decode("latin-1").partition(";")[0].strip().lower()
        )
        self.length = first.get(b"content-length", b"")
        state, client = scope.get("state") or {}, scope.get("client")
        self.presented = Presented(
            headers=headers,
            workload=state.get("workload"),
            secure=scope.get("scheme") == "https",
            host=first.get(b"host", b"").decode("latin-1").lower(),
            audience="rpc",
            client=client[0] if client else "",
        )

    async def serve(self, receive: Receive, send: Send) -> None:
        """Run the chain and record the outcome: ok, fault or cancelled."""
        started = time.perf_counter()
        outcome = "cancelled"
        try:
            await self._run(receive, self._answering(send))
            outcome = "ok"
            if self.exchange.fault or self.status != 200:
                outcome = "cancelled" if self._cancelled() else "fault"
        except ConnectError as error:
            # the generated code raises this where the server cancels a stream
            if error.code is not Code.CANCELED:
                outcome = "fault"
                raise
            raise asyncio.CancelledError from error
        except Exception:
            outcome = "fault"
            raise
        finally:
            if self.call is not None:
                caller.leave(self.call)
            self.exchange.renew = None  # or each call would leave a ring of objects behind
            self._record(outcome, time.perf_counter() - started)

    async def answer(self, unary: wire.Unary, body: bytes) -> Answer:
        """What `serve` does, for a request that is here as a whole."""
        started = time.perf_counter()
        outcome = "cancelled"
        try:
            try:
                await self._authenticate()
                status, headers, data = 200, *await self._perform(unary, body)
            except Exception as error:  # noqa: BLE001  (the boundary: nothing private may pass it)
                status, headers, data = self._refusal(error)
            self.status = status
            outcome = "ok" if status == 200 else "cancelled" if self._cancelled() else "fault"
            return status, self._signed(headers), data
        finally:
            self._record(outcome, time.perf_counter() - started)

    def _record(self, outcome: str, seconds: float) -> None:
        """One line for each call. What was allowed to change something has its audit record besides."""
        # at thousands of calls a second a written line costs as much as the call
        log = self.door._log
        if outcome == "ok" and not log.is_enabled_for(logging.DEBUG):
            return
        (log.debug if outcome == "ok" else log.info)(
            "rpc",
            method=self.exchange.method,
            outcome=outcome,
            code=self.exchange.fault or ("ok" if outcome == "ok" else str(self.status)),
            request_id=self.exchange.request_id,
            subject=self.subject,
            ms=round(seconds * 1000, 2),
        )

    def _cancelled(self) -> bool:
        return self.exchange.left or self.exchange.fault == Code.CANCELED.value or self.status == 499

    async def _run(self, receive: Receive, send: Send) -> None:
        route = self.door._routes.get(self.scope["path"])
        if route is None:
            await _plain(send, 404)
            return
        application, row = route
        if self.scope["method"] != "POST":
            await _plain(send, 405, (b"allow", b"POST"))
            return
        if self.content_type not in wire.UNARY and self.content_type not in wire.STREAM:
            await _plain(send, 415, (b"accept-post", b", ".join(t.encode() for t in sorted(wire.UNARY))))
            return
        try:
            if row.anonymous:
                caller.addressed(self.door._origin.base_url(self.presented.host))
            else:
                await self._authenticate()
            self._check_length()
            if application is None or (row.action is None and not row.anonymous):
                raise Unsupported("This Tower does not offer that method.")
        except Exception as error:  # noqa: BLE001  (the boundary: nothing private may pass it)
            await _send(send, *self._refusal(error))
            return
        assert application is not None
        unary = self.door._unary.get(self.scope["path"])
        if unary is not None and unary.plain(self.first):
            try:
                answer = 200, *await self._perform(unary, await self._body(receive))
            except Exception as error:  # noqa: BLE001  (the boundary: nothing private may pass it)
                answer = self._refusal(error)
            await _send(send, *answer)
            return
        exchange.set(self.exchange)
        self.exchange.renew = self._renew
        inner = {**self.scope, "headers": self.protocol_headers, "root_path": ""}
        await application(inner, self._bounded(receive), send)

    async def _perform(self, unary: wire.Unary, body: bytes) -> tuple[list[tuple[bytes, bytes]], bytes]:
        """One request and one answer in the usual form, without the generated code's way through headers."""
        if len(body) > self.door._max_body:
            raise wire.too_large(self.door._max_body)
        answer = await unary.call(body)
        headers = [_USUAL_HEADER]
        if len(answer) >= wire.SMALL:
            headers.append((b"vary", b"Accept-Encoding"))
            if b"gzip" in map(bytes.strip, self.first.get(b"accept-encoding", b"").split(b",")):
                answer = self.door._gzip.compress(answer)
                headers.append((b"content-encoding", b"gzip"))
        return headers, answer

    async def _body(self, receive: Receive) -> bytes:
        """The whole body, up to the limit."""
        chunks: list[bytes] = []
        size, more = 0, True
        while more:
            try:
                message = await receive()
            except asyncio.CancelledError:
                await self._left(size)
                raise
            if message["type"] == "http.disconnect":
                self.exchange.leave()
                await self._left(size)
                raise ConnectError(Code.CANCELED, "The client is gone.")
            chunk = message.get("body", b"")
            size += len(chunk)
            if size > self.door._max_body:
                raise wire.too_large(self.door._max_body)
            chunks.append(chunk)
            more = message.get("more_body", False)
        return chunks[0] if len(chunks) == 1 else b"".join(chunks)

    async def _left(self, size: int) -> None:
        """The client is gone, or the call was ended, before the whole request was here: put it on record."""
        if self.door._gave_up is None or self.call is None:
            return
        await self.door._gave_up(
            caller.current().principal,
            self.door._routes[self.exchange.method][1].action,
            request_id=self.exchange.request_id,
            detail={"method": self.exchange.method, "bytes": str(size)},
        )

    async def _authenticate(self) -> None:
        principal = await self.door._chain.authenticate(self.presented)
        self.subject = principal.subject
        self.call = caller.enter(
            Call(
                principal,
                self.exchange.request_id,
                self.door._origin.base_url(self.presented.host),
            )
        )

    async def _renew(self) -> None:
        """Raise Unauthenticated when the credential no longer names the caller that the stream began with."""
        if self.subject:
            await self.door._chain.authenticate(self.presented)

    @property
    def protocol_headers(self) -> list[tuple[bytes, bytes]]:
        """What the generated code may see."""
        return [pair for pair in self.presented.headers if pair[0] in _PROTOCOL_HEADERS]

    def _check_length(self) -> None:
        if self.length.isdigit() and int(self.length[:20]) > self.door._max_body:
            raise wire.too_large(self.door._max_body)
        for name, value in self.protocol_headers:
            if not value.isascii():
                raise ConnectError(Code.INVALID_ARGUMENT, f"The header {name.decode()} is not ASCII.")

    def _bounded(self, receive: Receive) -> Receive:
        """Count the body, and tell the stream when the client is gone."""
        seen, more = 0, True

        async def bounded() -> Message:
            nonlocal seen, more
            message = await receive()
            if message["type"] == "http.disconnect":
                self.exchange.leave()
                if more:
                    await self._left(seen)
            else:
                seen += len(message.get("body", b""))
                more = message.get("more_body", False)
                if seen > self.door._max_body:
                    raise wire.too_large(self.door._max_body)
            return message

        return bounded

    def _answering(self, send: Send) -> Send:
        """Add the headers that every answer has, and note its status."""

        async def answering(message: Message) -> None:
            if message["type"] == "http.response.start":
                self.status = message["status"]
                message["headers"] = self._signed(message.get("headers", ()))
            await send(message)

        return answering

    def _signed(self, headers: Iterable[tuple[bytes, bytes]]) -> list[tuple[bytes, bytes]]:
        """The headers of an answer, with those that every answer has."""
        signed = [*headers, (b"x-request-id", self.exchange.request_id.encode()), self.door._version]
        if self.exchange.wait:
            signed.append((b"retry-after", self.exchange.wait.encode()))
        return signed

    def _refusal(self, error: Exception) -> Answer:
        """The answer to a call that failed: what may be said of it."""
        translated = public(error, method=self.exchange.method, request_id=self.exchange.request_id)
        self.exchange.fault, self.exchange.wait = translated.code.value, retry_after(error)
        stream = self.content_type in wire.STREAM
        status, content_type, body = wire.answer(translated, stream=stream, content_type=self.content_type)
        headers = [(b"content-type", content_type.encode())]
        if translated.code is Code.UNAUTHENTICATED:
            headers.append((b"www-authenticate", b"Bearer"))
        return status, headers, body


async def _send(send: Send, status: int, headers: list[tuple[bytes, bytes]], body: bytes) -> None:
    headers = [*headers, (b"content-length", b"%d" % len(body))]
    await send({"type": "http.response.start", "status": status, "headers": headers})
    await send({"type": "http.response.body", "body": body})


async def _plain(send: Send, status: int, *headers: tuple[bytes, bytes]) -> None:
    """An answer without a body: the request was not one of the protocol."""
    start = {
        "type": "http.response.start",
        "status": status,
        "headers": [*headers, (b"content-length", b"0")],
    }
    await send(start)
    await send({"type": "http.response.body", "body": b""})
