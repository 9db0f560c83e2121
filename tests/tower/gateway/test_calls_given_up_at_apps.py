"""Who hangs up before an app has answered is on record once, as themselves; a reader of a stream is not."""

from __future__ import annotations

import asyncio
import json
from typing import Any

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
