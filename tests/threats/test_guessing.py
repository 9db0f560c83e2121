"""Guessing and flooding: T36 and T45 at every door, and what is left of it in the audit."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import AsyncIterator
from pathlib import Path
from typing import get_args

import pytest
from tests.identity_world import HOST, World
from tests.threats.conftest import DOMAIN, PROJECT, Lab

from tower.control.refusals import MAX_SOURCES, WINDOW_SECONDS
from tower.errors import Exhausted, Unauthenticated
from tower.identity.authenticators import MACHINE
from tower.identity.chain import Audience, Presented
from tower.identity.guesses import KEY, SOURCE, Guesses, Pace
from tower.identity.principal import Principal

pytestmark = pytest.mark.xdist_group("threats")
GUESSES = 10_000


@pytest.fixture
async def world(tmp_path: Path) -> AsyncIterator[World]:
    async with World.opened(tmp_path) as opened:
        yield opened


async def show(world: World, bearer: str, *, source: str, door: Audience = "rpc") -> Principal:
    headers = ((b"authorization", f"Bearer {bearer}".encode()),)
    presented = Presented(headers=headers, host=HOST, audience=door, client=source)
    return await world.chain.authenticate(presented)


async def guess(world: World, bearer: str, *, source: str, door: Audience = "rpc") -> str:
    try:
        return (await show(world, bearer, source=source, door=door)).subject
    except Unauthenticated:
        return "wrong"
    except Exhausted:
        return "wait"


@pytest.mark.parametrize("door", get_args(Audience))
async def test_t36_of_ten_thousand_guesses_few_are_looked_at(world: World, door: Audience) -> None:
    """At one door, with other secrets of a key that is there; then the right one tells nothing either."""
    alice, bob = await world.person("alice", "viewer"), await world.person("bob", "viewer")
    neighbour = "192.0.2.7"
    assert await guess(world, bob, source=neighbour, door=door) == "bob"
    prefix = "_".join(alice.split("_")[:2])
    seen = Counter(
        [
            await guess(world, f"{prefix}_{number:043d}", source=neighbour, door=door)
            for number in range(GUESSES)
        ]
    )
    assert seen == {"wrong": SOURCE.burst, "wait": GUESSES - SOURCE.burst}
    assert await guess(world, alice, source=neighbour, door=door) == "wait"  # right, and not told
    assert await guess(world, bob, source=neighbour, door=door) == "bob"  # held before: nobody is locked out
    world.clock.time += 2 / KEY.per_second
    assert await guess(world, alice, source=neighbour, door=door) == "alice"


async def test_t36_many_addresses_cannot_take_turns_at_one_key(world: World) -> None:
    alice, bob = await world.person("alice", "viewer"), await world.person("bob", "viewer")
    prefix = "_".join(alice.split("_")[:2])
    sources = [f"198.51.{number // 250}.{number % 250}" for number in range(1000)]
    seen = Counter([await guess(world, f"{prefix}_{'B' * 43}", source=source) for source in sources])
    assert seen == {"wrong": KEY.burst, "wait": len(sources) - KEY.burst}
    assert await guess(world, bob, source="203.0.113.9") == "bob"  # another key, another place


async def test_t36_a_network_of_one_host_is_one_source(world: World) -> None:
    seen = Counter(
        [await guess(world, f"nonsense{n}", source=f"2001:db8::{n:x}") for n in range(SOURCE.burst * 2)]
    )
    assert seen == {"wrong": SOURCE.burst, "wait": SOURCE.burst}
    assert await guess(world, "nonsense", source="2001:db8:1::1") == "wrong"


async def test_a_revoked_key_is_no_longer_one_that_held(world: World) -> None:
    alice = await world.person("alice", "viewer")
    assert await guess(world, alice, source="192.0.2.7") == "alice"
    await world.api_keys.delete(MACHINE, "alice-key")
    assert await guess(world, alice, source="192.0.2.7") == "wrong"
    for number in range(SOURCE.burst):
        await guess(world, f"nonsense{number}", source="192.0.2.7")
    assert await guess(world, alice, source="192.0.2.7") == "wait"


async def test_what_has_ended_is_no_guess(world: World) -> None:
    """A program that goes on with a key that was genuine makes nobody beside it wait."""
    alice, bob = await world.person("alice", "viewer"), await world.person("bob", "viewer")
    await world.identities.set_disabled(MACHINE, "alice", disabled=True)
    seen = {await guess(world, alice, source="192.0.2.7") for _ in range(SOURCE.burst * 3)}
    assert seen == {"wrong"}
    assert await guess(world, bob, source="192.0.2.7") == "bob"  # for the first time
    await world.access.settle()
    [entry] = await world.records(event="auth.refuse")
    assert json.loads(entry.detail)["count"] == SOURCE.burst * 3


def test_memory_is_bounded_and_time_refills(world: World) -> None:
    guesses = Guesses(clock=world.clock, source=Pace(2, 1.0), key=Pace(2, 1.0), capacity=10)
    for number in range(1000):
        guesses.failed(source=f"10.0.{number // 250}.{number % 250}", values=["x"], keys=[f"k{number}"])
    assert len(guesses._sources._levels) == len(guesses._keys._levels) == 10
    guesses.failed(source="10.9.9.9", values=["x"])
    guesses.failed(source="10.9.9.9", values=["x"])
    assert guesses.busy
    assert guesses.wait(source="10.9.9.9", values=["y"]) == 1.0
    world.clock.time += 1
    assert guesses.wait(source="10.9.9.9", values=["y"]) == 0.0
    assert not guesses.busy


async def test_t45_a_flood_leaves_one_record_for_each_minute_and_source(world: World) -> None:
    await world.person("alice", "viewer")
    before = len(await world.records(limit=500))
    for number in range(GUESSES):
        await guess(world, f"nonsense{number}", source="192.0.2.7", door="rest" if number % 2 else "rpc")
    assert len(await world.records(limit=500)) == before  # nothing is written while it lasts
    await world.access.settle()
    [entry] = await world.records(event="auth.refuse")
    detail = json.loads(entry.detail)
    assert (entry.subject, entry.outcome) == ("", "refused")
    assert (detail["source"], detail["count"]) == ("192.0.2.7", GUESSES)
    assert detail["throttled"] == GUESSES - SOURCE.burst
    assert detail["doors"] == ["rest", "rpc"]
    assert "nonsense" not in entry.detail
    await world.access.settle()
    assert len(await world.records(event="auth.refuse")) == 1

    for number in range(1000):
        await guess(world, "nonsense", source=f"10.0.{number // 250}.{number % 250}")
    await world.access.settle()
    found = [json.loads(each.detail) for each in await world.records(event="auth.refuse", limit=500)][:-1]
    assert len(found) == MAX_SOURCES + 1
    assert sum(each["count"] for each in found) == 1000
    assert {each["source"] for each in found} > {"others"}


async def test_the_record_names_the_keys_that_were_guessed_at_and_comes_by_itself(world: World) -> None:
    alice = await world.person("alice", "viewer")
    prefix = "_".join(alice.split("_")[:2])
    await guess(world, f"{prefix}_{'C' * 43}", source="192.0.2.7")
    assert not world.access.due.is_set()
    world.clock.time += WINDOW_SECONDS
    await guess(world, f"{prefix}_{'D' * 43}", source="192.0.2.7")
    assert world.access.due.is_set()  # wakes the loop that signs the chain, which writes it first
    await world.governance.auditing.checkpoint()
    [entry] = await world.records(event="auth.refuse")
    assert json.loads(entry.detail)["keys"] == [prefix.removeprefix("twr_")]
    assert "C" * 43 not in entry.detail


def test_t36_t45_each_door_of_a_real_tower_makes_a_guesser_wait(lab: Lab) -> None:
    """RPC, REST, console, OAuth and gateway, each from an address of its own; alice beside them is served."""
    app = f"/apps/{PROJECT}/{DOMAIN}/other/headers"
    doors = {
        "rpc": ("POST", "/flyteidl2.auth.IdentityService/UserInfo"),
        "rest": ("GET", "/api/v1/whoami"),
        "console": ("GET", "/v2/apps"),
        "userinfo": ("GET", "/oauth2/userinfo"),
        "gateway": ("GET", app),
    }
    proto = {"content-type": "application/proto"}
    for door, (method, path) in doors.items():
        with lab.elsewhere() as stranger:
            statuses: Counter[int] = Counter()
            for number in range(SOURCE.burst * 20):  # a busy machine is given some back meanwhile
                key = {"authorization": f"Bearer twr_{number:012d}_{'B' * 43}"}
                refused = stranger.request(method, path, headers={**proto, **key})
                statuses[refused.status_code] += 1
                if refused.status_code == 429:  # RFC 6585 section 4
                    assert 1 <= int(refused.headers["retry-after"]) <= 60, door
                if statuses[429] > 5:
                    break
            assert set(statuses) == {401, 429}, (door, statuses)
            assert lab.rest("alice", "GET", "/whoami").status_code == 200
            good = lab.bearer("alice")
            answer = stranger.request(method, path, headers={**proto, **good})
            assert answer.status_code == 200, door  # the same address, a credential that held before
    records = lab.audit(event="auth.refuse")
    told = [record["detail"] for record in records if record["detail"].get("throttled")]
    assert {door for detail in told for door in detail["doors"]} >= {"rpc", "rest", "console", "gateway"}
    assert all(detail["source"].startswith("127.") for detail in told)
