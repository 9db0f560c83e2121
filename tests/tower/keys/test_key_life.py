"""The life of an API key: limited, rotated, disabled, ended; and never above the people behind it (T35)."""

from __future__ import annotations

import json
from typing import Any

import pytest
from tests.identity_world import World, app_socket

from tower.control.apikeys import MAX_OVERLAP, ApiKeys
from tower.errors import Denied, Invalid, NotFound, Precondition, Unauthenticated
from tower.identity.authenticators import MACHINE
from tower.identity.principal import Principal
from tower.policy.actions import Action, Resource, ResourceType

TASK = Resource(ResourceType.TASK, "flytesnacks", "development", "etl.load")
ORG = Resource(ResourceType.ORG)


async def may(world: World, caller: Principal, action: Action, resource: Resource = TASK) -> bool:
    return (await world.access.check(caller, action, resource)).allowed


async def refused(world: World, key: str) -> bool:
    try:
        await world.who(bearer=key)
    except Unauthenticated:
        return True
    return False


# rotation


async def test_both_keys_hold_during_the_overlap_and_then_the_new_one_alone(world: World) -> None:
    old = await world.person("alice", "contributor")
    new = (await world.api_keys.rotate(MACHINE, "alice-key", overlap=60)).key.text
    assert new != old
    for key in (old, new):
        assert (await world.who(bearer=key)).subject == "alice"
    world.clock.time += 59
    assert not await refused(world, old)
    world.clock.time += 1
    assert await refused(world, old)
    assert (await world.who(bearer=new)).subject == "alice"


async def test_without_an_overlap_the_old_key_ends_at_once(world: World) -> None:
    old = await world.person("alice")
    await world.api_keys.rotate(MACHINE, "alice-key", overlap=0)
    assert await refused(world, old)


async def test_the_name_stays_and_the_list_shows_the_old_one_until_it_ends(world: World) -> None:
    await world.person("alice")
    before = await world.api_keys.get(MACHINE, "alice-key")
    made = await world.api_keys.rotate(MACHINE, "alice-key", overlap=60)
    listed = await world.api_keys.list(MACHINE, subject="alice")
    assert [(row.name, row.id, row.replaced_by) for row in listed] == [
        ("alice-key", made.row.id, ""),
        ("alice-key", before.id, made.row.id),
    ]
    assert (await world.api_keys.get(MACHINE, "alice-key")).id == made.row.id
    world.clock.time += 60
    assert [row.id for row in await world.api_keys.list(MACHINE)] == [made.row.id]


async def test_the_new_key_keeps_owner_limits_and_length_of_life(world: World) -> None:
    await world.person("alice", "contributor")
    limits: dict[str, Any] = {"role": "viewer", "project": "flytesnacks", "domain": "staging"}
    await world.key("k", "alice", **limits, actions=["task:view"], expires_in=1000)
    world.clock.time += 900
    row = (await world.api_keys.rotate(MACHINE, "k", overlap=3600)).row
    assert (row.subject, row.role, row.project, row.domain) == ("alice", *limits.values())
    assert json.loads(row.actions or "") == ["task:view"]
    assert row.expires_at == world.clock.now() + 1000
    old = next(each for each in await world.api_keys.list(MACHINE, subject="alice") if each.replaced_by)
    assert old.expires_at == world.clock.now() + 100  # an overlap prolongs nothing


async def test_an_overlap_of_a_second_rotation_leaves_the_first_ones_end(world: World) -> None:
    first = await world.person("alice")
    second = (await world.api_keys.rotate(MACHINE, "alice-key", overlap=60)).key.text
    third = (await world.api_keys.rotate(MACHINE, "alice-key", overlap=600)).key.text
    world.clock.time += 61
    assert [await refused(world, key) for key in (first, second, third)] == [True, False, False]


async def test_deleting_the_name_ends_the_old_one_in_its_overlap_too(world: World) -> None:
    old = await world.person("alice")
    new = (await world.api_keys.rotate(MACHINE, "alice-key")).key.text
    await world.api_keys.delete(MACHINE, "alice-key")
    assert await refused(world, old)
    assert await refused(world, new)
    await world.key("alice-key", "alice")  # the name is free again
    assert len(await world.records(event="key.delete")) == 2


async def test_a_rotation_is_recorded_with_both_ids_and_no_secret(world: World) -> None:
    old = await world.person("alice")
    caller = await world.who(bearer=old)
    made = await world.api_keys.rotate(caller, "alice-key", overlap=60, request_id="q")
    (record,) = await world.records(event="key.rotate")
    detail = json.loads(record.detail)
    assert (record.subject, record.outcome, record.request_id) == ("alice", "allowed", "q")
    assert (detail["key"], detail["replaces"], detail["overlap"]) == (made.row.id, caller.credential.id, 60)
    assert made.key.secret not in record.detail


async def test_a_run_outlives_the_rotation_of_the_key_that_asked_for_it(world: World) -> None:
    caller = await world.who(bearer=await world.person("alice", "contributor"))
    attempt = await world.running(caller)
    await world.api_keys.rotate(MACHINE, "alice-key", overlap=0)
    assert (await world.who(workload=attempt)).subject == "alice"


@pytest.mark.parametrize("overlap", [-1, MAX_OVERLAP + 1])
async def test_an_overlap_that_cannot_be_is_refused(world: World, overlap: float) -> None:
    await world.person("alice")
    with pytest.raises(Invalid):
        await world.api_keys.rotate(MACHINE, "alice-key", overlap=overlap)


async def test_what_is_off_is_not_rotated(world: World) -> None:
    await world.person("alice")
    await world.api_keys.set_disabled(MACHINE, "alice-key", disabled=True)
    with pytest.raises(Precondition, match="disabled"):
        await world.api_keys.rotate(MACHINE, "alice-key")
    await world.api_keys.set_disabled(MACHINE, "alice-key", disabled=False)
    await world.identities.set_disabled(MACHINE, "alice", disabled=True)
    with pytest.raises(Precondition, match="disabled"):
        await world.api_keys.rotate(MACHINE, "alice-key")
    with pytest.raises(NotFound):
        await world.api_keys.rotate(MACHINE, "nothing")


async def test_anothers_key_is_neither_rotated_nor_disabled_nor_told_from_none(world: World) -> None:
    bob = await world.who(bearer=await world.person("bob", "contributor"))
    await world.person("alice")
    for name in ("alice-key", "nobody-key"):
        with pytest.raises(NotFound):
            await world.api_keys.rotate(bob, name)
        for disabled in (True, False):
            with pytest.raises(NotFound):
                await world.api_keys.set_disabled(bob, name, disabled=disabled)


async def test_an_expiring_key_does_not_prolong_itself_by_rotation(world: World) -> None:
    await world.person("alice")
    key = await world.key("brief", "alice", expires_in=3600)
    ends = world.clock.now() + 3600
    world.clock.time += 1800
    caller = await world.who(bearer=key)
    assert (await world.api_keys.rotate(caller, "brief", expires_in=90_000)).row.expires_at == ends
    never = await world.api_keys.rotate(caller, "alice-key")
    assert never.row.expires_at == ends


# disabling


async def test_a_disabled_key_and_all_that_came_from_it_is_refused_until_it_is_enabled(world: World) -> None:
    key = await world.person("alice", "contributor")
    caller = await world.who(bearer=key, audience="gateway")
    token = await world.grants.exchange(caller, app_socket().id)
    attempt = await world.running(caller)

    async def all_hold() -> list[bool]:
        found = []
        for more in ({"bearer": key}, {"bearer": token, "workload": app_socket()}, {"workload": attempt}):
            try:
                await world.who(**more)  # type: ignore[arg-type]
                found.append(True)
            except Unauthenticated:
                found.append(False)
        return found

    assert await all_hold() == [True, True, True]
    row = await world.api_keys.set_disabled(MACHINE, "alice-key", disabled=True)
    assert row.disabled_at == world.clock.now()
    assert await all_hold() == [False, False, False]
    await world.api_keys.set_disabled(MACHINE, "alice-key", disabled=False)
    assert await all_hold() == [True, True, True]
    events = [record.event for record in await world.records(subject="machine")]
    assert events[:2] == ["key.enable", "key.disable"]


async def test_a_key_in_its_overlap_is_disabled_with_its_name(world: World) -> None:
    old = await world.person("alice")
    new = (await world.api_keys.rotate(MACHINE, "alice-key")).key.text
    await world.api_keys.set_disabled(MACHINE, "alice-key", disabled=True)
    assert await refused(world, old)
    assert await refused(world, new)


# limits


async def test_a_key_may_do_the_actions_it_lists_and_sees_what_they_are_about(world: World) -> None:
    await world.person("alice", "admin")
    caller = await world.who(bearer=await world.key("k", "alice", actions=["task:run"]))
    assert await may(world, caller, Action.TASK_RUN)
    assert await may(world, caller, Action.TASK_VIEW)
    assert await may(world, caller, Action.SELF_VIEW, ORG)
    for action in (Action.TASK_REGISTER, Action.RUN_VIEW, Action.APP_USE):
        assert not await may(world, caller, action)
    assert not await may(world, caller, Action.USER_MANAGE, ORG)


async def test_a_list_of_actions_adds_nothing_to_its_owner(world: World) -> None:
    await world.person("carol", "viewer")
    caller = await world.who(bearer=await world.key("k", "carol", actions=["task:run", "user:manage"]))
    assert not await may(world, caller, Action.TASK_RUN)
    assert not await may(world, caller, Action.USER_MANAGE, ORG)


@pytest.mark.parametrize("actions", [[], ["task:fly"], ["task:run", ""]])
async def test_a_list_of_actions_that_are_none_is_refused(world: World, actions: list[str]) -> None:
    await world.person("alice")
    with pytest.raises(Invalid):
        await world.key("k", "alice", actions=actions)


async def test_the_installation_caps_the_life_of_keys(world: World) -> None:
    await world.person("alice")
    capped = ApiKeys(
        db=world.db, access=world.access, directory=world.directory, clock=world.clock, max_life=1000
    )
    row = (await capped.create(MACHINE, name="k", subject="alice")).row
    assert row.expires_at == world.clock.now() + 1000
    with pytest.raises(Invalid, match="lives longer"):
        await capped.create(MACHINE, name="l", subject="alice", expires_in=1001)
    assert (await capped.rotate(MACHINE, "alice-key")).row.expires_at == world.clock.now() + 1000


# never above its owner or its maker


async def test_t35_a_key_shrinks_when_its_owner_is_demoted(world: World) -> None:
    caller = await world.who(bearer=await world.person("alice", "admin"))
    assert await may(world, caller, Action.USER_MANAGE, ORG)
    await world.identities.remove_binding(MACHINE, subject="alice", role="admin", project="*", domain="*")
    await world.identities.add_binding(MACHINE, subject="alice", role="viewer")
    again = caller  # the very principal of a call that is still going on
    assert not await may(world, again, Action.USER_MANAGE, ORG)
    assert not await may(world, again, Action.TASK_RUN)
    assert await may(world, again, Action.TASK_VIEW)


async def keeper(world: World) -> Principal:
    """Somebody who may manage keys and view things, and no more."""
    await world.governance.policies.put_role(
        MACHINE, "keeper", frozenset({"key:manage", "task:view"}), create=True
    )
    return await world.who(bearer=await world.person("kim", "keeper"))


async def test_t35_a_key_made_for_somebody_is_not_above_its_maker(world: World) -> None:
    kim = await keeper(world)
    await world.person("alice", "admin")
    made = await world.api_keys.create(kim, name="stolen", subject="alice")
    caller = await world.who(bearer=made.key.text)
    assert caller.subject == "alice"
    assert made.row.maker == "kim"
    assert await may(world, caller, Action.TASK_VIEW)
    assert not await may(world, caller, Action.TASK_RUN)
    assert not await may(world, caller, Action.USER_MANAGE, ORG)
    decision = await world.access.check(caller, Action.USER_MANAGE, ORG)
    assert decision.policies == ("below maker:kim",)
    explained = await world.access.explain(caller, Action.USER_MANAGE, ORG)
    assert not explained.decision.allowed
    assert [(limit.source, allows) for limit, allows in explained.ceilings] == [("maker:kim", False)]


async def test_t35_neither_a_further_key_nor_a_rotation_escapes_the_maker(world: World) -> None:
    kim = await keeper(world)
    await world.person("alice", "admin")
    caller = await world.who(bearer=(await world.api_keys.create(kim, name="one", subject="alice")).key.text)
    second = await world.api_keys.create(caller, name="two")
    third = await world.api_keys.rotate(caller, "alice-key", overlap=0)
    fourth = await world.api_keys.rotate(kim, "two")
    for made in (second, third, fourth):
        assert made.row.maker == "kim"
        assert not await may(world, await world.who(bearer=made.key.text), Action.USER_MANAGE, ORG)


async def test_t35_a_key_from_somebody_makes_and_rotates_none_for_third_persons(world: World) -> None:
    kim = await keeper(world)
    await world.person("alice", "admin")
    await world.person("carol", "admin")
    caller = await world.who(bearer=(await world.api_keys.create(kim, name="one", subject="alice")).key.text)
    with pytest.raises(Denied):
        await world.api_keys.create(caller, name="two", subject="carol")
    with pytest.raises(Denied):
        await world.api_keys.rotate(caller, "carol-key", overlap=0)
    assert [row.name for row in await world.api_keys.list(MACHINE, subject="carol")] == ["carol-key"]


async def test_t35_the_key_shrinks_with_its_maker_and_is_nothing_without_them(world: World) -> None:
    boss = await world.who(bearer=await world.person("boss", "admin"))
    await world.identities.add_user(MACHINE, subject="alice", role="contributor")
    text = (await world.api_keys.create(boss, name="k", subject="alice")).key.text
    caller = await world.who(bearer=text)
    assert await may(world, caller, Action.TASK_RUN)
    await world.identities.remove_binding(MACHINE, subject="boss", role="admin", project="*", domain="*")
    assert not await may(world, caller, Action.TASK_RUN)
    await world.identities.add_binding(MACHINE, subject="boss", role="viewer")
    assert await may(world, caller, Action.TASK_VIEW)
    await world.identities.set_disabled(MACHINE, "boss", disabled=True)
    assert not await may(world, caller, Action.TASK_VIEW)
    assert await may(world, caller, Action.SELF_VIEW, ORG)


async def test_the_makers_limit_goes_along_to_apps_and_runs(world: World) -> None:
    kim = await keeper(world)
    await world.person("alice", "admin")
    text = (await world.api_keys.create(kim, name="k", subject="alice")).key.text
    caller = await world.who(bearer=text, audience="gateway")
    token = await world.grants.exchange(caller, app_socket().id)
    through_app = await world.who(bearer=token, workload=app_socket())
    assert await may(world, through_app, Action.TASK_VIEW)
    assert not await may(world, through_app, Action.TASK_RUN)
    with pytest.raises(Unauthenticated):  # a run that the limit does not leave is nobody's any more
        await world.who(workload=await world.running(caller))


@pytest.mark.parametrize(
    "limit",
    [{"role": "admin"}, {"role": "viewer"}, {"project": "flytesnacks"}, {"actions": ["key:manage-own"]}],
    ids=str,
)
async def test_a_limited_key_makes_none(world: World, limit: dict[str, Any]) -> None:
    await world.person("alice", "admin")
    caller = await world.who(bearer=await world.key("limited", "alice", **limit))
    with pytest.raises(Denied):
        await world.api_keys.create(caller, name="free")
    with pytest.raises(Denied):
        await world.api_keys.rotate(caller, "alice-key")
    await world.access.settle(everything=True)  # the second is the same refusal once more
    told = await world.records(event="access.refuse", subject="alice")
    assert [json.loads(each.detail).get("more", 0) for each in told] == [1, 0]
