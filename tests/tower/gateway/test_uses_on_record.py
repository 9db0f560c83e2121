"""Who used which app is in the audit: the first request by itself, the others by their number."""

from __future__ import annotations

import json

import pytest
from tests.tower.gateway.conftest import Street
from tests.tower.gateway.house import House

APP = "flytesnacks/development/echo"


async def used(house: House, **filters: str) -> list[tuple[str, str, int]]:
    """Person, outcome, and how many more; oldest first."""
    found = await house.audit(event="app.use", **filters)
    return [(each.subject, each.outcome, json.loads(each.detail).get("more", 0)) for each in reversed(found)]


async def test_the_first_use_is_recorded_before_it_reaches_the_app(street: Street) -> None:
    async with street.client(street.alice) as client:
        assert (await client.get("/")).status_code == 200
    [entry] = await street.house.audit(event="app.use")
    assert (entry.subject, entry.outcome, entry.action) == ("alice", "allowed", "app:use")
    assert entry.resource == f"app:{APP}"
    assert entry.credential_id == street.alice.split("_")[1]
    assert entry.decision
    assert entry.request_id


async def test_many_uses_are_two_records_and_a_second_window_is_another(street: Street) -> None:
    bob = await street.house.person("bob")
    async with street.client(street.alice) as alice, street.client(bob) as other:
        for _ in range(20):
            assert (await alice.get("/")).status_code == 200
        assert (await other.get("/")).status_code == 200
        assert await used(street.house) == [("alice", "allowed", 0), ("bob", "allowed", 0)]
        await street.house.access.settle()
        assert len(await used(street.house)) == 2  # no window is over
        await street.house.access.settle(everything=True)
        assert (await used(street.house))[2:] == [("alice", "allowed", 19)]
        assert (await alice.get("/")).status_code == 200
    assert (await used(street.house))[3:] == [("alice", "allowed", 0)]


async def test_whom_nothing_is_allowed_uses_nothing(street: Street) -> None:
    nobody = await street.house.person("dave", role=None)
    async with street.client(nobody) as dave, street.client() as stranger:
        assert (await dave.get("/")).status_code == 404
        assert (await stranger.get("/")).status_code == 401
    assert await used(street.house) == []
    assert [each.subject for each in await street.house.audit(event="access.refuse")] == ["dave"]


async def test_without_a_record_the_request_does_not_go_on(
    street: Street, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A log that cannot be written lets nobody through; when it can be again, the request passes."""

    class Full:
        async def write(self, *arguments: object, **options: object) -> None:
            raise OSError("no space left on device")

    with monkeypatch.context() as broken:
        broken.setattr(street.house.access, "_db", Full())
        async with street.client(street.alice) as client:
            assert (await client.get("/")).status_code == 500
    assert street.echo.seen == []
    async with street.client(street.alice) as client:
        assert (await client.get("/")).status_code == 200
    assert len(await used(street.house)) == 1


async def test_what_was_counted_is_written_at_the_end(street: Street) -> None:
    gateway = street.house.gateway()
    principal = await street.house.principal(("authorization", f"Bearer {street.alice}"))
    from tower.policy.actions import Action, Resource, ResourceType

    place = Resource(ResourceType.APP, "flytesnacks", "development", "echo")
    decision = await street.house.access.check(principal, Action.APP_USE, place)
    for _ in range(3):
        await gateway._uses.note(principal, decision, request_id="q")
    await gateway.close()
    assert [more for _, _, more in await used(street.house)] == [0, 2]
