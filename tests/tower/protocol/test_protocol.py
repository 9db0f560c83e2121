"""Bytes on a connection that are no fair request: bounded in size and time, and read in one way."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest
import uvicorn

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


async def ask(*pieces: bytes) -> tuple[int, Seen]:
    """Send the pieces; the status of the answer, 0 when the connection was just closed."""
    seen = Seen()
    async with talking(seen) as (reader, writer):
        try:
            for piece in pieces:
                writer.write(piece)
                await writer.drain()
            line = await asyncio.wait_for(reader.readline(), 10)
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
        assert await asyncio.wait_for(reader.read(), 10) == b""
    assert seen.requests == []
