"""Requests by hand, so that they can be left in the middle."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any


async def begun(
    port: int, line: str, *, body: bytes = b"", length: int | None = None, **headers: str
) -> asyncio.StreamWriter:
    """Send the head of a request and what there is of its body; the connection stays open."""
    _, writer = await asyncio.open_connection("127.0.0.1", port)
    sent = {**headers} if length is None else {**headers, "content-length": str(length)}
    head = "".join(f"{name.replace('_', '-')}: {value}\r\n" for name, value in sent.items())
    writer.write(f"{line} HTTP/1.1\r\n{head}\r\n".encode() + body)
    await writer.drain()
    return writer


async def left(writer: asyncio.StreamWriter) -> None:
    """Hang up."""
    writer.close()
    await writer.wait_closed()


async def given_up(read: Callable[[], Awaitable[list[Any]]]) -> Any:
    """The one record that says so, as soon as it is there."""
    async with asyncio.timeout(60):
        while not (found := await read()):
            await asyncio.sleep(0)
    [entry] = found
    return entry
