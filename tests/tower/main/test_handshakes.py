"""Whoever does not finish a TLS handshake keeps nobody out, and is not waited for long (T45)."""

from __future__ import annotations

import asyncio
import socket
import ssl
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest

from tower import tls
from tower.main.handshakes import Greeter

MOST = 4


class Echo(asyncio.Protocol):
    """Says what it hears."""

    def __init__(self, open_now: set[asyncio.Transport]) -> None:
        self.open_now = open_now

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self.transport = transport
        self.open_now.add(transport)

    def connection_lost(self, exc: Exception | None) -> None:
        self.open_now.discard(self.transport)

    def data_received(self, data: bytes) -> None:
        self.transport.write(data)


@pytest.fixture(scope="module")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> tls.Certificate:
    folder = tmp_path_factory.mktemp("certificate")
    return tls.local(folder, names=("localhost", "127.0.0.1"), now=time.time())


@asynccontextmanager
async def greeting(
    certificate: tls.Certificate, *, seconds: float = 60.0
) -> AsyncIterator[tuple[Greeter, int]]:
    """A listener, and its port."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate.chain, certificate.key)
    with socket.create_server(("127.0.0.1", 0)) as listener:
        listener.setblocking(False)
        open_now: set[asyncio.Transport] = set()
        greeter = Greeter(listener, context, lambda: Echo(open_now), most=MOST, seconds=seconds)
        try:
            yield greeter, listener.getsockname()[1]
        finally:
            greeter.close()
            await greeter.wait_closed()
            for transport in list(open_now):
                transport.abort()
            async with asyncio.timeout(60):
                while open_now:
                    await asyncio.sleep(0)


async def echoed(port: int, certificate: tls.Certificate) -> bytes:
    """What comes back over TLS."""
    assert certificate.authority is not None
    trust = ssl.create_default_context(cafile=str(certificate.authority))
    reader, writer = await asyncio.open_connection("127.0.0.1", port, ssl=trust)
    writer.write(b"hello")
    try:
        return await asyncio.wait_for(reader.readexactly(5), 60)
    finally:
        writer.transport.abort()


async def silent(port: int) -> asyncio.StreamReader:
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    _KEPT.append(writer)
    return reader


_KEPT: list[asyncio.StreamWriter] = []


@pytest.fixture(autouse=True)
async def dropped() -> AsyncIterator[None]:
    yield
    for writer in _KEPT:
        writer.transport.abort()
    _KEPT.clear()


async def over(reader: asyncio.StreamReader) -> bool:
    """Wait until the other side has cut it, perhaps with an alert."""
    try:
        return not (await asyncio.wait_for(reader.read(), 60)).startswith(b"HTTP")
    except ConnectionError:
        return True


async def test_handshakes_that_are_not_finished_make_way(certificate: tls.Certificate) -> None:
    async with greeting(certificate) as (_, port):
        held = [await silent(port) for _ in range(MOST * 3)]
        assert await echoed(port, certificate) == b"hello"
        assert all([await over(reader) for reader in held[: MOST * 2]])
        assert await echoed(port, certificate) == b"hello"


async def test_a_handshake_is_not_waited_for_long(certificate: tls.Certificate) -> None:
    async with greeting(certificate, seconds=0.1) as (_, port):
        assert await over(await silent(port))
        assert await echoed(port, certificate) == b"hello"


async def test_what_is_no_handshake_is_cut(certificate: tls.Certificate) -> None:
    async with greeting(certificate) as (_, port):
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        _KEPT.append(writer)
        writer.write(b"GET / HTTP/1.1\r\nhost: x\r\n\r\n" * 100)
        assert await over(reader)
        assert await echoed(port, certificate) == b"hello"


async def test_an_end_gives_up_what_is_under_way(certificate: tls.Certificate) -> None:
    async with greeting(certificate) as (greeter, port):
        reader = await silent(port)
        assert await echoed(port, certificate) == b"hello"
        greeter.close()
        await greeter.wait_closed()
        assert await over(reader)
