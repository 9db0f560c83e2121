"""Who is refused again and again is on record, and nobody can fill the trail by being refused."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.identity_world import FakeClock, World

from tower import audit
from tower.audit import Event, Outcome
from tower.control.denials import DISTINCT, WINDOW_SECONDS, Denials
from tower.errors import Denied, NotFound
from tower.identity.authenticators import MACHINE
from tower.identity.principal import Principal
from tower.policy.actions import Action, Resource, ResourceType
from tower.policy.engine import Decision
from tower.store import audit as store


def task(name: str) -> Resource:
    return Resource(ResourceType.TASK, "flytesnacks", "development", name)


async def ask(world: World, caller: Principal, *, times: int = 1, name: str = "env.t") -> None:
    for number in range(times):
        with pytest.raises((NotFound, Denied)):
            await world.access.require(
                caller, Action.TASK_RUN, task(name), request_id=f"q{number}", view=Action.TASK_VIEW
            )


async def rows(world: World, **filters: Any) -> list[tuple[str, int]]:
    """Thing and how many more, oldest first."""
    found = await world.records(event="access.refuse", limit=500, **filters)
    return [(each.resource, json.loads(each.detail).get("more", 0)) for each in reversed(found)]


def counted(found: list[tuple[str, int]]) -> int:
    """How many refusals these rows stand for."""
    return sum(more or 1 for _, more in found)


async def test_the_first_is_a_record_and_the_others_a_number(world: World) -> None:
    eve = await world.who(bearer=await world.person("eve"))
    began = world.clock.time
    await ask(world, eve, times=3)
    world.clock.time += 10
    await ask(world, eve, times=197)
    assert await rows(world) == [("task:flytesnacks/development/env.t", 0)]
    await world.access.settle()
    assert len(await rows(world)) == 1, "the minute is not over"
    world.clock.time = began + WINDOW_SECONDS
    await world.access.settle()
    assert await rows(world) == [(str(task("env.t")), 0), (str(task("env.t")), 199)]
    [number, first] = await world.records(event="access.refuse", subject="eve")
    assert (number.outcome, number.action, number.decision) == ("refused", "task:run", first.decision)
    assert (number.credential_id, number.credential_kind) == (first.credential_id, "api_key")
    detail = json.loads(number.detail)
    assert (detail["since"], detail["until"], number.request_id) == (began, began + 10, "q196")
    whole = await world.db.read(lambda reader: audit.verify(store.whole(reader)))
    assert whole is None


async def test_after_the_window_the_next_is_a_record_again_behind_the_number(world: World) -> None:
    eve = await world.who(bearer=await world.person("eve"))
    await ask(world, eve, times=5)
    world.clock.time += WINDOW_SECONDS
    await ask(world, eve)
    assert [more for _, more in await rows(world)] == [0, 4, 0]


async def test_another_caller_key_action_or_thing_has_a_record_of_its_own(world: World) -> None:
    eve = await world.who(bearer=await world.person("eve"))
    other = await world.who(bearer=await world.key("second", "eve"))
    dan = await world.who(bearer=await world.person("dan"))
    for caller in (eve, other, dan):
        await ask(world, caller, times=2)
        await ask(world, caller, times=2, name="env.u")
    with pytest.raises(NotFound):
        await world.access.require(eve, Action.TASK_VIEW, task("env.t"))
    assert len(await rows(world)) == 7
    assert all(more == 0 for _, more in await rows(world))


async def test_who_asks_for_ever_new_things_fills_nothing(world: World) -> None:
    eve = await world.who(bearer=await world.person("eve"))
    dan = await world.who(bearer=await world.person("dan"))
    for number in range(1000):
        await ask(world, eve, name=f"env.t{number}")
    await ask(world, dan)
    assert len(await rows(world, subject="eve")) == DISTINCT + 1
    assert len(await rows(world, subject="dan")) == 1, "another's noise costs nobody their record"
    await world.access.settle(everything=True)
    found = await rows(world, subject="eve")
    assert len(found) == DISTINCT + 2
    assert counted(found) == 1000
    assert found[-1] == (str(Resource(ResourceType.ORG)), 1000 - DISTINCT - 1)
    [last] = await world.records(event="access.refuse", subject="eve", limit=1)
    samples = json.loads(last.detail)["resources"]
    assert len(samples) == 8
    assert all(each.startswith("task:flytesnacks/development/env.t") for each in samples)


async def test_what_was_counted_is_written_when_tower_stops(world: World) -> None:
    eve = await world.who(bearer=await world.person("eve"))
    await ask(world, eve, times=4)
    await world.governance.auditing.stop()
    assert [more for _, more in await rows(world)] == [0, 3]
    end = await world.db.read(store.head)
    signed = await world.db.read(store.checkpoints)
    assert signed[-1].seq == end.seq, "the number lies under the last signature"


async def test_calls_given_up_are_counted_in_the_same_way(world: World) -> None:
    eve = await world.who(bearer=await world.person("eve"))
    for _ in range(9):
        await world.access.gave_up(eve, Action.TASK_RUN, request_id="q", detail={"method": "POST /x"})
    await world.access.settle(everything=True)
    found = await world.records(event="call.cancel", outcome="cancelled")
    assert [json.loads(each.detail).get("more", 0) for each in reversed(found)] == [0, 8]
    assert {json.loads(each.detail)["method"] for each in found} == {"POST /x"}


async def test_a_number_that_cannot_be_written_is_not_lost(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    eve = await world.who(bearer=await world.person("eve"))
    await ask(world, eve, times=4)

    async def full(*arguments: object, **options: object) -> None:
        raise OSError("no space left on device")

    world.clock.time += WINDOW_SECONDS
    with monkeypatch.context() as broken:
        broken.setattr(world.db, "write", full)
        with pytest.raises(OSError, match="no space"):
            await world.access.settle()
        with pytest.raises(OSError, match="no space"):
            await world.access.require(eve, Action.TASK_RUN, task("env.t"))
    await ask(world, eve)
    await world.access.settle(everything=True)
    assert counted(await rows(world)) == 5


@given(
    st.lists(
        st.one_of(
            st.tuples(st.just("refuse"), st.sampled_from(["eve", "dan"]), st.integers(0, 200)),
            st.tuples(st.just("wait"), st.floats(0, 90)),
            st.tuples(st.just("settle")),
            st.tuples(st.just("fail"), st.integers(0, 200)),
        ),
        max_size=400,
    )
)
def test_every_refusal_is_in_exactly_one_record(steps: list[Any]) -> None:
    """However they come: the records stand for all of them, and failures to write lose none."""
    clock = FakeClock()
    denials = Denials(clock)
    noted = told = 0

    def write(due: list[Any]) -> int:
        return sum(each.sighting.detail.get("more", 1) for each in due)

    def refuse(who: str, number: int) -> list[Any]:
        principal = Principal(who, MACHINE.kind, who, MACHINE.credential)
        decision = Decision(False, (), "r", Action.TASK_RUN.value, str(task(f"t{number}")))
        return denials.note(_sighting(principal, decision))

    for step in steps:
        match step:
            case ("refuse", who, number):
                noted += 1
                told += write(refuse(who, number))
            case ("wait", seconds):
                clock.time += seconds
            case ("settle",):
                told += write(denials.repeats.settle())
            case ("fail", number):
                due = refuse("eve", number)
                denials.repeats.failed(due)  # the caller is told of the failure: it was no refusal
                noted += 0 if due else 1
    told += write(denials.repeats.settle(everything=True))
    assert told == noted
    assert denials.repeats.settle(everything=True) == []


def _sighting(principal: Principal, decision: Decision) -> Any:
    from tower.control.repeats import Sighting

    return Sighting(principal, decision, Event.ACCESS_REFUSE, Outcome.REFUSED)
