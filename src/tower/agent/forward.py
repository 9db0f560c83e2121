"""What the agent answers: health and metrics by itself, each call of the task by asking Tower."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any

import structlog

from tower.agent.keeper import Keeper, RefusedError
from tower.agent.metrics import FORWARDED
from tower.agent.sockets import Kind
from tower.agent.upstream import BrokenOffError, Connection, Headers, Upstream
from tower.possession import PEER_HEADER, PROOF_HEADER, TOKEN_HEADER

Scope = MutableMapping[str, Any]
Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]

PATIENCE = 10.0
"""How long a call waits for a Tower that is not there, before it is answered with 503."""

_FIRST_PAUSE, _LONGEST_PAUSE = 0.02, 1.0
_LOOK_AFTER = 0.05
_HOP = frozenset(
    {
        b"connection",
        b"keep-alive",
        b"proxy-authenticate",
        b"proxy-authorization",
        b"proxy-connection",
        b"te",
        b"trailer",
        b"transfer-encoding",
        b"upgrade",
        b"expect",
    }
)
_OWN = frozenset({TOKEN_HEADER, PROOF_HEADER, PEER_HEADER, b"x-flyte-agent", b"x-forwarded-for"})
_DROPPED = _HOP | _OWN
_OUTCOMES = {name: FORWARDED[name] for name in ("answered", "refused", "unreachable", "broken-off", "cut")}
log = structlog.get_logger("tower.agent")


class Caller:
    """What a socket is told about a connection: whose it is, and the process at the other end."""

    __slots__ = ("kind", "pid")

    def __init__(self, kind: str, _workload_id: str, pid: int) -> None:
        self.kind = kind
        self.pid = pid


class Forward:
    """The ASGI application behind the agent's sockets."""

    def __init__(self, keeper: Keeper, upstream: Upstream, *, patience: float = PATIENCE) -> None:
        self._keeper = keeper
        self._upstream = upstream
        self._patience = patience
        self._reachable = True

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request."""
        caller: Caller = scope["state"]["workload"]
        if scope["path"] == "/health":
            await self._health(send)
        elif scope["path"] == "/metrics":
            from tower import exposition  # not at the top of this file: see there

            await _answer(send, 200, exposition.text(), exposition.MEDIA_TYPE.encode())
        elif caller.kind != Kind.ATTEMPT:
            await _refuse(send, 403, "permission_denied", "Only the task itself is let through.")
        else:
            outcome = "cut"
            try:
                outcome = await self._call(scope, receive, send, caller)
            finally:
                _OUTCOMES[outcome].inc()

    async def _health(self, send: Send) -> None:
        keeper = self._keeper
        status = "over" if keeper.over else "ok" if keeper.left and self._reachable else "waiting"
        body = {
            "status": status,
            "tower": "reachable" if self._reachable else "unreachable",
            "token_expires_in": round(keeper.left, 1),
        }
        await _answer(send, 200 if status == "ok" else 503, json.dumps(body).encode(), b"application/json")

    async def _call(self, scope: Scope, receive: Receive, send: Send, caller: Caller) -> str:
        first = await receive()
        if first["type"] == "http.disconnect":
            return "cut"
        streamed = bool(first.get("more_body"))
        retried = False
        while True:
            try:
                token = self._keeper.fresh or await self._patiently(self._keeper.token)
                connection = self._upstream.kept() or await self._patiently(self._upstream.connection)
            except RefusedError as refused:
                await _refuse(send, 401, "unauthenticated", str(refused))
                return "refused"
            except (OSError, BrokenOffError):
                self._reachable = False
                log.warning("tower cannot be reached", peer_pid=caller.pid)
                await _refuse(send, 503, "unavailable", "Tower cannot be reached. Try again in a moment.")
                return "unreachable"
            self._reachable = True
            try:
                self._ask(connection, scope, first, token=token, pid=caller.pid)
                pump = asyncio.ensure_future(self._pump(connection, receive)) if streamed else None
                try:
                    again = await self._relay(connection, receive, send, watch=not streamed)
                finally:
                    if pump is not None:
                        pump.cancel()
            except BrokenOffError:
                connection.abort()
                if connection.left:
                    return "cut"
                log.warning("tower broke off", peer_pid=caller.pid)
                if connection.passed:
                    return "broken-off"  # unfinished as it is, the answer is cut
                await _refuse(
                    send, 503, "unavailable", "Tower broke off; the call may have been carried out."
                )
                return "broken-off"
            except BaseException:
                connection.abort()
                raise
            if not again:
                return "answered"
            # Tower does not take the token: it may have expired on the way
            self._keeper.spoil(token)
            if retried or streamed:
                await _refuse(send, 401, "unauthenticated", "Tower does not take the agent's token.")
                return "refused"
            retried = True

    async def _patiently(self, wanted: Callable[[], Awaitable[Any]]) -> Any:
        """Ask again while Tower is not there: nothing was sent yet."""
        loop = asyncio.get_running_loop()
        deadline = loop.time() + self._patience
        pause = _FIRST_PAUSE
        while True:
            try:
                return await wanted()
            except (OSError, BrokenOffError):
                if loop.time() + pause >= deadline:
                    raise
            await asyncio.sleep(pause)
            pause = min(2 * pause, _LONGEST_PAUSE)

    def _ask(self, connection: Connection, scope: Scope, first: Message, *, token: str, pid: int) -> None:
        query: bytes = scope["query_string"]
        target: bytes = scope["raw_path"] + (b"?" + query if query else b"")
        method: str = scope["method"]
        headers: Headers = [pair for pair in scope["headers"] if pair[0] not in _DROPPED]
        headers += (
            (TOKEN_HEADER, token.encode()),
            (PROOF_HEADER, self._keeper.prove(method, target, token)),
            (PEER_HEADER, b"%d" % pid),
        )
        body: bytes = first.get("body", b"")
        sized = any(name == b"content-length" for name, _ in headers)
        connection.chunked = not sized and bool(body or first.get("more_body"))
        if connection.chunked:
            headers.append((b"transfer-encoding", b"chunked"))
            body = _chunk(body) + (b"" if first.get("more_body") else _LAST)
        connection.ask(method.encode(), target, headers, body)

    async def _pump(self, connection: Connection, receive: Receive) -> None:
        """The rest of the task's body, as it comes."""
        more = True
        while more:
            message = await receive()
            if message["type"] == "http.disconnect":
                connection.left = True
                connection.abort()
                return
            more = bool(message.get("more_body"))
            body: bytes = message.get("body", b"")
            if connection.chunked:
                body = _chunk(body) + (b"" if more else _LAST)
            if body:
                await connection.more(body)

    async def _relay(self, connection: Connection, receive: Receive, send: Send, *, watch: bool) -> bool:
        """Pass on Tower's answer; True, with nothing passed on, when it was about the agent's token."""
        loop = asyncio.get_running_loop()
        watching: list[asyncio.Future[None]] = []

        def look() -> None:
            watching.append(asyncio.ensure_future(_gone(connection, receive)))

        # most calls are over before anybody could hang up: only what takes long is watched
        timer = loop.call_later(_LOOK_AFTER, look) if watch else None
        try:
            await connection.head()
            if any(name == TOKEN_HEADER for name, _ in connection.headers):
                await connection.chunk()
                connection.done()
                return True
            headers = [pair for pair in connection.headers if pair[0] not in _HOP]
            start = {"type": "http.response.start", "status": connection.status, "headers": headers}
            connection.passed = True
            await send(start)
            while True:
                chunk = await connection.chunk()
                # the last piece and the end go out together where the end is known already
                more = bool(chunk) and not connection.complete
                await send({"type": "http.response.body", "body": chunk, "more_body": more})
                if not more:
                    break
            connection.done()
        finally:
            if timer is not None:
                timer.cancel()
            for each in watching:
                each.cancel()
        return False


_LAST = b"0\r\n\r\n"


def _chunk(data: bytes) -> bytes:
    return b"%x\r\n%b\r\n" % (len(data), data) if data else b""


async def _gone(connection: Connection, receive: Receive) -> None:
    """End the call when the task hangs up."""
    while (await receive())["type"] != "http.disconnect":
        pass
    connection.left = True
    connection.abort()


async def _refuse(send: Send, status: int, code: str, message: str) -> None:
    """In the form of the Connect protocol."""
    body = json.dumps({"code": code, "message": message}).encode()
    await _answer(send, status, body, b"application/json")


async def _answer(send: Send, status: int, body: bytes, content_type: bytes) -> None:
    headers = [(b"content-type", content_type), (b"content-length", b"%d" % len(body))]
    if status == 503:
        headers.append((b"retry-after", b"1"))
    await send({"type": "http.response.start", "status": status, "headers": headers})
    await send({"type": "http.response.body", "body": body})
