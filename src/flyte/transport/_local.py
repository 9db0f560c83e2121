"""HTTP over the socket of the agent, kept per event loop and closed with it, or where nobody has it any more.

What is at the other end is Tower on this machine: plain HTTP/1.1, no redirections, no proxies. A library that
knows the rest of the protocol takes a millisecond for each call and several for the first one of a process,
more than Tower takes to answer. Errors are those of `httpcore`, as of the other connections.
"""

from __future__ import annotations

import asyncio
import contextlib
import threading
import weakref
from collections.abc import AsyncGenerator, AsyncIterator, Mapping, Sequence
from urllib.parse import urlsplit

import httpcore

Header = tuple[bytes, bytes]

_IDLE_CONNECTIONS = 20
_IDLE_SECONDS = 30.0
_CHUNK = 65536
_LONGEST_HEAD = 65536
_MOST_DIGITS = 8
_HEXADECIMAL = frozenset(b"0123456789abcdef")


class LocalPool:
    """The connections of one session to a unix socket, on each loop that asks."""

    def __init__(self, path: str, *, limits: Mapping[str, int]) -> None:
        """`limits` says of each kind of request how many there are at a time, on one loop."""
        self._path = path
        self._limits = limits
        self._lock = threading.Lock()
        self._kept: weakref.WeakKeyDictionary[asyncio.AbstractEventLoop, _Kept] = weakref.WeakKeyDictionary()
        weakref.finalize(self, self._kept.clear).atexit = False  # as in `Pools`

    @contextlib.asynccontextmanager
    async def request(
        self,
        kind: str,
        method: str,
        url: str,
        *,
        headers: Sequence[Header],
        content: bytes | AsyncIterator[bytes],
        connect_seconds: float,
        read_seconds: float | None,
    ) -> AsyncGenerator[Answer, None]:
        """One request; gives the answer, whose body is read inside the block. Raises httpcore's errors."""
        head = _head(method, url, headers, content)
        kept = await self._here()
        # one that waits holds no connection
        async with kept.slots[kind]:
            connection = kept.idle.take() or await self._open(connect_seconds)
            whole = False
            try:
                await connection.send(head, content)
                answer = await connection.answer(read_seconds)
                yield answer
                whole = answer.whole
            finally:
                if whole:
                    kept.idle.give(connection)
                else:
                    connection.close()

    async def aclose(self) -> None:
        """Close the connections of the running loop."""
        with self._lock:
            kept = self._kept.pop(asyncio.get_running_loop(), None)
        if kept is not None:
            await kept.keeper.aclose()

    async def _here(self) -> _Kept:
        loop = asyncio.get_running_loop()
        with self._lock:
            kept = self._kept.get(loop)
            if kept is not None:
                return kept
            kept = self._kept[loop] = _Kept(self._limits)
        # first step of the generator, on this loop: the loop closes it when it ends, and so the connections
        await kept.keeper.__anext__()
        return kept

    async def _open(self, seconds: float) -> _Connection:
        try:
            async with asyncio.timeout(seconds):
                return _Connection(*await asyncio.open_unix_connection(self._path, limit=_LONGEST_HEAD))
        except TimeoutError as error:
            raise httpcore.ConnectTimeout from error
        except OSError as error:
            raise httpcore.ConnectError(str(error)) from error


class Answer:
    """The answer to one request. `headers` as they came; `whole` once the body was read to its end."""

    def __init__(
        self, status: int, headers: list[Header], reader: asyncio.StreamReader, seconds: float | None
    ) -> None:
        self.status = status
        self.headers = headers
        self.whole = False
        self._reader = reader
        self._seconds = seconds
        fields = {name.lower(): value for name, value in headers}
        self._closes = fields.get(b"connection", b"").lower() == b"close"
        self._chunked = fields.get(b"transfer-encoding", b"").lower() == b"chunked"
        length = fields.get(b"content-length")
        self._length = 0 if status in {204, 304} else int(length) if length is not None else None

    async def aiter_stream(self) -> AsyncGenerator[bytes, None]:
        """The body in pieces, as they come."""
        if self._chunked:
            while size := await self._size():
                yield await self._exactly(size)
                await self._line()
            while await self._line():  # trailers
                pass
        elif self._length is not None:
            left = self._length
            while left:
                piece = await self._some(min(left, _CHUNK))
                if not piece:
                    raise httpcore.RemoteProtocolError("The answer ended early.")
                left -= len(piece)
                yield piece
        else:
            self._closes = True
            while piece := await self._some(_CHUNK):
                yield piece
        self.whole = not self._closes

    async def _size(self) -> int:
        """Of the next chunk; 0 for the last one."""
        digits = (await self._line()).partition(b";")[0].strip()
        if not 0 < len(digits) <= _MOST_DIGITS or set(digits.lower()) - _HEXADECIMAL:
            raise httpcore.RemoteProtocolError("The answer is no HTTP.")
        return int(digits, 16)

    async def _line(self) -> bytes:
        async with _patience(self._seconds):
            return (await self._reader.readuntil(b"\r\n"))[:-2]

    async def _exactly(self, size: int) -> bytes:
        async with _patience(self._seconds):
            return await self._reader.readexactly(size)

    async def _some(self, size: int) -> bytes:
        async with _patience(self._seconds):
            return await self._reader.read(size)


class _Connection:
    """One connection, for one request after the other."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader = reader
        self._writer = writer
        self.idle_since = 0.0

    @property
    def usable(self) -> bool:
        return not (self._reader.at_eof() or self._writer.is_closing())

    async def send(self, head: bytes, content: bytes | AsyncIterator[bytes]) -> None:
        if isinstance(content, bytes):
            await self._write(head + content)
            return
        await self._write(head)
        async for piece in content:
            await self._write(piece)

    async def _write(self, data: bytes) -> None:
        try:
            self._writer.write(data)
            await self._writer.drain()
        except OSError as error:
            raise httpcore.WriteError(str(error)) from error

    async def answer(self, seconds: float | None) -> Answer:
        while True:
            async with _patience(seconds):
                head = await self._reader.readuntil(b"\r\n\r\n")
            first, *lines = head[:-4].split(b"\r\n")
            words = first.split(b" ", 2)
            if len(words) < 2 or not words[0].startswith(b"HTTP/1.") or not words[1].isdigit():
                raise httpcore.RemoteProtocolError("The answer is no HTTP.")
            status = int(words[1])
            if status >= 200:
                headers = [
                    (name, value.strip()) for name, _, value in (line.partition(b":") for line in lines)
                ]
                return Answer(status, headers, self._reader, seconds)

    def close(self) -> None:
        self._writer.close()


class _Idle:
    """The connections of a loop that nobody uses now."""

    def __init__(self) -> None:
        self._connections: list[_Connection] = []
        self._closed = False

    def take(self) -> _Connection | None:
        now = asyncio.get_running_loop().time()
        while self._connections:
            connection = self._connections.pop()
            if connection.usable and now - connection.idle_since < _IDLE_SECONDS:
                return connection
            connection.close()
        return None

    def give(self, connection: _Connection) -> None:
        if self._closed or len(self._connections) >= _IDLE_CONNECTIONS:
            connection.close()
            return
        connection.idle_since = asyncio.get_running_loop().time()
        self._connections.append(connection)

    def close(self) -> None:
        self._closed = True
        connections, self._connections = self._connections, []
        for connection in connections:
            connection.close()


class _Kept:
    """What is kept for a loop, and the generator whose end closes it."""

    def __init__(self, limits: Mapping[str, int]) -> None:
        self.slots = {kind: asyncio.Semaphore(limit) for kind, limit in limits.items()}
        self.idle = _Idle()
        self.keeper = _keep(self.idle)


async def _keep(idle: _Idle) -> AsyncGenerator[None, None]:
    try:
        yield
    finally:
        idle.close()


@contextlib.asynccontextmanager
async def _patience(seconds: float | None) -> AsyncGenerator[None, None]:
    """What is read within so many seconds; errors of the connection as those of httpcore."""
    try:
        if seconds is None:
            yield
        else:
            async with asyncio.timeout(seconds):
                yield
    except TimeoutError as error:
        raise httpcore.ReadTimeout from error
    except asyncio.IncompleteReadError as error:
        raise httpcore.RemoteProtocolError("The server went away without a whole answer.") from error
    except (asyncio.LimitOverrunError, ValueError) as error:
        raise httpcore.RemoteProtocolError("The answer is no HTTP.") from error
    except OSError as error:
        raise httpcore.ReadError(str(error)) from error


def _head(method: str, url: str, headers: Sequence[Header], content: bytes | AsyncIterator[bytes]) -> bytes:
    """The request up to its body. Raises httpcore.LocalProtocolError for a header that is not one line."""
    parts = urlsplit(url)
    target = f"{parts.path or '/'}?{parts.query}" if parts.query else parts.path or "/"
    lines = [f"{method} {target} HTTP/1.1\r\nhost: {parts.netloc}\r\n".encode("ascii")]
    for name, value in headers:
        if not name or not _NOT_IN_NAMES.isdisjoint(name) or not _NOT_IN_VALUES.isdisjoint(value):
            raise httpcore.LocalProtocolError("A header is none.")
        lines.append(b"%b: %b\r\n" % (name, value))
    if isinstance(content, bytes) and (content or method in {"POST", "PUT", "PATCH"}):
        lines.append(b"content-length: %d\r\n" % len(content))
    lines.append(b"\r\n")
    return b"".join(lines)


_NOT_IN_NAMES = frozenset(b"\r\n\0 :")
_NOT_IN_VALUES = frozenset(b"\r\n\0")
