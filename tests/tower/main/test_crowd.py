"""Where there are too many connections, those that hardly ask for anything make way (T45)."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest
import uvicorn
from tests.connections import cut
from uvicorn.server import ServerState

from tower.direct import Answer
from tower.main import crowd

MOST = 8
UPLOAD = b"POST /upload HTTP/1.1\r\nhost: x\r\ncontent-length: 1000000\r\n\r\nbegin"
ASK = b"GET /ask HTTP/1.1\r\nhost: x\r\n\r\n"
HANG = ASK.replace(b"/ask", b"/hang")
TALK = (
    b"GET /talk HTTP/1.1\r\nhost: x\r\nconnection: Upgrade\r\nupgrade: websocket\r\n"
    b"sec-websocket-version: 13\r\nsec-websocket-key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n"
)
Link = tuple[asyncio.StreamReader, asyncio.StreamWriter]


class Doors:
    """`/ask` is answered, `/refuse` before its body is read, `/upload` after that, `/hang` never.

    `/talk` is a websocket on which nothing is said.
    """

    def __init__(self) -> None:
        self.busy = asyncio.Semaphore(0)
        self.left = asyncio.Semaphore(0)

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        self.busy.release()
        if scope["type"] == "websocket":
            await receive()
            await send({"type": "websocket.accept"})
            while (await receive())["type"] != "websocket.disconnect":
                pass
            self.left.release()
            return
        match scope["path"]:
            case "/hang":
                await asyncio.Event().wait()
            case "/upload":
                while (message := await receive()).get("more_body"):
                    pass
                if message["type"] == "http.disconnect":
                    return
        await send({"type": "http.response.start", "status": 200, "headers": [(b"content-length", b"0")]})
        await send({"type": "http.response.body", "body": b""})


class House:
    """A listener for at most eight."""

    def __init__(self, doors: Doors, place: tuple[str, int]) -> None:
        self.doors = doors
        self.place = place
        self.links: list[Link] = []

    async def hold(self, request: bytes, *, of: str = "127.0.0.1", number: int = MOST) -> None:
        """Make connections that have asked something, and keep them."""
        for _ in range(number):
            link = await asyncio.open_connection(*self.place, local_addr=(of, 0))
            self.links.append(link)
            link[1].write(request)
            await self.doors.busy.acquire()

    async def ask(self, *, of: str = "127.0.0.1") -> bytes:
        """The status line of an answer, nothing where the connection was cut."""
        try:
            link = await asyncio.open_connection(*self.place, local_addr=(of, 0))
            self.links.append(link)
            link[1].write(ASK)
            return await asyncio.wait_for(link[0].readline(), 60)
        except ConnectionError:
            return b""


@asynccontextmanager
async def open_house(doors: Doors | None = None) -> AsyncIterator[House]:
    doors = doors or Doors()
    made = crowd.of_at_most(MOST)
    config = uvicorn.Config(doors, http=made, lifespan="off", log_config=None, proxy_headers=False)
    config.load()
    state = ServerState()
    server = await asyncio.get_running_loop().create_server(
        lambda: made(config=config, server_state=state, app_state={}), "127.0.0.1", 0
    )
    house = House(doors, server.sockets[0].getsockname())
    try:
        yield house
    finally:
        for _, writer in house.links:
            writer.transport.abort()
        server.close()
        await cut(state)


OK = b"HTTP/1.1 200 OK\r\n"


async def test_what_was_answered_makes_way_though_its_body_still_comes() -> None:
    async with open_house() as house:
        await house.hold(UPLOAD.replace(b"/upload", b"/refuse"))
        for reader, _ in house.links:
            assert await reader.readline() == OK
        assert [await house.ask() for _ in range(MOST)] == [OK] * MOST


async def test_who_asks_again_does_not_rest_and_who_was_answered_again_does() -> None:
    async with open_house() as house:
        await house.hold(ASK)
        for reader, writer in house.links:
            await reader.readuntil(b"\r\n\r\n")
            writer.write(HANG)
            await house.doors.busy.acquire()
        assert await house.ask() == b"", "all of them ask for something again"
    async with open_house() as house:
        await house.hold(ASK)
        for reader, writer in house.links:
            await reader.readuntil(b"\r\n\r\n")
            writer.write(ASK)
            await reader.readuntil(b"\r\n\r\n")
        assert await house.ask() == OK


async def test_what_is_answered_directly_rests_too_and_not_before() -> None:
    class Direct(Doors):
        def __init__(self) -> None:
            super().__init__()
            self.go = asyncio.Event()

        def direct(self, scope: Any, body: bytes) -> Any:
            return self.answer()

        async def answer(self) -> Answer:
            self.busy.release()
            await self.go.wait()
            return 200, [], b""

    doors = Direct()
    async with open_house(doors) as house:
        await house.hold(b"POST /ask HTTP/1.1\r\nhost: x\r\ncontent-length: 1\r\n\r\nx")
        assert await house.ask() == b""
        doors.go.set()
        for reader, _ in house.links[:MOST]:
            assert await reader.readline() == OK
        assert await house.ask() == OK


async def test_bodies_that_hardly_come_make_way(monkeypatch: pytest.MonkeyPatch) -> None:
    async with open_house() as house:
        monkeypatch.setattr(crowd, "_SECONDS_TO_SHOW", 3600.0)
        await house.hold(UPLOAD)
        assert await house.ask() == b"", "they have just begun"
        monkeypatch.setattr(crowd, "_SECONDS_TO_SHOW", -1.0)
        monkeypatch.setattr(crowd, "_SLOW", 1 << 30)
        assert await house.ask() == OK


async def test_the_address_that_has_most_makes_way_for_others() -> None:
    async with open_house() as house:
        await house.hold(HANG, of="127.0.0.2")
        assert await house.ask(of="127.0.0.2") == b"", "not for itself"
        assert await house.ask(of="127.0.0.3") == OK
        assert await house.ask(of="127.0.0.4") == OK


async def test_a_crowd_of_many_addresses_is_no_reason_to_cut_one_of_them() -> None:
    async with open_house() as house:
        for number in range(MOST):
            await house.hold(HANG, of=f"127.0.1.{number + 1}", number=1)
        assert await house.ask(of="127.0.2.1") == b""


async def test_websockets_count_to_their_address_and_make_way_too() -> None:
    async with open_house() as house:
        await house.hold(TALK, of="127.0.0.2")
        for reader, _ in house.links:
            assert await reader.readline() == b"HTTP/1.1 101 Switching Protocols\r\n"
        assert await house.ask(of="127.0.0.2") == b"", "not for their own address, however quiet they are"
        assert await house.ask(of="127.0.0.3") == OK
        oldest = house.links[0][0]
        assert b"101" not in await asyncio.wait_for(oldest.read(), 60), "it was cut"


async def test_a_websocket_that_ended_counts_no_more() -> None:
    async with open_house() as house:
        for _ in range(MOST):
            await house.hold(TALK, of="127.0.0.2", number=1)
            reader, writer = house.links[-1]
            assert await reader.readline() == b"HTTP/1.1 101 Switching Protocols\r\n"
            writer.transport.abort()
            await house.doors.left.acquire()
        await asyncio.wait_for(house.hold(HANG, of="127.0.0.2"), 60)  # all are let in


class Wire(asyncio.Transport):
    """A connection without anybody at its other end."""

    def __init__(self, place: str) -> None:
        super().__init__({"peername": (place, 1)})
        self.cut = False

    def abort(self) -> None:
        self.cut = True

    def is_closing(self) -> bool:
        return self.cut

    def write(self, data: object) -> None:
        """Nobody reads it."""

    def set_protocol(self, protocol: object) -> None:
        """Nothing comes."""

    def pause_reading(self) -> None:
        """Nothing comes anyway."""


@pytest.mark.parametrize(
    "held", [b"GET / HT", UPLOAD, HANG, TALK], ids=["resting", "bodies", "asked", "talks"]
)
async def test_a_newcomer_costs_the_same_among_many_as_among_few(
    held: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(crowd, "_SECONDS_TO_SHOW", 3600.0)

    async def cost(most: int) -> int:
        made = crowd.of_at_most(most)
        config = uvicorn.Config(Doors(), http=made, lifespan="off", log_config=None)
        config.load()
        state = ServerState()
        wires = [Wire(f"127.0.{number % 2}.1") for number in range(most)]
        for wire in wires:
            protocol = made(config=config, server_state=state, app_state={})
            protocol.connection_made(wire)
            protocol.data_received(held)
        newcomer = made(config=config, server_state=state, app_state={})
        calls = 0

        def count(*_: Any) -> None:
            nonlocal calls
            calls += 1

        sys.setprofile(count)
        try:
            newcomer.connection_made(Wire("127.0.9.1"))
        finally:
            sys.setprofile(None)
        assert sum(wire.cut for wire in wires) == 1
        for connection in list(state.connections):
            connection.connection_lost(ConnectionResetError())
        for task in state.tasks:
            task.cancel()
        await asyncio.gather(*state.tasks, return_exceptions=True)
        return calls

    assert await cost(400) <= await cost(100)
