"""HTTP/1.1 connections with bounds that the parser does not have: on heads, trailers and patience (T45).

Whoever connects, known or not, could otherwise fill the memory with one endless header, or hold descriptors
with requests that never begin or never end. How large a body may be is for each door to say; how slow, is
said here for all of them.
"""

from __future__ import annotations

import asyncio
from typing import Any

from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

MAX_HEAD = 128 * 1024
"""Bytes of request line and headers; the gateway allows less."""

HEAD_SECONDS = 30.0
"""How long a head may take to arrive, counted from the connection or from its first byte."""

BODY_SECONDS = 30.0
"""How long a body may take to arrive, or each part of `BODY_PART` bytes of a larger one."""

BODY_PART = 32 * 1024
"""Bytes of a body that are waited for as long as that: about 1 KiB in a second."""

_PER_BODY_BYTE = 8  # the smallest chunks that somebody may send in earnest: one byte with its length
_TOO_LARGE = (
    b"HTTP/1.1 431 Request Header Fields Too Large\r\ncontent-type: text/plain\r\ncontent-length: 31\r\n"
    b"connection: close\r\n\r\nThe request's head is too large"
)
_TOO_SLOW = (
    b"HTTP/1.1 408 Request Timeout\r\ncontent-type: text/plain\r\ncontent-length: 41\r\n"
    b"connection: close\r\n\r\nThe request's body is arriving too slowly"
)


class Bounded(HttpToolsProtocol):
    """uvicorn's protocol; set `http` of its configuration to this class."""

    def __init__(self, *arguments: Any, **options: Any) -> None:
        super().__init__(*arguments, **options)
        self._in_head = True
        self._around = 0  # bytes since the request began that are no body
        self._body = 0
        self._read = 0  # bytes of bodies in the present read, of whichever request
        self._earlier = 0  # such of them as came before the head of the present request
        self._patience: asyncio.TimerHandle | None = None
        self._in_body = False
        self._arrived = 0  # bytes of the body when the present part began
        self._part: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        self._hurry()

    def connection_lost(self, exc: Exception | None) -> None:
        self._forget()
        self._end_body()
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        self._read = self._earlier = 0
        super().data_received(data)
        if self.transport.is_closing():
            return
        # an answer may come before its request has: the rest of that body and the next head may be one read,
        # and what stood around the former is not the latter's
        around = len(data) - self._read
        if self._earlier:
            around = max(0, around - self._earlier * _PER_BODY_BYTE)
        self._around += around
        if self._around > MAX_HEAD + self._body * _PER_BODY_BYTE:
            self.transport.write(_TOO_LARGE)
            self.transport.close()
        elif self._in_head and self._patience is None:
            self._hurry()
        elif self._in_body and self._part is None:
            self._begin_part(0)

    def on_message_begin(self) -> None:
        self._in_head, self._around, self._body = True, 0, 0
        self._earlier = self._read
        super().on_message_begin()

    def on_header(self, name: bytes, value: bytes) -> None:
        # what follows a chunked body is no header: nothing that decides about a request may come after it
        if self._in_head:
            super().on_header(name, value)

    def on_headers_complete(self) -> None:
        hosts = self.hosts()
        if hosts > 1 or (hosts == 0 and self.parser.get_http_version() == "1.1"):
            raise ValueError("RFC 9112 section 3.2: one Host header")  # answered with 400
        self.head_complete()
        super().on_headers_complete()

    def on_body(self, body: bytes) -> None:
        self._body += len(body)
        self._read += len(body)
        super().on_body(body)

    def on_message_complete(self) -> None:
        self._end_body()
        super().on_message_complete()

    def hosts(self) -> int:
        """How many Host headers the request has."""
        return [name for name, _ in self.headers].count(b"host")

    def head_complete(self) -> None:
        """Wait for the body instead."""
        self._in_head = False
        self._in_body = True
        self._forget()

    def _hurry(self) -> None:
        self._patience = self.loop.call_later(HEAD_SECONDS, self._late)

    def _late(self) -> None:
        self._patience = None
        if self._in_head and not self.transport.is_closing():
            self.transport.close()

    def _begin_part(self, arrived: int) -> None:
        # most bodies come with their head, and never get here
        self._arrived = arrived
        self._part = self.loop.call_later(BODY_SECONDS, self._slow)

    def _slow(self) -> None:
        """The time of a part is over: go on, or give up."""
        self._part = None
        if not self._in_body or self.transport.is_closing():
            return
        answered = self.cycle is not None and self.cycle.response_complete
        talking = self.cycle is not None and self.cycle.response_started
        held_up = self.flow is not None and self.flow.read_paused  # by the reader, who is behind
        if not answered and (talking or held_up or self._body - self._arrived >= BODY_PART):
            self._begin_part(self._body)
            return
        if not talking:
            self.transport.write(_TOO_SLOW)
        self.transport.close()

    def _end_body(self) -> None:
        self._in_body = False
        if self._part is not None:
            self._part.cancel()
            self._part = None

    def _forget(self) -> None:
        if self._patience is not None:
            self._patience.cancel()
            self._patience = None
