"""Connections of a session that was dropped unclosed, as by another `flyte.init`, are closed in order."""

from __future__ import annotations

import asyncio
import gc
import sys
from pathlib import Path

import pytest

from flyte.transport._pool import Pools

ANSWER = b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\n{}"


async def ask(pools: Pools, url: str) -> None:
    async with pools.request(
        "unary", "POST", url, headers=[(b"host", b"tower")], content=b"{}", read_seconds=60
    ) as answer:
        assert b"".join([piece async for piece in answer.aiter_stream()]) == b"{}"


@pytest.mark.parametrize("place", ["endpoint", "socket"])
async def test_what_an_error_still_holds_is_closed_by_its_loop(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, place: str
) -> None:
    gone = asyncio.Event()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n{}")
        writer.write(ANSWER)
        await reader.read()
        writer.close()
        gone.set()

    if place == "socket":
        server = await asyncio.start_unix_server(serve, tmp_path / "agent")
        pools, url = Pools(uds=str(tmp_path / "agent")), "http://tower/"
    else:
        server = await asyncio.start_server(serve, "127.0.0.1", 0)
        pools, url = Pools(), "http://{}:{}/".format(*server.sockets[0].getsockname())

    async with server:
        await ask(pools, url)
        # an error whose traceback holds itself does the same: what it holds waits for the collector
        pools.__dict__["itself"] = pools
        left: list[str] = []
        with monkeypatch.context() as during:
            during.setattr(sys, "unraisablehook", lambda found: left.append(repr(found.exc_value)))
            del pools
            gc.collect()
            await asyncio.wait_for(gone.wait(), 60)
    assert left == []
