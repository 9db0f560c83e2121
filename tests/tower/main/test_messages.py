"""Messages of callers on websockets: none is unpacked into many times its length, none is long (T45)."""

from __future__ import annotations

import asyncio
import contextlib
import socket
from collections.abc import AsyncIterator
from typing import Any

import pytest
import uvicorn
from websockets.asyncio.client import connect
from websockets.exceptions import ConnectionClosed

from tower.main import crowd
from tower.main.listener import configured

LONGEST = 1024 * 1024


async def lengths(scope: Any, receive: Any, send: Any) -> None:
    """Says how long each message was."""
    assert scope["type"] == "websocket"
    await receive()
    await send({"type": "websocket.accept"})
    while (message := await receive())["type"] == "websocket.receive":
        await send({"type": "websocket.send", "text": str(len(message["bytes"]))})


@pytest.fixture
async def address() -> AsyncIterator[tuple[str, int]]:
    """A server as Tower has it."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        http = crowd.of_at_most(100)
        server = uvicorn.Server(configured(lengths, certificate=None, http=http))
        server.capture_signals = contextlib.nullcontext  # type: ignore[method-assign,assignment]
        serving = asyncio.create_task(server.serve(sockets=[listener]))
        yield listener.getsockname()[:2]
        server.should_exit = True
        await serving


async def test_t45_a_short_message_unpacks_into_no_long_one(address: tuple[str, int]) -> None:
    host, port = address
    async with connect(f"ws://{host}:{port}/", compression="deflate", proxy=None) as caller:
        assert caller.protocol.extensions == []
        await caller.send(bytes(LONGEST))
        assert await caller.recv() == str(LONGEST)
        await caller.send(bytes(LONGEST + 1))
        with pytest.raises(ConnectionClosed) as ended:
            await caller.recv()
    assert ended.value.rcvd is not None
    assert ended.value.rcvd.code == 1009
