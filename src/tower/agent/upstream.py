"""Connections from the agent to Tower: HTTP/1.1 with both bodies streamed, kept open between calls.

It is written on the parser itself because each call passes here on its way: a general client would cost more
than all the rest of the way.
"""

from __future__ import annotations

import asyncio
import ssl
from collections import deque
from pathlib import Path
from urllib.parse import urlsplit

import httptools

Headers = list[tuple[bytes, bytes]]

CONNECT_SECONDS = 5.0
IDLE_SECONDS = 30.0
"""Well below the 75 seconds after which Tower closes an idle connection: no call meets a closing one."""

_BUFFERED = 256 * 1024
_KEPT = 32


class BrokenOffError(Exception):
    """Tower went away while it had the call: nobody knows whether it was carried out."""


class Upstream:
    """Where Tower is. Plain HTTP only to this machine."""

    def __init__(self, url: str, *, ca: Path | None = None) -> None:
        """`ca` is a PEM file of authorities, None those of the system. Raises ValueError."""
        parts = urlsplit(url)
        if parts.scheme not in {"http", "https"} or not parts.hostname:
            raise ValueError("Tower's address is no http or https URL")
        if parts.scheme == "http" and parts.hostname not in {"127.0.0.1", "::1", "localhost"}:
            raise ValueError("away from this machine Tower is spoken to over https")
        self.host: str = parts.hostname
        self.port = parts.port or (443 if parts.scheme == "https" else 80)
        self.authority = parts.netloc.encode()
        self._tls: ssl.SSLContext | None = None
        if parts.scheme == "https":
            self._tls = ssl.create_default_context(cafile=None if ca is None else str(ca))
        self._idle: deque[Connection] = deque()

    async def connection(self) -> Connection:
        """One that is free. Raises OSError when Tower cannot be reached: then nothing was sent."""
        kept = self.kept()
        if kept is not None:
            return kept
        async with asyncio.timeout(CONNECT_SECONDS):
            _, made = await asyncio.get_running_loop().create_connection(
                lambda: Connection(self), self.host, self.port, ssl=self._tls
            )
        return made

    def kept(self) -> Connection | None:
        """One that is open already and free."""
        now = asyncio.get_running_loop().time()
        while self._idle:
            kept = self._idle.pop()
            if kept.usable and now - kept.idle_since < IDLE_SECONDS:
                return kept
            kept.abort()
        return None

    def keep(self, connection: Connection) -> None:
        """Take back a connection whose answer is complete."""
        connection.idle_since = asyncio.get_running_loop().time()
        self._idle.append(connection)
        if len(self._idle) > _KEPT:
            self._idle.popleft().abort()

    def drop(self, connection: Connection) -> None:
        """It ended by itself."""
        if connection in self._idle:
            self._idle.remove(connection)

    def close(self) -> None:
        """End what is kept."""
        while self._idle:
            self._idle.pop().abort()


class Connection(asyncio.Protocol):
    """One connection with at most one call on it.

    For those who use it: `chunked` is how the call's body is sent, `passed` whether its answer was begun to
    be passed on, `left` whether whoever called has hung up.
    """

    def __init__(self, owner: Upstream) -> None:
        self._owner = owner
        self._transport: asyncio.Transport | None = None
        self._lost = False
        self._writable: asyncio.Future[None] | None = None
        self._waiter: asyncio.Future[None] | None = None
        self.idle_since = 0.0
        self.chunked = False
        self.left = False
        self._begin()

    def _begin(self) -> None:
        self._parser = httptools.HttpResponseParser(self)
        self.passed = False
        self.status = 0
        self.headers: Headers = []
        self._head_only = False
        self._started = self._ended = self._reusable = False
        self._chunks: deque[bytes] = deque()
        self._size = 0
        self._paused = False

    @property
    def usable(self) -> bool:
        """Whether it can take a call."""
        return not self._lost and self._transport is not None and not self._transport.is_closing()

    @property
    def complete(self) -> bool:
        """Whether the whole answer is here."""
        return self._ended

    def ask(self, method: bytes, target: bytes, headers: Headers, body: bytes) -> None:
        """Send the head of a call and the first of its body."""
        self._begin()
        self._head_only = method == b"HEAD"
        lines = [method, b" ", target, b" HTTP/1.1\r\n"]
        for name, value in headers:
            lines += (name, b": ", value, b"\r\n")
        lines += (b"\r\n", body)
        assert self._transport is not None
        self._transport.write(b"".join(lines))

    async def more(self, data: bytes) -> None:
        """Send more of the body, as fast as Tower takes it. Raises BrokenOffError."""
        if self._lost or self._transport is None:
            raise BrokenOffError
        self._transport.write(data)
        if self._writable is not None:
            await self._writable

    async def head(self) -> None:
        """Wait for the answer's head: then `status` and `headers` are there. Raises BrokenOffError."""
        while not self._started:
            await self._wait()

    async def chunk(self) -> bytes:
        """More of the answer's body; b"" at its end. Raises BrokenOffError."""
        while not self._chunks and not self._ended:
            await self._wait()
        found = b"".join(self._chunks)
        self._chunks.clear()
        self._size = 0
        if self._paused and self._transport is not None and not self._lost:
            self._paused = False
            self._transport.resume_reading()
        return found

    def done(self) -> None:
        """The answer was taken in full: the connection can have another call."""
        if self._ended and self._reusable and self.usable:
            self._owner.keep(self)
        else:
            self.abort()

    def abort(self) -> None:
        """End it at once."""
        if self._transport is not None:
            self._transport.abort()

    async def _wait(self) -> None:
        if self._lost:
            raise BrokenOffError
        self._waiter = asyncio.get_running_loop().create_future()
        try:
            await self._waiter
        finally:
            self._waiter = None

    def _wake(self) -> None:
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_result(None)

    # asyncio.Protocol

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        self._transport = transport

    def connection_lost(self, exc: Exception | None) -> None:
        self._lost = True
        self._owner.drop(self)
        self.resume_writing()
        self._wake()

    def data_received(self, data: bytes) -> None:
        try:
            self._parser.feed_data(data)
        except httptools.HttpParserError:
            self.abort()
        self._wake()

    def pause_writing(self) -> None:
        self._writable = asyncio.get_running_loop().create_future()

    def resume_writing(self) -> None:
        if self._writable is not None:
            self._writable.set_result(None)
            self._writable = None

    # httptools

    def on_header(self, name: bytes, value: bytes) -> None:
        self.headers.append((name.lower(), value))

    def on_headers_complete(self) -> None:
        self.status = self._parser.get_status_code()
        self._started = True
        if self._head_only:
            self._ended = True

    def on_body(self, body: bytes) -> None:
        self._chunks.append(body)
        self._size += len(body)
        if self._size > _BUFFERED and not self._paused and self._transport is not None:
            self._paused = True
            self._transport.pause_reading()

    def on_message_complete(self) -> None:
        self._ended = True
        self._reusable = self._parser.should_keep_alive() and not self._head_only
