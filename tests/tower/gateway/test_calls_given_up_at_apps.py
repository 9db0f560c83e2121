"""Who hangs up before an app has answered is on record once, as themselves; a reader of a stream is not."""

from __future__ import annotations

import asyncio
import json
from typing import Any

import structlog
from tests.raw_calls import begun, given_up, left
from tests.tower.gateway.conftest import Street

from tower.identity.authenticators import MACHINE

APP = "app:flytesnacks/development/echo"


async def cancelled(street: Street) -> list[Any]:
    return await street.house.audit(event="call.cancel")


async def test_half_a_body_is_a_call_given_up(street: Street) -> None:
    sent = {"host": street.host, "authorization": f"Bearer {street.alice}"}
    writer = await begun(street.port, "POST /upload?x=secret", body=b"only this", length=500, **sent)
    await left(writer)
    entry = await given_up(lambda: cancelled(street))
    assert (entry.subject, entry.outcome, entry.action) == ("alice", "cancelled", "app:use")
    assert (entry.credential_kind, entry.credential_id) == ("api_key", street.alice.split("_")[1])
    told = json.loads(entry.detail)
    assert (entry.resource, told["method"]) == (APP, "POST")
    assert int(told["bytes"]) <= len(b"only this")
    assert "secret" not in entry.detail
    [use] = await street.house.audit(event="app.use")
    assert use.request_id == entry.request_id, "the app was reached: both records are of one request"
    await asyncio.wait_for(street.house.processes.idle.wait(), 60)
    await street.house.access.settle(everything=True)
    assert len(await cancelled(street)) == 1


async def test_who_does_not_wait_for_the_answer_gives_it_up(street: Street) -> None:
    sent = {"host": street.host, "authorization": f"Bearer {street.alice}"}
    writer = await begun(street.port, "GET /quiet", **sent)
    await asyncio.wait_for(street.echo.reached.wait(), 60)
    await left(writer)
    entry = await given_up(lambda: cancelled(street))
    assert (entry.subject, entry.resource) == ("alice", APP)
    assert json.loads(entry.detail) == {"bytes": "0", "method": "GET"}
    street.echo.release.set()


async def test_a_stream_that_its_reader_ends_was_not_given_up(street: Street) -> None:
    async with street.client(street.alice) as client, client.stream("GET", "/hang") as answer:
        await anext(answer.aiter_raw())
    await asyncio.wait_for(street.house.processes.idle.wait(), 60)
    assert await cancelled(street) == []


async def test_strangers_leave_no_record_and_neither_do_those_who_may_not(street: Street) -> None:
    dave = await street.house.person("dave", role=None)
    for key in ("twr_nobody_x", dave):
        writer = await begun(
            street.port, "POST /upload", body=b"x", length=9, host=street.host, authorization=f"Bearer {key}"
        )
        await left(writer)
    async with street.client(street.alice) as client:  # behind them, so they were served
        assert (await client.get("/")).status_code == 200
    assert await cancelled(street) == []


async def test_a_caller_whose_right_ends_meanwhile_has_not_given_up(street: Street) -> None:
    sent = {"host": street.host, "authorization": f"Bearer {street.alice}"}
    writer = await begun(street.port, "GET /quiet", **sent)
    await asyncio.wait_for(street.echo.reached.wait(), 60)
    await street.house.rooms.identities.set_disabled(MACHINE, "alice", disabled=True)
    await asyncio.wait_for(street.house.processes.idle.wait(), 60)
    assert await cancelled(street) == []
    street.echo.release.set()
    await left(writer)


UPGRADE = {
    "upgrade": "websocket",
    "connection": "Upgrade",
    "sec_websocket_version": "13",
    "sec_websocket_key": "dGhlIHNhbXBsZSBub25jZQ==",
}


async def shaking(street: Street, path: str = "/ws-slow") -> asyncio.StreamWriter:
    """A websocket whose handshake the app has seen and not answered."""
    sent = {"host": street.host, "authorization": f"Bearer {street.alice}", **UPGRADE}
    writer = await begun(street.port, f"GET {path}", **sent)
    await asyncio.wait_for(street.echo.reached.wait(), 60)
    return writer


async def test_who_leaves_during_the_apps_handshake_gives_the_call_up(street: Street) -> None:
    with structlog.testing.capture_logs() as told:
        await left(await shaking(street))
        entry = await given_up(lambda: cancelled(street))
        assert (entry.subject, entry.outcome, entry.action) == ("alice", "cancelled", "app:use")
        assert (entry.credential_kind, entry.credential_id) == ("api_key", street.alice.split("_")[1])
        assert (entry.resource, json.loads(entry.detail)) == (APP, {"bytes": "0", "method": "GET"})
        await asyncio.wait_for(street.echo.cancelled.wait(), 60)  # the app hears of it and waits for nobody
        await asyncio.wait_for(street.house.processes.idle.wait(), 60)
        await street.house.access.settle(everything=True)
    assert len(await cancelled(street)) == 1
    assert told == [], "a caller who leaves is no fault"


async def test_a_handshake_of_one_whose_right_ends_meanwhile_is_refused(street: Street) -> None:
    reader, writer = await asyncio.open_connection("127.0.0.1", street.port)
    fields = {"host": street.host, "authorization": f"Bearer {street.alice}", **UPGRADE}
    head = "".join(f"{name.replace('_', '-')}: {value}\r\n" for name, value in fields.items())
    writer.write(f"GET /ws-slow HTTP/1.1\r\n{head}\r\n".encode())
    await asyncio.wait_for(street.echo.reached.wait(), 60)
    await street.house.rooms.identities.set_disabled(MACHINE, "alice", disabled=True)
    answer = await asyncio.wait_for(reader.readline(), 60)
    assert answer.startswith(b"HTTP/1.1 401")
    await asyncio.wait_for(street.echo.cancelled.wait(), 60)
    assert await cancelled(street) == []
    await left(writer)


async def test_who_leaves_while_an_app_sends_was_answered_and_is_no_fault(street: Street) -> None:
    sent = {"host": street.host, "authorization": f"Bearer {street.alice}", **UPGRADE}
    with structlog.testing.capture_logs() as told:
        reader, writer = await asyncio.open_connection("127.0.0.1", street.port)
        head = "".join(f"{name.replace('_', '-')}: {value}\r\n" for name, value in sent.items())
        writer.write(f"GET /ws-flood HTTP/1.1\r\n{head}\r\n".encode())
        assert (await asyncio.wait_for(reader.readline(), 60)).startswith(b"HTTP/1.1 101")
        await reader.readexactly(50_000)
        writer.transport.abort()
        await asyncio.wait_for(street.echo.cancelled.wait(), 60)
        await asyncio.wait_for(street.house.processes.idle.wait(), 60)
    assert await cancelled(street) == []
    assert told == []
