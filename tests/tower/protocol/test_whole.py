"""A request and an answer in one piece are, byte for byte, those that went by ASGI's messages."""

from __future__ import annotations

import asyncio
import re
from typing import Any

import pytest
import uvicorn

from tower.protocol import WHOLE, Bounded, Whole

HEAD = b"POST / HTTP/1.1\r\nhost: x\r\n"
SENT = {
    "plain": HEAD + b"content-length: 2\r\n\r\nab",
    "three in a row": (HEAD + b"content-length: 2\r\n\r\nab") * 3,
    "the last one": HEAD + b"connection: close\r\ncontent-length: 2\r\n\r\nab",
    "chunked": HEAD + b"transfer-encoding: chunked\r\n\r\n1\r\na\r\n1\r\nb\r\n0\r\n\r\n",
    "asks first": HEAD + b"expect: 100-continue\r\ncontent-length: 2\r\n\r\nab",
    "old": b"POST / HTTP/1.0\r\ncontent-length: 2\r\n\r\nab",
    "empty": HEAD + b"content-length: 0\r\n\r\n",
}
DATE = re.compile(rb"date: [^\r]*\r\n")


class Echo:
    """Answers with the body; in one piece where it may."""

    def __init__(self, *, whole: bool) -> None:
        self.whole = whole
        self.went: list[bool] = []

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        exchange: Whole = scope["extensions"][WHOLE]
        body = exchange.body() if self.whole else None
        if body is None:
            body, more = b"", True
            while more:
                message = await receive()
                body, more = body + message.get("body", b""), message.get("more_body", False)
        headers = [(b"x-own", b"1"), (b"content-length", b"%d" % len(body))]
        self.went.append(self.whole and exchange.answer(200, headers, body))
        if not self.went[-1]:
            await send({"type": "http.response.start", "status": 200, "headers": headers})
            await send({"type": "http.response.body", "body": body})
        # after the answer there is nothing to hear but that the client left
        assert (await receive())["type"] == "http.disconnect"


async def heard(app: Echo, sent: bytes, *, answers: int) -> bytes:
    """What a server answers to these bytes."""
    config = uvicorn.Config(app, http=Bounded, lifespan="off", log_config=None, access_log=False)
    config.load()
    state = uvicorn.server.ServerState()

    def made() -> Bounded:
        return Bounded(config=config, server_state=state, app_state={})

    server = await asyncio.get_running_loop().create_server(made, "127.0.0.1", 0)
    reader, writer = await asyncio.open_connection(*server.sockets[0].getsockname())
    writer.write(sent)
    said = b""
    for _ in range(answers):
        head = await reader.readuntil(b"\r\n\r\n")
        if head.startswith(b"HTTP/1.1 100"):
            said, head = said + head, await reader.readuntil(b"\r\n\r\n")
        length = re.search(rb"content-length: (\d+)", head)
        assert length is not None
        said += head + await reader.readexactly(int(length[1]))
    writer.close()
    server.close()
    while state.tasks:
        await asyncio.wait(state.tasks)
    return DATE.sub(b"", said)


@pytest.mark.parametrize("name", SENT)
async def test_the_bytes_are_the_same(name: str) -> None:
    sent, answers = SENT[name], 3 if name == "three in a row" else 1
    usual, whole = Echo(whole=False), Echo(whole=True)
    assert await heard(whole, sent, answers=answers) == await heard(usual, sent, answers=answers)
    assert len(whole.went) == answers
    # an answer that ends the connection goes the usual way
    assert whole.went[-1] is (name not in {"the last one", "old"})


async def test_who_left_is_not_answered() -> None:
    reached, left = asyncio.Event(), asyncio.Event()

    async def app(scope: Any, receive: Any, send: Any) -> None:
        exchange: Whole = scope["extensions"][WHOLE]
        assert exchange.body() == b"ab"
        reached.set()
        assert (await receive())["type"] == "http.disconnect"
        assert not exchange.answer(200, [(b"content-length", b"0")], b"")
        assert exchange.body() is None
        left.set()

    config = uvicorn.Config(app, http=Bounded, lifespan="off", log_config=None)
    config.load()
    state = uvicorn.server.ServerState()
    server = await asyncio.get_running_loop().create_server(
        lambda: Bounded(config=config, server_state=state, app_state={}), "127.0.0.1", 0
    )
    _, writer = await asyncio.open_connection(*server.sockets[0].getsockname())
    writer.write(SENT["plain"])
    await asyncio.wait_for(reached.wait(), 10)
    writer.close()
    await asyncio.wait_for(left.wait(), 10)
    server.close()
