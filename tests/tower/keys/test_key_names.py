"""The name of a key is one among its owner's: it tells nobody what others have called theirs (T43)."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from typing import Any

import httpx
import pytest
from tests.identity_world import World
from tests.tower.rest.test_rest_door import Api

from tower.errors import AlreadyExists, NotFound, Unauthenticated
from tower.identity.authenticators import MACHINE

VERBS = (
    ("GET", ""),
    ("DELETE", ""),
    ("POST", "/rotate"),
    ("POST", "/disable"),
    ("POST", "/enable"),
)


@pytest.fixture
async def api(world: World) -> AsyncIterator[Api]:
    made = Api(world)
    async with made.client:
        yield made


def seen(answer: httpx.Response) -> tuple[Any, ...]:
    """All that an answer shows, but for its own id."""
    text = answer.text.replace(answer.headers["x-request-id"], "")
    headers = {name: value for name, value in answer.headers.items() if name != "x-request-id"}
    return answer.status_code, headers, text


async def test_who_makes_a_key_learns_nothing_about_the_names_of_others(api: Api) -> None:
    eve = await api.world.person("eve")
    await api.world.person("bob")
    await api.world.key("prod-deploy", "bob")
    for name in ("prod-deploy", "never-made"):
        answer = await api.call("POST", "/keys", eve, json={"name": name})
        assert (answer.status_code, answer.json()["user"]) == (201, "eve")
        assert (await api.call("DELETE", f"/keys/{name}", eve)).status_code == 200
    bob = await api.world.api_keys.get(MACHINE, "prod-deploy")
    assert (bob.subject, bob.deleted_at) == ("bob", None)


async def test_somebody_elses_key_answers_as_one_that_is_not_there_byte_for_byte(api: Api) -> None:
    eve = await api.world.person("eve")
    await api.world.person("bob")
    for method, verb in VERBS:
        for query in ("", "?user=bob", "?user=eve", "?user=nobody"):
            path = f"/keys/x-key{verb}{query}"
            body = {"json": {}} if verb == "/rotate" else {}
            absent = await api.call(method, path, eve, **body)
            await api.world.key("x-key", "bob")
            hidden = await api.call(method, path, eve, **body)
            assert seen(hidden) == seen(absent), path
            assert hidden.status_code == 404
            await api.world.api_keys.delete(MACHINE, "x-key")
    asked = {"action": "key:manage-own", "resource": "key:x-key"}
    absent = await api.call("POST", "/authorize", eve, json=asked)
    await api.world.key("x-key", "bob")
    assert seen(await api.call("POST", "/authorize", eve, json=asked)) == seen(absent)


async def test_ones_own_comes_first_and_the_others_are_untouched(world: World) -> None:
    alice = await world.who(bearer=await world.person("alice", "admin"))
    await world.person("bob")
    own, others = await world.key("laptop", "alice"), await world.key("laptop", "bob")
    assert (await world.api_keys.get(alice, "laptop")).subject == "alice"
    new = (await world.api_keys.rotate(alice, "laptop", overlap=60)).key.text
    assert (await world.who(bearer=new)).subject == (await world.who(bearer=own)).subject == "alice"
    await world.api_keys.set_disabled(alice, "laptop", disabled=True)
    for key in (own, new):
        with pytest.raises(Unauthenticated):
            await world.who(bearer=key)
    assert (await world.who(bearer=others)).subject == "bob"
    assert (await world.api_keys.delete(alice, "laptop")).subject == "alice"
    assert (await world.who(bearer=others)).subject == "bob"
    # hers is gone: now the name means his, which she manages
    assert (await world.api_keys.get(alice, "laptop")).subject == "bob"


async def test_a_name_that_several_have_has_to_be_said_whose(api: Api) -> None:
    world = api.world
    admin = await world.person("root", "admin")
    texts = {name: await world.person(name) for name in ("bob", "carol")}
    keys = {name: await world.key("laptop", name) for name in texts}
    for method, verb in VERBS:
        body = {"json": {}} if verb == "/rotate" else {}
        answer = await api.call(method, f"/keys/laptop{verb}", admin, **body)
        assert answer.status_code == 400
        told = answer.json()["error"]
        assert "bob, carol" in told["message"]
        assert "--user" in told["hint"]
    for key in keys.values():
        await world.who(bearer=key)  # nothing was done to any
    assert (await api.call("POST", "/keys/laptop/disable?user=carol", admin)).json()["user"] == "carol"
    with pytest.raises(Unauthenticated):
        await world.who(bearer=keys["carol"])
    await world.who(bearer=keys["bob"])
    made = await api.call("POST", "/keys/laptop/rotate?user=bob", admin, json={"overlap": "0"})
    assert (await world.who(bearer=made.json()["key"])).subject == "bob"
    assert (await api.call("DELETE", "/keys/laptop?user=carol", admin)).json()["user"] == "carol"
    assert (await api.call("GET", "/keys/laptop", admin)).json()["user"] == "bob"
    [ended] = await world.records(event="key.delete")
    assert json.loads(ended.detail)["user"] == "carol"


async def test_ones_own_name_is_taken_once_also_for_many_at_the_same_time(world: World) -> None:
    alice = await world.who(bearer=await world.person("alice"))
    made = await asyncio.gather(
        *(world.api_keys.create(alice, name="one") for _ in range(5)), return_exceptions=True
    )
    assert sum(isinstance(each, AlreadyExists) for each in made) == 4
    with pytest.raises(AlreadyExists):
        await world.key("one", "alice")


async def test_no_key_is_found_by_a_name_that_somebody_lost(world: World) -> None:
    alice = await world.who(bearer=await world.person("alice"))
    await world.key("gone", "alice")
    await world.api_keys.delete(alice, "gone")
    for call in (world.api_keys.get, world.api_keys.delete, world.api_keys.rotate):
        with pytest.raises(NotFound):
            await call(alice, "gone")
    with pytest.raises(NotFound):
        await world.api_keys.get(MACHINE, "gone")
