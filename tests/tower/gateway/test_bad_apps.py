"""Apps that answer badly: the gateway gives a clear status, never their mess."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import httpx
import pytest
from tests.tower.gateway.conftest import Street


@asynccontextmanager
async def answering(uds: Path, raw: bytes) -> AsyncIterator[None]:
    """A process that answers every request with these bytes and hangs up."""

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(raw)
        await writer.drain()
        writer.close()

    server = await asyncio.start_unix_server(serve, str(uds))
    async with server:
        yield


@pytest.mark.parametrize(
    "raw",
    [
        b"",
        b"garbage\r\n\r\n",
        b"HTTP/1.1 999 Odd\r\ncontent-length: 0\r\n\r\n",
        b"HTTP/1.1 200 OK\r\ncontent-length: 1\r\ntransfer-encoding: chunked\r\n\r\n0\r\n\r\n",
        b"HTTP/1.1 200 OK\r\ncontent-length: x\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nx: " + b"a" * 100_000 + b"\r\n\r\n",
    ],
    ids=lambda raw: repr(raw[:40]),
)
async def test_an_answer_that_is_no_http_is_a_502(street: Street, raw: bytes, tmp_path: Path) -> None:
    uds = tmp_path / "bad.sock"
    street.house.processes.sockets["flytesnacks/development/echo"] = uds
    async with answering(uds, raw), street.client(street.alice) as client:
        answer = await client.post("/", content=b"x")
    assert answer.status_code == 502
    assert set(answer.json()) == {"detail"}
    assert "garbage" not in answer.text


async def test_an_answer_cut_off_is_not_passed_on_as_whole(street: Street, tmp_path: Path) -> None:
    uds = tmp_path / "bad.sock"
    street.house.processes.sockets["flytesnacks/development/echo"] = uds
    raw = b"HTTP/1.1 200 OK\r\ncontent-length: 100\r\n\r\nhalf"
    async with answering(uds, raw), street.client(street.alice) as client:
        with pytest.raises(httpx.RemoteProtocolError):
            await client.get("/")


async def test_an_app_that_never_answers_is_a_504(street: Street, tmp_path: Path) -> None:
    from flyteidl2.app import app_definition_pb2 as pb
    from tests.tower.gateway.house import message

    from tower.identity.authenticators import MACHINE

    app: pb.App = message("echo")
    app.spec.timeouts.request_timeout.FromMilliseconds(200)
    await street.house.apps.update(MACHINE, app, request_id="r")
    uds = tmp_path / "bad.sock"
    street.house.processes.sockets["flytesnacks/development/echo"] = uds
    hold = asyncio.Event()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await hold.wait()
        writer.close()

    server = await asyncio.start_unix_server(serve, str(uds))
    async with server, street.client(street.alice) as client:
        answer = await client.get("/")
        hold.set()
    assert answer.status_code == 504
    assert json.loads(answer.content) == {"detail": "The app did not answer in time."}
