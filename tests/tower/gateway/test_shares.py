"""One caller's requests that never end leave an app to the others (T45)."""

from __future__ import annotations

import asyncio
from contextlib import AsyncExitStack

import pytest
from tests.tower.gateway.conftest import Street
from tests.tower.gateway.test_websockets import bearer, dial
from websockets.exceptions import InvalidStatus

from tower.gateway import carrying
from tower.gateway.shares import Shares


@pytest.fixture
def eight(monkeypatch: pytest.MonkeyPatch) -> None:
    """Apps have eight requests open at once."""
    monkeypatch.setattr(carrying, "Shares", lambda: Shares(8))


@pytest.mark.usefixtures("eight")
async def test_who_holds_many_requests_of_an_app_open_gets_no_more_and_others_do(street: Street) -> None:
    bob = await street.house.person("bob")
    async with street.client(street.alice) as hers, street.client(bob) as his:
        async with AsyncExitStack() as held:
            for _ in range(2):
                answer = await held.enter_async_context(hers.stream("GET", "/hang"))
                assert answer.status_code == 200
                await held.enter_async_context(dial(street, additional_headers=bearer(street.alice)))
            refused = await hers.get("/")
            assert (refused.status_code, refused.headers["retry-after"]) == (429, "1")
            with pytest.raises(InvalidStatus) as socket:
                await dial(street, additional_headers=bearer(street.alice))
            assert socket.value.response.status_code == 429
            for _ in range(2):
                await held.enter_async_context(his.stream("GET", "/hang"))
            assert (await his.get("/")).status_code == 429
            third = await street.house.person("carol")
            async with street.client(third) as client:
                assert (await client.get("/")).status_code == 200
        async with asyncio.timeout(60):
            while (await hers.get("/")).status_code != 200:
                await asyncio.sleep(0)


@pytest.mark.usefixtures("eight")
async def test_what_has_ended_is_not_counted(street: Street) -> None:
    async with street.client(street.alice) as client:
        assert {(await client.get("/")).status_code for _ in range(20)} == {200}
