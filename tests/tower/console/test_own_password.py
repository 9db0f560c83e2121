"""Changing one's own password: with the current one, from a page of the console, and with nothing less."""

from __future__ import annotations

import httpx
import pytest
from tests.tower.console.conftest import Town

from tower.identity.authenticators import MACHINE

OLD = "a meadow in the late spring"
NEW = "a harbour in early winter"


@pytest.fixture
async def here(town: Town) -> str:
    """A session of alice's, who has a password."""
    await town.house.rooms.oauth.accounts.set_password(MACHINE, "alice", OLD)
    return await town.session("alice")


async def change(
    town: Town, session: str, *, current: str = OLD, new: str = NEW, again: str | None = None, **headers: str
) -> httpx.Response:
    sent = {"origin": town.url, "sec-fetch-site": "same-origin", **headers}
    fields = {"current": current, "new": new, "again": new if again is None else again}
    async with town.client(session, **sent) as client:
        return await client.post("/account", data=fields)


async def signs_in(town: Town, password: str) -> bool:
    async with town.client(origin=town.url) as client:
        answer = await client.post("/login", data={"name": "alice", "password": password})
    assert answer.status_code in {200, 401}
    return answer.status_code == 200


async def test_the_password_changes_and_all_other_sessions_end(town: Town, here: str) -> None:
    there = await town.session("alice")
    async with town.client(here) as client:
        asked = await client.get("/account")
    assert asked.status_code == 200
    assert "Current password" in asked.text
    done = await change(town, here)
    assert done.status_code == 200, done.text
    assert "was changed" in done.text
    for text in (OLD, NEW):
        assert text not in done.text
    async with town.client(here) as client:
        assert (await client.get("/account")).status_code == 200
    async with town.client(there) as client:
        assert (await client.get("/account")).status_code == 303
    assert not await signs_in(town, OLD)
    assert await signs_in(town, NEW)
    [entry] = await town.house.audit(event="password.set", subject="alice")
    assert (entry.outcome, entry.credential_kind) == ("allowed", "session")


async def test_a_stolen_session_alone_takes_nothing_over(town: Town, here: str) -> None:
    """Without the current password, with one typed twice differently, with a poor one: nothing changes."""
    there = await town.session("alice")
    for answer, status in (
        (await change(town, here, current="a wrong guess of it"), 401),
        (await change(town, here, current=""), 401),
        (await change(town, here, again=NEW + "!"), 400),
        (await change(town, here, new="alice-alice-alice"), 400),
        (await change(town, here, new="short"), 400),
    ):
        assert answer.status_code == status, answer.text
    async with town.client(there) as client:
        assert (await client.get("/account")).status_code == 200
    assert await signs_in(town, OLD)


async def test_guessing_the_current_password_is_throttled(town: Town, here: str) -> None:
    statuses = [(await change(town, here, current=f"guess number {n}")).status_code for n in range(12)]
    assert statuses[:10] == [401] * 10
    assert statuses[10:] == [429] * 2
    assert (await change(town, here)).status_code == 429  # the right one is not told from a wrong one


@pytest.mark.parametrize(
    "headers",
    [
        {"origin": "https://evil.example", "sec-fetch-site": "cross-site"},
        {"origin": "http://app-flytesnacks-development.localhost", "sec-fetch-site": "same-site"},
        {"origin": "null"},
    ],
)
async def test_t18_no_other_page_changes_it(town: Town, here: str, headers: dict[str, str]) -> None:
    assert (await change(town, here, **headers)).status_code == 403
    assert await signs_in(town, OLD)


async def test_a_key_does_not_change_it_and_nobody_does_without_signing_in(town: Town, here: str) -> None:
    key = await town.house.key("alice")
    answer = await change(town, "", authorization=f"Bearer {key}")
    assert answer.status_code == 403
    assert (await change(town, "")).status_code == 401
    async with town.client() as client:
        assert (await client.get("/account")).status_code == 303
    assert await signs_in(town, OLD)
