"""A request that was answered directly is, byte for byte, answered as by ASGI's messages."""

from __future__ import annotations

import asyncio
import logging
import re
from collections.abc import AsyncIterator, Coroutine
from contextlib import asynccontextmanager
from typing import Any

import pytest
import uvicorn
from tests.connections import cut
from uvicorn.server import ServerState

from tower.direct import Answer, Piecewise

HEAD = b"POST /direct HTTP/1.1\r\nhost: x\r\n"
PLAIN = HEAD + b"content-length: 2\r\n\r\nab"
USUAL = HEAD.replace(b"direct", b"asgi") + b"content-length: 2\r\n\r\nab"
SENT = {
    "plain": PLAIN,
    "three in a row": PLAIN * 3,
    "of both kinds": PLAIN + USUAL + PLAIN,
    "the last one": HEAD + b"connection: close\r\ncontent-length: 2\r\n\r\nab",
    "chunked": HEAD + b"transfer-encoding: chunked\r\n\r\n1\r\na\r\n1\r\nb\r\n0\r\n\r\n",
    "asks first": HEAD + b"expect: 100-continue\r\ncontent-length: 2\r\n\r\nab",
    "old": b"POST /direct HTTP/1.0\r\ncontent-length: 2\r\n\r\nab",
    "empty": HEAD + b"content-length: 0\r\n\r\n",
    "without a length": HEAD + b"\r\n",
    "with a query": HEAD.replace(b"direct", b"direct?x=1") + b"content-length: 2\r\n\r\nab",
    "quoted": HEAD.replace(b"direct", b"dir%65ct") + b"content-length: 2\r\n\r\nab",
    "not taken": USUAL,
    "another method": PLAIN.replace(b"POST", b"PUT"),
}
# pipelined requests wait for their turn in uvicorn's way
DIRECT = {"plain": 1, "three in a row": 1, "of both kinds": 1, "the last one": 1, "empty": 1}
DIRECT["without a length"] = 1
DATE = re.compile(rb"date: [^\r]*\r\n")


class Echo:
    """Answers with the body and what it was told of the request."""

    def __init__(self) -> None:
        self.directly = 0
        self.scopes: list[dict[str, Any]] = []

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        body, more = b"", True
        while more:
            message = await receive()
            if message["type"] == "http.disconnect":
                return
            body, more = body + message.get("body", b""), message.get("more_body", False)
        status, headers, body = await self.answer(scope, body)
        headers = [*headers, (b"content-length", b"%d" % len(body))]
        await send({"type": "http.response.start", "status": status, "headers": headers})
        await send({"type": "http.response.body", "body": body})

    async def answer(self, scope: Any, body: bytes) -> Answer:
        self.scopes.append(dict(scope))
        await asyncio.sleep(0)
        return 200, [(b"x-own", b"1")], b"%b %b" % (scope["raw_path"], body)


class Direct(Echo):
    """The same, directly where it is asked for."""

    def direct(self, scope: Any, body: bytes) -> Coroutine[Any, Any, Answer] | None:
        if scope["path"] != "/direct":
            return None
        self.directly += 1
        return self.answer(scope, body)


@asynccontextmanager
async def serving(app: Any, **options: Any) -> AsyncIterator[tuple[asyncio.Server, ServerState]]:
    config = uvicorn.Config(
        app,
        http=Piecewise,
        lifespan="off",
        log_config=None,
        access_log=False,
        proxy_headers=False,
        **options,
    )
    config.load()
    state = ServerState()
    server = await asyncio.get_running_loop().create_server(
        lambda: Piecewise(config=config, server_state=state, app_state={}), "127.0.0.1", 0
    )
    try:
        yield server, state
    finally:
        server.close()
        while state.tasks:
            await asyncio.wait(state.tasks)
        await cut(state)


async def heard(app: Any, *sent: bytes, answers: int = 1) -> bytes:
    """What a server answers to these bytes, which it reads one after the other."""
    async with serving(app) as (server, state):
        reader, writer = await asyncio.open_connection(*server.sockets[0].getsockname())
        for part in sent[:-1]:
            await arrived(state, writer, part)
        writer.write(sent[-1])
        said = b""
        for _ in range(answers):
            head = await reader.readuntil(b"\r\n\r\n")
            if head.startswith(b"HTTP/1.1 100"):
                said, head = said + head, await reader.readuntil(b"\r\n\r\n")
            length = re.search(rb"content-length: (\d+)", head)
            assert length is not None
            said += head + await reader.readexactly(int(length[1]))
        writer.close()
    return DATE.sub(b"", said)


async def arrived(state: ServerState, writer: asyncio.StreamWriter, part: bytes) -> None:
    """Send a part; it has been read when this returns."""
    while not state.connections:
        await asyncio.sleep(0)
    (connection,) = state.connections
    read, before = asyncio.Event(), connection.data_received

    def told(data: bytes) -> None:
        before(data)
        read.set()

    connection.data_received = told  # type: ignore[method-assign]
    writer.transport.write(part)  # type: ignore[union-attr]
    await asyncio.wait_for(read.wait(), 60)
    connection.data_received = before  # type: ignore[method-assign]


@pytest.mark.parametrize("name", SENT)
async def test_the_bytes_are_the_same(name: str) -> None:
    sent, answers = SENT[name], 3 if name in {"three in a row", "of both kinds"} else 1
    usual, direct = Echo(), Direct()
    said = await heard(usual, sent, answers=answers)
    assert await heard(direct, sent, answers=answers) == said
    assert direct.directly == DIRECT.get(name, 0)
    assert [shown(each) for each in direct.scopes] == [shown(each) for each in usual.scopes]


def shown(scope: dict[str, Any]) -> dict[str, Any]:
    """What an application may know of a request, without the ends of its connection."""
    return {name: value for name, value in scope.items() if name not in {"client", "server", "asgi"}}


@pytest.mark.parametrize("cut", [10, len(HEAD), len(PLAIN) - 2, len(PLAIN) - 1])
async def test_a_body_that_comes_later_goes_the_usual_way(cut: int) -> None:
    direct = Direct()
    assert (await heard(direct, PLAIN[:cut], PLAIN[cut:])).endswith(b"/direct ab")
    # the end of the head and the body were in one read, or not
    assert direct.directly == (cut <= len(HEAD))
    assert len(direct.scopes) == 1


class Slow(Direct):
    """Answers when it is let."""

    def __init__(self) -> None:
        super().__init__()
        self.reached, self.let = asyncio.Event(), asyncio.Event()

    async def answer(self, scope: Any, body: bytes) -> Answer:
        self.reached.set()
        await self.let.wait()
        return await super().answer(scope, body)


async def test_a_call_whose_client_left_is_carried_out_and_not_answered() -> None:
    app = Slow()
    async with serving(app) as (server, state):
        _, writer = await asyncio.open_connection(*server.sockets[0].getsockname())
        writer.write(PLAIN)
        await asyncio.wait_for(app.reached.wait(), 60)
        writer.close()
        while state.connections:
            await asyncio.sleep(0)
        app.let.set()
    assert len(app.scopes) == 1


async def test_a_server_that_stops_answers_what_it_has_taken_and_closes() -> None:
    app = Slow()
    async with serving(app) as (server, state):
        reader, writer = await asyncio.open_connection(*server.sockets[0].getsockname())
        writer.write(PLAIN)
        await asyncio.wait_for(app.reached.wait(), 60)
        (connection,) = state.connections
        connection.shutdown()
        app.let.set()
        answer = await asyncio.wait_for(reader.read(), 60)
        assert b"connection: close\r\n" in answer
        assert answer.endswith(b"/direct ab")
        writer.close()


async def test_a_call_that_breaks_is_answered_with_500_and_closed(
    caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    told = logging.getLogger("uvicorn.error")  # others here may have set it up for themselves
    monkeypatch.setattr(told, "handlers", [caplog.handler])
    monkeypatch.setattr(told, "disabled", False)
    caplog.set_level(logging.ERROR, logger=told.name)

    class Broken(Direct):
        async def answer(self, scope: Any, body: bytes) -> Answer:
            raise LookupError("private")

    async with serving(Broken()) as (server, _):
        reader, writer = await asyncio.open_connection(*server.sockets[0].getsockname())
        writer.write(PLAIN)
        answer = await asyncio.wait_for(reader.read(), 60)
        assert answer.startswith(b"HTTP/1.1 500")
        writer.close()
        await writer.wait_closed()
        assert b"private" not in answer
        assert "LookupError" in caplog.text


async def test_a_reader_who_is_behind_is_waited_for() -> None:
    class Large(Direct):
        async def answer(self, scope: Any, body: bytes) -> Answer:
            return 200, [], b"z" * 4_000_000

    async with serving(Large()) as (server, state):
        reader, writer = await asyncio.open_connection(*server.sockets[0].getsockname(), limit=8_000_000)
        writer.write(PLAIN * 3)
        for _ in range(3):
            await reader.readuntil(b"\r\n\r\n")
            assert len(await reader.readexactly(4_000_000)) == 4_000_000
            # the next answer is not written on top of one that was not taken
            assert all(each.transport.get_write_buffer_size() <= 4_100_000 for each in state.connections)
        writer.close()


async def test_an_idle_connection_is_closed_and_a_busy_one_is_not() -> None:
    app = Slow()
    async with serving(app, timeout_keep_alive=0.05) as (server, state):
        reader, writer = await asyncio.open_connection(*server.sockets[0].getsockname())
        app.let.set()
        for _ in range(3):
            writer.write(PLAIN)
            await reader.readuntil(b"/direct ab")
        app.let.clear()
        writer.write(PLAIN)
        (connection,) = state.connections
        over = asyncio.Event()
        handler = connection.timeout_keep_alive_handler

        def told() -> None:
            handler()
            over.set()

        connection.timeout_keep_alive_handler = told  # type: ignore[method-assign]
        if connection.timeout_keep_alive_task is not None:
            connection.timeout_keep_alive_task.cancel()
        connection._arm(0)
        await asyncio.wait_for(over.wait(), 60)
        assert not connection.transport.is_closing()
        app.let.set()
        await reader.readuntil(b"/direct ab")
        assert await asyncio.wait_for(reader.read(), 60) == b""
        writer.close()
