"""Forwarding of one websocket: the app's handshake first, then messages both ways until one side closes."""

from __future__ import annotations

import asyncio
from contextlib import suppress
from pathlib import Path
from sys import getsizeof

import aiohttp
from aiohttp import ClientWebSocketResponse, ClientWSTimeout, WSMsgType
from yarl import URL

from tower.errors import Exhausted, Unauthenticated, Unavailable
from tower.gateway.answers import BadAnswer, Receive, Scope, Send, TimedOut, Unreachable, respond
from tower.gateway.passage import HungUp, Passage
from tower.gateway.shares import LONGEST_MESSAGE, Backlog, caller
from tower.gateway.upstream import CONNECT_SECONDS, Upstreams

CLOSE_SECONDS = 5.0
NO_LONGER_ALLOWED = 4401
"""The close code after the caller's credential was revoked or ran out; the range 4000-4999 is private use."""

_HANDSHAKE = (b"sec-websocket-", b"content-length")


class Socket:
    """One websocket through the gateway."""

    def __init__(
        self,
        passage: Passage,
        *,
        scope: Scope,
        receive: Receive,
        send: Send,
        limit: int,
        recheck: float,
        backlog: Backlog,
    ) -> None:
        self._passage = passage
        self._backlog = backlog
        self._caller = caller(passage)
        self._scope = scope
        self._receive = receive
        self._send = send
        self._limit = limit
        self._recheck = recheck
        self.size = 0
        self.started = False

    async def run(self, upstreams: Upstreams, socket: Path) -> None:
        """Open the app's side, accept the caller's, carry messages.

        Raises a Fault before the acceptance, HungUp when the caller does not wait for it.
        """
        try:
            upstream = await self._awaited(upstreams, socket)
        except aiohttp.WSServerHandshakeError as error:
            await self._declined(error)
            return
        async with upstream:
            await self._accept(upstream)
            await self._carry(upstream)

    async def _awaited(self, upstreams: Upstreams, socket: Path) -> ClientWebSocketResponse:
        """The app's side, for a caller who stays and still may."""
        opening = asyncio.ensure_future(self._open(upstreams, socket))
        gone = asyncio.ensure_future(self._hung_up())
        try:
            while not opening.done():
                await asyncio.wait(
                    {opening, gone}, timeout=self._recheck, return_when=asyncio.FIRST_COMPLETED
                )
                if gone.done():
                    raise HungUp(0)
                if not opening.done() and not await self._passage.holds():
                    raise Unauthenticated("The credential no longer holds.")
            return opening.result()
        except BaseException:
            await _given_up(opening)
            raise
        finally:
            gone.cancel()
            await asyncio.gather(gone, return_exceptions=True)

    async def _open(self, upstreams: Upstreams, socket: Path) -> ClientWebSocketResponse:
        session = await upstreams.session(socket)
        headers = [
            (name.decode("latin-1"), value.decode("latin-1"))
            for name, value in self._passage.request_headers()
            if not name.startswith(_HANDSHAKE)
        ]
        try:
            async with asyncio.timeout(self._passage.place.request_timeout):
                return await session.ws_connect(
                    URL(f"http://app{self._passage.target.line}", encoded=True),
                    headers=headers,
                    protocols=tuple(self._scope.get("subprotocols") or ()),
                    max_msg_size=min(self._limit, LONGEST_MESSAGE),
                    timeout=ClientWSTimeout(ws_close=CLOSE_SECONDS),
                )
        except aiohttp.WSServerHandshakeError:
            raise
        except aiohttp.ClientConnectorError as error:
            await upstreams.forget(socket)
            raise Unreachable("The app is not answering at the moment.", cause=str(error)) from error
        except aiohttp.ConnectionTimeoutError as error:
            raise Unavailable("The app has too many open requests.", hint="Try again in a moment.") from error
        except (aiohttp.ClientError, ValueError) as error:
            raise BadAnswer("The app broke off or gave no proper answer.", cause=repr(error)) from error
        except TimeoutError as error:
            raise TimedOut("The app did not answer in time.") from error

    async def _hung_up(self) -> None:
        """Until the caller is gone: before the acceptance nothing else comes from them."""
        while (await self._receive())["type"] != "websocket.disconnect":
            pass

    async def _declined(self, error: aiohttp.WSServerHandshakeError) -> None:
        """The app's own refusal: its status is passed on, its body is not readable at this point."""
        self.started = True
        status = error.status if 400 <= error.status <= 599 else 502
        with suppress(OSError):  # the caller is gone already
            await respond(self._scope, self._send, status, b"", ())

    async def _accept(self, upstream: ClientWebSocketResponse) -> None:
        raw = upstream._response.raw_headers  # the public surface has no way to the handshake's headers
        headers = [
            (name, value)
            for name, value in self._passage.response_headers(raw)
            if not name.startswith((*_HANDSHAKE, b"content-"))
        ]
        accept = {"type": "websocket.accept", "subprotocol": upstream.protocol, "headers": headers}
        try:
            await self._send(accept)
        except OSError as error:
            raise HungUp(0) from error
        self.started = True

    async def _carry(self, upstream: ClientWebSocketResponse) -> None:
        down = asyncio.ensure_future(self._down(upstream))
        up = asyncio.ensure_future(self._up(upstream))
        try:
            while True:
                done, _ = await asyncio.wait(
                    {down, up}, timeout=self._recheck, return_when=asyncio.FIRST_COMPLETED
                )
                if done:
                    break
                if not await self._passage.holds():
                    await self._close(NO_LONGER_ALLOWED, "The credential no longer holds.")
                    await upstream.close(code=aiohttp.WSCloseCode.GOING_AWAY)
                    return
            if up.done() and (left := up.result()) is not None:
                await asyncio.wait_for(upstream.close(code=left[0], message=left[1]), CONNECT_SECONDS)
                return
            await asyncio.wait({down}, timeout=CLOSE_SECONDS)  # the app's side is lost: its end is coming
            end = down.result() if down.done() else (int(aiohttp.WSCloseCode.INTERNAL_ERROR), "")
            if end is not None:
                await self._close(*end)
        except Exhausted as fault:
            await self._close(int(aiohttp.WSCloseCode.TRY_AGAIN_LATER), fault.message)
        finally:
            for task in (down, up):
                task.cancel()
            await asyncio.gather(down, up, return_exceptions=True)

    async def _down(self, upstream: ClientWebSocketResponse) -> tuple[int, str] | None:
        """From the app to the caller, until the app closes; how. None: the caller is lost.

        Raises Exhausted.
        """
        while True:
            message = await upstream.receive()
            match message.type:
                case WSMsgType.TEXT:
                    sent = {"type": "websocket.send", "text": message.data}
                case WSMsgType.BINARY:
                    sent = {"type": "websocket.send", "bytes": message.data}
                case WSMsgType.CLOSE:
                    return _sendable(message.data), message.extra or ""
                case WSMsgType.ERROR:
                    return aiohttp.WSCloseCode.INTERNAL_ERROR, ""
                case _:
                    return _sendable(upstream.close_code), ""
            try:
                with self._backlog.taking(self._caller, getsizeof(message.data)):
                    await self._send(sent)
            except OSError:
                return None

    async def _up(self, upstream: ClientWebSocketResponse) -> tuple[int, bytes] | None:
        """From the caller to the app, until the caller closes or is lost; how. None: the app is lost.

        Raises Exhausted.
        """
        while True:
            message = await self._receive()
            if message["type"] == "websocket.disconnect":
                reason = (message.get("reason") or "").encode()[:123]
                return _sendable(message.get("code")), reason
            if message["type"] != "websocket.receive":
                continue
            text, data = message.get("text"), message.get("bytes") or b""
            try:
                with self._backlog.taking(self._caller, getsizeof(data if text is None else text)):
                    if text is not None:
                        await upstream.send_str(text)
                    else:
                        await upstream.send_bytes(data)
            except (aiohttp.ClientError, OSError):
                return None

    async def _close(self, code: int, reason: str) -> None:
        with suppress(OSError):  # the caller is gone already
            await self._send({"type": "websocket.close", "code": code, "reason": reason})


async def _given_up(opening: asyncio.Task[ClientWebSocketResponse]) -> None:
    """End a handshake that nobody waits for, and the socket where it was made meanwhile."""
    opening.cancel()
    [made] = await asyncio.gather(opening, return_exceptions=True)
    if isinstance(made, ClientWebSocketResponse):
        await made.close(code=aiohttp.WSCloseCode.GOING_AWAY)


def _sendable(code: int | None) -> int:
    """A close code that may be written on the wire."""
    match code:
        case None | 1005:
            return int(aiohttp.WSCloseCode.OK)
        case 1006 | 1015:
            return int(aiohttp.WSCloseCode.GOING_AWAY)
        case _:
            return int(code)
