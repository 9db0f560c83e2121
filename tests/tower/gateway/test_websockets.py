"""Websockets through the gateway: refused without a credential, carried both ways, closed by revocation."""

from __future__ import annotations

import asyncio
import json
from typing import Any

import pytest
from tests.tower.gateway.conftest import Street
from websockets.asyncio.client import connect
from websockets.exceptions import ConnectionClosed, InvalidStatus

from tower.errors import Exhausted
from tower.gateway.shares import Backlog
from tower.identity.authenticators import MACHINE


def dial(street: Street, path: str = "/ws", **options: Any) -> connect:
    """Dial the app's host name; the connection goes to loopback."""
    return connect(f"ws://{street.host}{path}", host="127.0.0.1", port=street.port, proxy=None, **options)


def bearer(key: str) -> dict[str, str]:
    return {"authorization": f"Bearer {key}"}


async def test_messages_go_both_ways_and_the_app_sees_a_token(street: Street) -> None:
    async with dial(
        street, additional_headers=bearer(street.alice), subprotocols=["chat.v1", "chat.v2"]
    ) as socket:
        assert socket.subprotocol == "chat.v1"
        assert socket.response is not None
        assert socket.response.headers["x-app"] == "ws"
        await socket.send(json.dumps("hello"))
        assert json.loads(await socket.recv()) == {"you": "hello"}
        await socket.send(json.dumps("close"))
        with pytest.raises(ConnectionClosed) as ended:
            await socket.recv()
    assert ended.value.rcvd is not None
    assert (ended.value.rcvd.code, ended.value.rcvd.reason) == (4242, "enough")
    seen = street.echo.sockets[0]
    assert street.alice not in str(seen)
    assert street.house.claims(seen["authorization"].removeprefix("Bearer ")).subject == "alice"


@pytest.mark.parametrize(
    "headers", [{}, {"authorization": "Bearer x"}, {"cookie": "tower_session=x"}], ids=str
)
async def test_a_handshake_without_a_good_credential_is_refused(
    street: Street, headers: dict[str, str]
) -> None:
    with pytest.raises(InvalidStatus) as refused:
        async with dial(street, additional_headers=headers):
            pass
    assert refused.value.response.status_code == 401
    assert street.echo.sockets == []
    assert street.house.processes.woken.total() == 0


async def test_a_cookie_opens_a_websocket_from_the_apps_own_page_only(street: Street) -> None:
    cookie = await street.browser()
    for origin in (None, "https://evil.example", "null"):
        with pytest.raises(InvalidStatus) as refused:
            async with dial(street, additional_headers=cookie, origin=origin):
                pass
        assert refused.value.response.status_code == 403
    assert street.echo.sockets == []
    async with dial(street, additional_headers=cookie, origin=street.origin) as socket:
        await socket.send(json.dumps(1))
        assert json.loads(await socket.recv()) == {"you": 1}
    assert "tower_session" not in street.echo.sockets[0].get("cookie", "")


async def test_revocation_closes_the_socket(street: Street) -> None:
    name = (await street.house.keys.list(MACHINE, subject="alice"))[0].name
    async with dial(street, additional_headers=bearer(street.alice)) as socket:
        await street.house.keys.delete(MACHINE, name)
        with pytest.raises(ConnectionClosed) as ended:
            await asyncio.wait_for(socket.recv(), 60)
    assert ended.value.rcvd is not None
    assert ended.value.rcvd.code == 4401


async def test_a_stream_ends_when_the_credential_does(street: Street) -> None:
    name = (await street.house.keys.list(MACHINE, subject="alice"))[0].name
    async with street.client(street.alice) as client, client.stream("GET", "/hang") as answer:
        chunks = answer.aiter_raw()
        await anext(chunks)
        await street.house.keys.delete(MACHINE, name)
        with pytest.raises(Exception, match=r"closed|incomplete"):
            await asyncio.wait_for(anext(chunks), 60)
    await asyncio.wait_for(street.echo.cancelled.wait(), 60)


async def test_the_apps_own_refusal_is_passed_on(street: Street) -> None:
    with pytest.raises(InvalidStatus) as refused:
        async with dial(street, "/ws-denied", additional_headers=bearer(street.alice)):
            pass
    assert refused.value.response.status_code == 403


async def test_a_lost_caller_ends_the_apps_side(street: Street) -> None:
    async with dial(street, additional_headers=bearer(street.alice)) as socket:
        await socket.send(json.dumps("x"))
        await socket.recv()
        socket.transport.abort()
    await asyncio.wait_for(street.house.processes.idle.wait(), 60)


async def test_t45_a_long_message_of_an_app_ends_the_websocket(
    street: Street, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It would be in memory as a whole, several times over for each caller who does not read."""
    monkeypatch.setattr("tower.gateway.websocket.LONGEST_MESSAGE", 100_000)
    async with dial(street, additional_headers=bearer(street.alice), max_size=None) as socket:
        long = "x" * 99_000
        await socket.send(json.dumps(long))
        assert json.loads(await socket.recv()) == {"you": long}
        await socket.send(json.dumps(long + "x" * 1000))
        with pytest.raises(ConnectionClosed) as ended:
            await socket.recv()
    assert ended.value.rcvd is not None
    assert ended.value.rcvd.code == 1011


@pytest.mark.parametrize("waiting", [50_000, 60_055], ids=["what is sent", "what is answered"])
async def test_t45_where_too_much_of_a_caller_waits_to_be_read_their_websocket_ends(
    street: Street, monkeypatch: pytest.MonkeyPatch, waiting: int
) -> None:
    async with dial(street, additional_headers=bearer(street.alice)) as socket:
        await socket.send(json.dumps("short"))
        assert json.loads(await socket.recv()) == {"you": "short"}
        monkeypatch.setattr("tower.gateway.shares.MOST_WAITING", waiting)
        await socket.send(json.dumps("x" * 60_000))  # 60,051 bytes of memory; some more with what comes back
        with pytest.raises(ConnectionClosed) as ended:
            await socket.recv()
    assert ended.value.rcvd is not None
    assert ended.value.rcvd.code == 1013
    async with dial(street, additional_headers=bearer(street.alice)) as socket:
        await socket.send(json.dumps("short"))
        assert json.loads(await socket.recv()) == {"you": "short"}  # what waited is given back


def test_t45_the_backlog_is_each_callers_own_and_is_given_back(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tower.gateway.shares.MOST_WAITING", 100)
    backlog = Backlog()
    with (
        backlog.taking("alice", 60),
        backlog.taking("alice", 40),
        backlog.taking("bob", 100),
        pytest.raises(Exhausted, match="read too slowly"),
        backlog.taking("alice", 1),
    ):
        pass
    with backlog.taking("alice", 100):
        pass
