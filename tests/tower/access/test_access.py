"""What may not be seen looks absent, and a refusal leaves its record whatever its caller does."""

from __future__ import annotations

import asyncio
import json

import pytest
from tests.identity_world import World, app_socket

from tower.control.access import not_found
from tower.control.firststart import bootstrap
from tower.control.grants import (
    Download,
    Upload,
    actors_from_text,
    actors_to_text,
    ceilings_from_text,
    ceilings_to_text,
)
from tower.errors import Broken, Denied, NotFound, Unauthenticated
from tower.identity.authenticators import MACHINE
from tower.identity.principal import Actor, ActorKind, Ceiling
from tower.policy.actions import Action, Resource, ResourceType
from tower.store.schema import actions

TASK = Resource(ResourceType.TASK, project="flytesnacks", domain="development", name="my_env.my_task")


async def test_hidden_and_absent_are_the_same_fault(world: World) -> None:
    dave = await world.who(bearer=await world.person("dave"))
    with pytest.raises(NotFound) as hidden:
        await world.access.require(dave, Action.TASK_VIEW, TASK)
    absent = not_found(TASK)
    assert (hidden.value.message, hidden.value.hint) == (absent.message, absent.hint)


async def test_a_refusal_is_recorded_although_its_caller_hangs_up(world: World) -> None:
    dave = await world.who(bearer=await world.person("dave"))
    call = asyncio.create_task(world.access.require(dave, Action.TASK_RUN, TASK))
    await asyncio.sleep(0)
    call.cancel()
    with pytest.raises(asyncio.CancelledError):
        await call
    await world.db.write(lambda tx: None)  # behind the refusal in the writer's queue
    assert [record.action for record in await world.records(subject="dave")] == ["task:run"]


async def test_the_record_names_person_app_and_the_key_behind_the_token(world: World) -> None:
    alice = await world.who(bearer=await world.person("alice"), audience="gateway")
    socket = app_socket()
    through = await world.who(bearer=await world.grants.exchange(alice, socket.id), workload=socket)
    with pytest.raises(NotFound):
        await world.access.require(through, Action.TASK_RUN, TASK, view=Action.TASK_VIEW)
    (record,) = await world.records(app=socket.id)
    assert (record.subject, record.credential_kind) == ("alice", "app_token")
    assert record.credential_id == alice.credential.id
    assert json.loads(record.actors) == [f"app:{socket.id}"]


async def test_what_an_app_or_a_task_may_is_what_the_person_may(world: World) -> None:
    """G8, over every action and a few places: an app adds nothing and takes only identity management away."""
    await world.person("pat", "contributor", "flytesnacks", "development")
    direct = await world.who(bearer=await world.key("direct", "pat"), audience="gateway")
    socket = app_socket()
    via_app = await world.who(bearer=await world.grants.exchange(direct, socket.id), workload=socket)
    in_task = await world.who(workload=await world.running(direct))
    places = [
        Resource(kind, project, domain, "x", owner)
        for kind in ResourceType
        for project, domain in (("flytesnacks", "development"), ("flytesnacks", "production"), ("", ""))
        for owner in ("pat", "bob")
    ]
    managing = {
        Action.KEY_MANAGE,
        Action.KEY_MANAGE_OWN,
        Action.USER_MANAGE,
        Action.POLICY_MANAGE,
        Action.SECRET_CREATE,
        Action.SECRET_DELETE,
        Action.ACT_AS,
        Action.AUDIT_PRUNE,
    }
    for action in Action:
        for place in places:
            own = (await world.access.check(direct, action, place)).allowed
            for caller in (via_app, in_task):
                theirs = (await world.access.check(caller, action, place)).allowed
                assert theirs is (own and action not in managing), (action, place)


async def test_the_machine_may_everything_and_its_policy_is_named(world: World) -> None:
    for action in Action:
        decision = await world.access.check(MACHINE, action, TASK)
        assert decision.allowed
        assert decision.policies == ("machine-operator",)


async def test_a_message_of_a_refusal_names_the_limit_but_no_policy(world: World) -> None:
    await world.person("alice", "admin")
    limited = await world.who(bearer=await world.key("low", "alice", role="viewer"))
    with pytest.raises(Denied) as refused:
        await world.access.require(limited, Action.TASK_RUN, TASK, view=Action.TASK_VIEW)
    assert "limit" in refused.value.public
    assert "below" not in refused.value.public


async def test_the_audit_trail_needs_its_right(world: World) -> None:
    dave = await world.who(bearer=await world.person("dave"))
    with pytest.raises(Denied):
        await world.access.audit_page(dave)
    assert (await world.access.audit_page(MACHINE, limit=10_000))[0].subject == "dave"


def test_actors_and_limits_survive_their_columns() -> None:
    actors = (Actor(ActorKind.APP, "p/d/a:b"), Actor(ActorKind.RUN, "p/d/r/a0/1"))
    assert actors_from_text(actors_to_text(actors)) == actors
    ceilings = (
        Ceiling("key:1", role="viewer", project="p", domain="d"),
        Ceiling("run:1", forbidden=frozenset({"user:manage", "key:manage"})),
    )
    assert ceilings_from_text(ceilings_to_text(ceilings)) == ceilings
    for damaged in (
        '[{"source":"x","rule":"viewer"}]',
        "[1]",
        '[{"role":"viewer"}]',
        '[{"source":"x","forbidden":"a"}]',
    ):
        with pytest.raises(ValueError, match="ceiling"):
            ceilings_from_text(damaged)


async def test_a_run_whose_limits_cannot_be_read_is_nobody(world: World) -> None:
    alice = await world.who(bearer=await world.person("alice"))
    socket = await world.running(alice)
    await world.db.write(lambda tx: tx.execute(actions.update().values(ceilings="[{]")) and None)
    with pytest.raises(Broken):
        await world.who(workload=socket)


async def test_tickets_say_one_thing_for_minutes_and_no_other(world: World) -> None:
    upload = Upload("flytesnacks", "development", "a/b.tar.gz", "md5==", 12)
    ticket, ends = world.grants.allow_upload(upload, life=60)
    assert ends == world.clock.now() + 60
    assert world.grants.open_upload(ticket) == upload
    other, _ = world.grants.allow_download(Download("flytesnacks", "development", "x"), life=60)
    forged = ticket[:-4] + ("AAAA" if not ticket.endswith("AAAA") else "BBBB")
    for wrong in (other, forged, "", "a.b.c", ticket + "x", "é", "x" * 5000):
        with pytest.raises(Denied):
            world.grants.open_upload(wrong)
    with pytest.raises(Denied):
        world.grants.open_download(ticket)
    world.clock.time += 60
    with pytest.raises(Denied, match="ended"):
        world.grants.open_upload(ticket)


async def test_two_fresh_starts_share_nothing(world: World, tmp_path_factory: pytest.TempPathFactory) -> None:
    async with World.opened(tmp_path_factory.mktemp("second")) as other:
        first, second = await world.bootstrap(), await other.bootstrap()
        assert first != second
        for home in (world.home, other.home):
            assert (home / "admin-key").stat().st_mode & 0o777 == 0o600
            assert (home / "signing-key.pem").stat().st_mode & 0o777 == 0o600
        keys = [(home / "signing-key.pem").read_bytes() for home in (world.home, other.home)]
        assert keys[0] != keys[1]
        assert (await world.who(bearer=first)).subject == "admin"
        with pytest.raises(Unauthenticated):
            await world.who(bearer=second)


async def test_a_second_start_makes_no_second_administrator(world: World) -> None:
    first = await world.bootstrap()
    again = await bootstrap(
        db=world.db,
        access=world.access,
        identities=world.identities,
        api_keys=world.api_keys,
        home=world.home,
    )
    assert again is None
    assert (world.home / "admin-key").read_text().strip() == first
