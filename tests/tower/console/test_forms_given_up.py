"""A form of a known person that never arrives whole changes nothing and is on record once."""

from __future__ import annotations

import json
from typing import Any

from tests.raw_calls import begun, given_up, left
from tests.tower.console.conftest import Town

FORM = "application/x-www-form-urlencoded"


async def cancelled(town: Town) -> list[Any]:
    return await town.house.audit(event="call.cancel")


async def send(town: Town, path: str, **headers: str) -> None:
    """The head of a form and a part of it, then nobody."""
    own = {"origin": town.url, "host": town.host, "content_type": FORM, **headers}
    await left(await begun(town.port, f"POST {path}", body=b"current=", length=300, **own))


async def test_half_a_form_is_a_call_given_up(town: Town) -> None:
    session = await town.session("alice")
    await send(town, "/account", cookie=f"tower_session={session}")
    entry = await given_up(lambda: cancelled(town))
    assert (entry.subject, entry.outcome, entry.action) == ("alice", "cancelled", "self:view")
    assert (entry.credential_kind, entry.resource) == ("session", "org:")
    told = json.loads(entry.detail)
    assert told["method"] == "POST /account"
    assert int(told["bytes"]) <= len(b"current=")
    assert await town.house.audit(event="password.set") == []


async def test_an_abort_that_did_not_arrive_aborts_nothing(town: Town) -> None:
    path = await town.run()
    await send(town, f"{path}/abort", cookie=f"tower_session={await town.session('alice')}")
    entry = await given_up(lambda: cancelled(town))
    assert (entry.subject, entry.action) == ("alice", "run:abort")
    assert await town.house.audit(event="run.abort") == []


async def test_who_is_not_known_or_comes_from_another_site_leaves_no_record(town: Town) -> None:
    session = await town.session("alice")
    await send(town, "/account", cookie="tower_session=made-up")
    await send(town, "/account", cookie=f"tower_session={session}", origin="https://evil.example.com")
    await send(town, "/login")
    async with town.client(session) as browser:  # behind them
        assert (await browser.get("/account")).status_code == 200
    assert await cancelled(town) == []
