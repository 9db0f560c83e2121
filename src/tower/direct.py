"""Requests that come in one piece, and are answered in one: past ASGI's way of many messages.

Most RPCs are such, and that way costs several times what they need of the protocol. An application that
offers `direct` is asked about each request that has arrived as a whole, in one read with the end of its head;
what it does not take, and all else, goes uvicorn's way: bodies that are still coming, other forms, pipelines.
"""

from __future__ import annotations

from collections.abc import Callable, Coroutine, MutableMapping
from typing import Any, TypeAlias

from uvicorn.protocols.http.httptools_impl import STATUS_LINE, HttpToolsProtocol

from tower.protocol import Bounded

Answer: TypeAlias = tuple[int, list[tuple[bytes, bytes]], bytes]
"""Status, headers without the length, and body. No header has a line break: nobody looks at them any more."""

Direct: TypeAlias = Callable[[MutableMapping[str, Any], bytes], Coroutine[Any, Any, Answer] | None]
"""Takes the ASGI scope and the body of a request, or does not; nothing else has seen it yet."""

_SPECIAL = frozenset({b"host", b"expect", b"transfer-encoding", b"upgrade"})
_BROKEN: Answer = (500, [(b"content-type", b"text/plain; charset=utf-8")], b"Internal Server Error")


class _Deaf:
    """Stands for the event that wakes an ASGI application: here there is none."""

    def set(self) -> None:
        """Nobody waits."""


class _Call:
    """What uvicorn wants to know of a request under way."""

    __slots__ = ("disconnected", "keep_alive", "response_complete")
    message_event = _Deaf()
    response_started = False

    def __init__(self, keep_alive: bool) -> None:
        self.keep_alive = keep_alive
        self.disconnected = self.response_complete = False


class Piecewise(Bounded):
    """The protocol of the public listener; set `http` of uvicorn's configuration to this class."""

    def __init__(self, *arguments: Any, **options: Any) -> None:
        super().__init__(*arguments, **options)
        self._direct: Direct | None = getattr(self.app, "direct", None)
        self._usual = False  # nothing in the head so far asks for more than a body and an answer
        self._hosts = 0
        self._held = False  # the head is here, and no application was told yet
        self._pieces: list[bytes] = []
        self._idle_since: float | None = None

    def data_received(self, data: bytes) -> None:
        super().data_received(data)
        if self._held and not self.transport.is_closing():
            self._let_go()

    def connection_lost(self, exc: Exception | None) -> None:
        if self.timeout_keep_alive_task is not None:
            self.timeout_keep_alive_task.cancel()
        super().connection_lost(exc)

    def on_message_begin(self) -> None:
        super().on_message_begin()
        self._usual = self._direct is not None
        self._hosts = 0

    def on_header(self, name: bytes, value: bytes) -> None:
        name = name.lower()
        if name in _SPECIAL:
            if name == b"host":
                self._hosts += 1
            else:
                self._usual = False
        if self._usual:
            self.headers.append((name, value))
        else:
            super().on_header(name, value)

    def on_headers_complete(self) -> None:
        parser, before = self.parser, self.cycle
        if (
            self._usual
            and (before is None or before.response_complete)
            and parser.get_method() == b"POST"
            and parser.get_http_version() == "1.1"
            and b"%" not in self.url
            and b"?" not in self.url
            and self.url[:1] == b"/"
            and self._hosts == 1
        ):
            self._held = True
            self.head_complete()
        else:
            super().on_headers_complete()

    def on_body(self, body: bytes) -> None:
        if self._held:
            self._body += len(body)
            self._read += len(body)
            self._pieces.append(body)
        else:
            super().on_body(body)

    def on_message_complete(self) -> None:
        if not self._held:
            super().on_message_complete()
            return
        assert self._direct is not None
        scope: Any = self.scope
        path = self.url.decode("ascii", "surrogateescape")
        scope.update(method="POST", path=path, raw_path=self.url, query_string=b"")
        pieces = self._pieces
        answer = self._direct(scope, pieces[0] if len(pieces) == 1 else b"".join(pieces))
        if answer is None:
            self._let_go()
            super().on_message_complete()
            return
        self._in_body = self._held = False
        pieces.clear()
        call: Any = _Call(self.parser.should_keep_alive())
        self.cycle = call
        task = self.loop.create_task(self._serve(call, answer))
        self.tasks.add(task)
        task.add_done_callback(self.tasks.discard)

    def _let_go(self) -> None:
        """Tell uvicorn what it was not told."""
        pieces, self._pieces = self._pieces, []
        self._held = False
        super().on_headers_complete()
        for piece in pieces:
            HttpToolsProtocol.on_body(self, piece)  # counted already

    async def _serve(self, call: _Call, coming: Coroutine[Any, Any, Answer]) -> None:
        try:
            status, headers, body = await coming
        except BaseException as error:
            self.logger.error("Exception in ASGI application\n", exc_info=error)
            status, headers, body = _BROKEN
            call.keep_alive = False
        if self.flow.write_paused and not call.disconnected:
            await self.flow.drain()
        if call.disconnected:
            return
        lines = [b"%b: %b\r\n" % pair for pair in (*self.server_state.default_headers, *headers)]
        end = b"content-length: %d\r\n%b\r\n" % (
            len(body),
            b"" if call.keep_alive else b"connection: close\r\n",
        )
        self.transport.write(b"".join([STATUS_LINE[status], *lines, end, body]))
        call.response_complete = True
        if not call.keep_alive:
            self.transport.close()
        self.on_response_complete()

    # A timer for each pause between two requests costs more than all of the above: here is one for many.

    def _unset_keepalive_if_required(self) -> None:
        self._idle_since = None

    def on_response_complete(self) -> None:
        self.server_state.total_requests += 1
        if self.transport.is_closing():
            return
        self.flow.resume_reading()
        if self.pipeline:
            self._start_asgi_task(*self.pipeline.pop())
            return
        self._idle_since = self.loop.time()
        if self.timeout_keep_alive_task is None:
            self._arm(self.timeout_keep_alive)
        self.rests()

    def rests(self) -> None:
        """All that was asked is answered, and the connection stays."""

    def timeout_keep_alive_handler(self) -> None:
        self.timeout_keep_alive_task = None
        if self._idle_since is None:
            return  # the next answer sets it again
        left = self._idle_since + self.timeout_keep_alive - self.loop.time()
        if left > 0:
            self._arm(left)
        else:
            super().timeout_keep_alive_handler()

    def _arm(self, seconds: float) -> None:
        self.timeout_keep_alive_task = self.loop.call_later(seconds, self.timeout_keep_alive_handler)
