"""Bytes on a connection that are no fair request: bounded in size and time, and read in one way."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest
import uvicorn
from tests.connections import cut

from tower import protocol
from tower.protocol import Bounded


class Seen:
    """An ASGI app that answers 200 and remembers headers and bodies."""

    def __init__(self) -> None:
        self.requests: list[tuple[dict[str, str], int]] = []

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        size, more = 0, True
        while more:
            message = await receive()
            if message["type"] == "http.disconnect":
                return
            size += len(message.get("body", b""))
            more = message.get("more_body", False)
        headers = {name.decode(): value.decode() for name, value in scope["headers"]}
        self.requests.append((headers, size))
        await send({"type": "http.response.start", "status": 200, "headers": [(b"content-length", b"0")]})
        await send({"type": "http.response.body", "body": b""})


@asynccontextmanager
async def talking(seen: Seen) -> AsyncIterator[tuple[asyncio.StreamReader, asyncio.StreamWriter]]:
    """A connection to a server with the protocol."""
    config = uvicorn.Config(seen, http=Bounded, lifespan="off", log_config=None)
    config.load()
    state = uvicorn.server.ServerState()

    def made() -> Bounded:
        return Bounded(config=config, server_state=state, app_state={})

    server = await asyncio.get_running_loop().create_server(made, "127.0.0.1", 0)
    reader, writer = await asyncio.open_connection(*server.sockets[0].getsockname())
    try:
        yield reader, writer
    finally:
        writer.close()
        server.close()
        await cut(state)


async def ask(*pieces: bytes) -> tuple[int, Seen]:
    """Send the pieces; the status of the answer, 0 when the connection was just closed."""
    seen = Seen()
    async with talking(seen) as (reader, writer):
        try:
            for piece in pieces:
                writer.write(piece)
                await writer.drain()
            line = await asyncio.wait_for(reader.readline(), 60)
        except ConnectionError:
            line = b""
        return int(line.split()[1]) if line else 0, seen


HEAD = b"POST / HTTP/1.1\r\nhost: x\r\n"
CHUNKED = HEAD + b"transfer-encoding: chunked\r\n\r\n"


@pytest.mark.parametrize(
    "pieces",
    [
        (HEAD + b"x: ", *(b"y" * 65536 for _ in range(64))),
        (HEAD, *(b"x: y\r\n" * 4096 for _ in range(64))),
        (b"GET /", *(b"a" * 65536 for _ in range(64))),
        (CHUNKED + b"0\r\nx: ", *(b"y" * 65536 for _ in range(64))),
        (CHUNKED + b"1;x=", *(b"y" * 65536 for _ in range(64))),
    ],
    ids=["one header", "many headers", "target", "trailer", "chunk extension"],
)
async def test_an_endless_head_is_cut(pieces: tuple[bytes, ...]) -> None:
    status, seen = await ask(*pieces)
    assert status in {0, 400, 431}
    assert seen.requests == []


async def test_a_large_body_and_small_chunks_pass() -> None:
    status, seen = await ask(HEAD + b"content-length: 4194304\r\n\r\n", *(b"z" * 65536 for _ in range(64)))
    assert (status, seen.requests[0][1]) == (200, 4194304)
    status, seen = await ask(CHUNKED, *(b"1\r\nz\r\n" * 10_000 for _ in range(8)), b"0\r\n\r\n")
    assert (status, seen.requests[0][1]) == (200, 80_000)


async def test_many_requests_of_one_connection_pass() -> None:
    seen = Seen()
    async with talking(seen) as (reader, writer):
        for _ in range(20):
            writer.write(HEAD + b"x: " + b"y" * 60_000 + b"\r\ncontent-length: 0\r\n\r\n")
            assert (await reader.readuntil(b"\r\n\r\n")).startswith(b"HTTP/1.1 200")
    assert len(seen.requests) == 20


@pytest.mark.parametrize(
    ("begun", "rest"),
    [
        (HEAD + b"content-length: 200000\r\n\r\n", b"z" * 200_000),
        (CHUNKED, b"1\r\nz\r\n" * 40_000 + b"0\r\n\r\n"),
    ],
    ids=["length", "small chunks"],
)
async def test_a_body_that_was_not_waited_for_is_not_the_next_head(begun: bytes, rest: bytes) -> None:
    async def refusing(scope: Any, receive: Any, send: Any) -> None:
        await send({"type": "http.response.start", "status": 401, "headers": [(b"content-length", b"0")]})
        await send({"type": "http.response.body", "body": b""})

    async with patient(refusing) as (reader, writer, _timers, connection):
        writer.write(begun)
        assert (await asyncio.wait_for(reader.readuntil(b"\r\n\r\n"), 60)).startswith(b"HTTP/1.1 401")
        connection.data_received(rest + HEAD + b"content-length: 3\r\n\r\nabc")  # all of it in one read
        assert (await asyncio.wait_for(reader.readuntil(b"\r\n\r\n"), 60)).startswith(b"HTTP/1.1 401")
        assert not connection.transport.is_closing()


async def test_trailers_are_no_headers() -> None:
    status, seen = await ask(CHUNKED + b"2\r\nab\r\n0\r\nauthorization: Bearer planted\r\n\r\n")
    assert (status, seen.requests[0][1]) == (200, 2)
    assert "authorization" not in seen.requests[0][0]


@pytest.mark.parametrize(
    "head", [b"GET / HTTP/1.1\r\nhost: a\r\nhost: b\r\n\r\n", b"GET / HTTP/1.1\r\nx: y\r\n\r\n"]
)
async def test_a_request_has_one_host(head: bytes) -> None:
    status, seen = await ask(head)
    assert (status, seen.requests) == (400, [])


@pytest.mark.parametrize("begun", [b"", b"GET / HTTP/1.1\r\nx: "])
async def test_a_head_that_does_not_come_is_not_waited_for(
    begun: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(protocol, "HEAD_SECONDS", 0.05)
    seen = Seen()
    async with talking(seen) as (reader, writer):
        writer.write(begun)
        assert await asyncio.wait_for(reader.read(), 60) == b""
    assert seen.requests == []


class Timer:
    """One of them."""

    def __init__(self, timers: Timers, entry: tuple[float, Any]) -> None:
        self._timers, self._entry = timers, entry

    def cancel(self) -> None:
        if self._entry in self._timers.waiting:
            self._timers.waiting.remove(self._entry)


class Timers:
    """What a connection asks its loop to do later, done when a test says so: a clock that stands still."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop
        self.waiting: list[tuple[float, Any]] = []

    def call_later(self, seconds: float, callback: Any, *arguments: Any) -> Any:
        entry = (seconds, lambda: callback(*arguments))
        self.waiting.append(entry)
        return Timer(self, entry)

    def ring(self) -> None:
        """The time of everything that waits has come."""
        due, self.waiting = self.waiting, []
        for _, callback in due:
            callback()

    def __getattr__(self, name: str) -> Any:
        return getattr(self._loop, name)


@asynccontextmanager
async def patient(app: Any) -> AsyncIterator[tuple[asyncio.StreamReader, asyncio.StreamWriter, Timers, Any]]:
    """A connection whose timers ring when the test says so, and its protocol."""
    config = uvicorn.Config(app, http=Bounded, lifespan="off", log_config=None)
    config.load()
    timers, made = Timers(asyncio.get_running_loop()), []

    def connect() -> Bounded:
        connection = Bounded(config=config, server_state=uvicorn.server.ServerState(), app_state={})
        connection.loop = timers  # type: ignore[assignment]
        made.append(connection)
        return connection

    server = await asyncio.get_running_loop().create_server(connect, "127.0.0.1", 0)
    reader, writer = await asyncio.open_connection(*server.sockets[0].getsockname())
    try:
        while not made:
            await asyncio.sleep(0)
        yield reader, writer, timers, made[0]
    finally:
        writer.close()
        server.close()
        for connection in made:
            connection.transport.abort()


async def arrived(connection: Any, size: int) -> None:
    """Wait until so much of the body is there."""
    async with asyncio.timeout(60):
        while connection._body < size or not connection._in_body:
            await asyncio.sleep(0)


@pytest.mark.parametrize("head", [HEAD + b"content-length: 100000\r\n\r\n", CHUNKED])
async def test_a_body_that_does_not_come_is_refused_plainly(head: bytes) -> None:
    seen = Seen()
    async with patient(seen) as (reader, writer, timers, connection):
        writer.write(head)
        await arrived(connection, 0)
        assert [seconds for seconds, _ in timers.waiting] == [protocol.BODY_SECONDS]  # the head's is gone
        timers.ring()
        answer = await asyncio.wait_for(reader.read(), 60)
        assert answer.startswith(b"HTTP/1.1 408 ")
        assert b"connection: close" in answer
        text = answer.partition(b"\r\n\r\n")[2]
        assert text == b"The request's body is arriving too slowly"
        assert f"content-length: {len(text)}".encode() in answer
    assert seen.requests == []


async def test_a_body_in_drops_is_refused_and_a_steady_one_is_not() -> None:
    seen = Seen()
    async with patient(seen) as (reader, writer, timers, connection):
        writer.write(HEAD + b"content-length: 10000000\r\n\r\n")
        for part in (1, 2):
            writer.write(b"z" * protocol.BODY_PART)
            await arrived(connection, protocol.BODY_PART * part)
            timers.ring()
            assert timers.waiting  # it may go on
        writer.write(b"z" * 9)
        await arrived(connection, protocol.BODY_PART * 2 + 9)
        timers.ring()
        assert (await asyncio.wait_for(reader.read(), 60)).startswith(b"HTTP/1.1 408 ")
    assert seen.requests == []


async def test_a_reader_who_is_behind_is_not_the_senders_fault() -> None:
    release = asyncio.Event()
    sizes: list[int] = []

    async def late(scope: Any, receive: Any, send: Any) -> None:
        await release.wait()
        seen = Seen()
        await seen(scope, receive, send)
        sizes.extend(size for _, size in seen.requests)

    async with patient(late) as (reader, writer, timers, connection):
        writer.write(HEAD + b"content-length: 200000\r\n\r\n" + b"z" * 150_000)
        async with asyncio.timeout(60):
            while connection.flow is None or not connection.flow.read_paused:
                await asyncio.sleep(0)
        timers.ring()
        timers.ring()
        release.set()
        writer.write(b"z" * 50_000)
        assert (await asyncio.wait_for(reader.readline(), 60)).startswith(b"HTTP/1.1 200")
    assert sizes == [200_000]


async def test_a_body_that_nobody_waits_for_any_more_does_not_hold_the_connection() -> None:
    """The door has refused the call from its head; who then sends its body in drops is cut off."""

    async def refusing(scope: Any, receive: Any, send: Any) -> None:
        await send({"type": "http.response.start", "status": 401, "headers": [(b"content-length", b"0")]})
        await send({"type": "http.response.body", "body": b""})

    async with patient(refusing) as (reader, writer, timers, connection):
        writer.write(HEAD + b"content-length: 1000\r\n\r\n" + b"z")
        assert (await asyncio.wait_for(reader.readuntil(b"\r\n\r\n"), 60)).startswith(b"HTTP/1.1 401")
        await arrived(connection, 1)
        timers.ring()
        assert await asyncio.wait_for(reader.read(), 60) == b""


async def test_a_usual_request_sets_no_timer_for_its_body() -> None:
    seen = Seen()
    async with patient(seen) as (reader, writer, _timers, connection):
        writer.write(HEAD + b"content-length: 3\r\n\r\nabc")
        assert (await asyncio.wait_for(reader.readline(), 60)).startswith(b"HTTP/1.1 200")
        assert connection._part is None
