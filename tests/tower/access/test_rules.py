"""Roles, groups, policies and limits of apps over the database: what changes, when, and what stays hidden."""

from __future__ import annotations

from typing import Any

import pytest
from tests.identity_world import World, app_socket

from tower.control.ceilings import Limits, declared
from tower.control.policies import Policies
from tower.errors import AlreadyExists, Denied, Invalid, NotFound, Precondition
from tower.identity.authenticators import MACHINE
from tower.identity.principal import Kind, Principal
from tower.policy.actions import Action, Resource, ResourceType
from tower.policy.rulebook import Written
from tower.store import policies as store
from tower.store.schema import policies as policies_table
from tower.store.schema import projects as projects_table

P, D = "flytesnacks", "development"
TASK = Resource(ResourceType.TASK, P, D, "my_env.my_task")
OTHER = Resource(ResourceType.TASK, P, D, "my_env.other")
ORG = Resource(ResourceType.ORG)
FREEZE = 'forbid (principal, action == Action::"task:run", resource is Task);'


async def may(world: World, who: Principal, action: Action, place: Resource) -> bool:
    return (await world.access.check(who, action, place)).allowed


async def put(world: World, by: Principal, name: str, text: str, **scope: Any) -> None:
    await world.governance.policies.put_policy(by, Written(name, text, **scope), create=True)


async def test_a_role_of_ones_own_gives_what_it_lists_and_changes_for_all_who_have_it(world: World) -> None:
    dave = await world.who(bearer=await world.person("dave"))
    policies = world.governance.policies
    await policies.put_role(MACHINE, "runner", frozenset({"task:run"}), create=True)
    await world.identities.add_binding(MACHINE, subject="dave", role="runner", project=P, domain=D)
    assert await may(world, dave, Action.TASK_RUN, TASK)
    assert not await may(world, dave, Action.TASK_VIEW, TASK)
    assert not await may(world, dave, Action.TASK_RUN, Resource(ResourceType.TASK, P, "production", "x"))
    await policies.put_role(MACHINE, "runner", frozenset({"task:view"}), create=False)
    assert await may(world, dave, Action.TASK_VIEW, TASK)
    assert not await may(world, dave, Action.TASK_RUN, TASK)
    with pytest.raises(Precondition, match="dave has the role"):
        await policies.delete_role(MACHINE, "runner")
    limited = await world.who(bearer=await world.key("k", "dave", role="runner"))
    assert await may(world, limited, Action.TASK_VIEW, TASK)
    for name, actions in (("admin", {"task:run"}), ("x", {"task:fly"}), ("x", set()), ("X y", {"task:run"})):
        with pytest.raises(Invalid):
            await policies.put_role(MACHINE, name, frozenset(actions), create=True)


async def test_groups_give_their_roles_to_members_and_to_whom_a_provider_names(world: World) -> None:
    dave = await world.who(bearer=await world.person("dave"))
    groups = world.governance.groups
    await groups.create(MACHINE, "ops", members=["dave"], external="acme-ops")
    await world.identities.add_binding(MACHINE, subject="group:ops", role="contributor", project=P, domain=D)
    assert await may(world, dave, Action.TASK_RUN, TASK)
    await groups.update(MACHINE, "ops", remove=["dave"])
    assert not await may(world, dave, Action.TASK_RUN, TASK)

    def signed_in(tx: Any) -> None:
        store.set_external_groups(tx, "dave", "https://idp", ["acme-ops", "acme-all"])
        tx.after_commit(world.directory.forget)

    await world.db.write(signed_in)
    assert await may(world, dave, Action.TASK_RUN, TASK)
    claimed = await world.directory.bindings("dave", ("nothing-here",))
    assert claimed.groups == {"ops"}
    await world.person("carol")
    assert (await world.directory.bindings("carol", ("acme-ops",))).groups == {"ops"}
    assert (await world.directory.bindings("carol")).groups == frozenset()
    await groups.delete(MACHINE, "ops")
    assert not await may(world, dave, Action.TASK_RUN, TASK)
    with pytest.raises(Invalid):
        await groups.create(MACHINE, "ghosts", members=["nobody-here"])


async def test_a_policy_forbids_in_its_scope_only_and_the_record_names_it(world: World) -> None:
    alice = await world.who(bearer=await world.person("alice", "contributor", P))
    await put(world, MACHINE, "freeze", FREEZE, project=P, domain=D)
    assert not await may(world, alice, Action.TASK_RUN, TASK)
    assert await may(world, alice, Action.TASK_RUN, Resource(ResourceType.TASK, P, "staging", "x"))
    with pytest.raises(Denied) as refused:
        await world.access.require(alice, Action.TASK_RUN, TASK, view=Action.TASK_VIEW)
    assert "policy forbids" in refused.value.public
    (record,) = await world.records(subject="alice", event="access.refuse")
    assert record.decision == "policy:freeze"
    revisions = await world.governance.policies.revisions(MACHINE)
    assert record.policy_revision == revisions[0].revision == world.access.revision
    assert FREEZE.replace('"', '\\"') in revisions[0].document
    assert await may(world, MACHINE, Action.TASK_RUN, TASK)
    await world.governance.policies.delete_policy(MACHINE, "freeze")
    assert await may(world, alice, Action.TASK_RUN, TASK)


async def test_a_policy_for_one_task_is_for_that_one(world: World) -> None:
    alice = await world.who(bearer=await world.person("alice", "contributor", P))
    await put(world, MACHINE, "one", FREEZE, project=P, domain=D, kind="task", target=TASK.name)
    assert not await may(world, alice, Action.TASK_RUN, TASK)
    assert await may(world, alice, Action.TASK_RUN, OTHER)


async def test_a_permit_never_lifts_a_ceiling(world: World) -> None:
    await world.person("alice")
    text = 'permit (principal == User::"alice", action == Action::"task:run", resource is Task);'
    await put(world, MACHINE, "alice-runs", text, project=P)
    full = await world.who(bearer=await world.key("full", "alice"))
    low = await world.who(bearer=await world.key("low", "alice", role="viewer"))
    assert await may(world, full, Action.TASK_RUN, TASK)
    assert not await may(world, low, Action.TASK_RUN, TASK)


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("permit (principal, action, resource)\nwhen { resource.zip };", "line 2: attribute `zip`"),
        ("// first\n\nforbid (principal, action, resource);\n\npermit (principal,,);", "line 5"),
        ('forbid (principal, action, resource == Task::"x");', "cannot be named one by one"),
        ('forbid (principal in Role::"viewer@1:*/1:*", action, resource);', "Role cannot be named"),
        ('permit (principal == Machine::"machine", action, resource);', "Machine cannot be named"),
        ("permit (principal is Machine, action, resource);", "operator of the machine"),
        ("permit (principal == ?principal, action, resource);", "templates"),
        ('forbid (principal, action == Action::"task:fly", resource);', "task:fly"),
        ("permit (principal, action, resource);", "would let everyone do"),
        ("", "says nothing"),
        ("// nothing", "says nothing"),
        (
            '@id("a") forbid (principal, action, resource);\n@id("a") permit (principal, action, resource);',
            "same @id",
        ),
        ('forbid (principal, action, resource) when { "\\u{41}; " == context.app };;', "line 1"),
    ],
)
async def test_a_broken_policy_stops_the_change_and_not_the_server(
    world: World, text: str, problem: str
) -> None:
    before = world.access.revision
    with pytest.raises(Invalid) as refused:
        await put(world, MACHINE, "mine", text)
    assert problem in refused.value.message, refused.value.message
    assert world.access.revision == before
    assert await world.governance.policies.policies(MACHINE) == []


async def test_an_author_does_not_lock_themselves_out_and_the_machine_cannot_be(world: World) -> None:
    admin = await world.who(bearer=await world.bootstrap())
    with pytest.raises(Precondition, match="could not undo"):
        await put(world, admin, "shut", "forbid (principal, action, resource);")
    assert await may(world, admin, Action.POLICY_MANAGE, ORG)
    await put(world, MACHINE, "shut", "forbid (principal, action, resource);")
    assert not await may(world, admin, Action.SELF_VIEW, ORG)
    await world.governance.policies.delete_policy(MACHINE, "shut")
    assert await may(world, admin, Action.POLICY_MANAGE, ORG)


async def test_who_keeps_one_project_reaches_no_other(world: World) -> None:
    pat = await world.who(bearer=await world.person("pat", "admin", P))
    everywhere = 'permit (principal == User::"pat", action, resource);'
    await put(world, pat, f"{P}.mine", everywhere, project=P)
    assert not await may(world, pat, Action.USER_MANAGE, ORG)
    assert not await may(world, pat, Action.TASK_VIEW, Resource(ResourceType.TASK, "other", D, "x"))
    for scope in ({}, {"domain": D}, {"project": "other"}):
        with pytest.raises((Denied, Invalid)):
            await put(world, pat, "theirs", everywhere, **scope)
    await put(world, MACHINE, "org", FREEZE)
    assert [row.name for row in await world.governance.policies.policies(pat)] == [f"{P}.mine"]


async def test_a_hidden_policy_and_none_are_the_same(world: World) -> None:
    dave = await world.who(bearer=await world.person("dave"))
    await put(world, MACHINE, "secret-plan", FREEZE, project=P)
    said = []
    for name in ("secret-plan", "nowhere-plan"):
        for call in (
            world.governance.policies.policy(dave, name),
            world.governance.policies.delete_policy(dave, name),
            world.governance.policies.put_policy(dave, Written(name, FREEZE), create=False),
        ):
            with pytest.raises(NotFound) as hidden:
                await call
            said.append((name, hidden.value.public.replace(name, "NAME")))
    assert len({text for _, text in said}) == 1
    records = await world.records(subject="dave", event="access.refuse")
    assert {record.resource for record in records} == {"policy:secret-plan", "policy:nowhere-plan"}


async def test_t43_no_name_tells_of_a_policy_elsewhere(world: World) -> None:
    """Whether or not others wrote such a policy, who administers a part gets the same answers."""
    await world.db.write(
        lambda tx: tx.insert(projects_table, name="other", created_at=0.0, created_by="machine")
    )
    keeper = await world.who(bearer=await world.person("keeper", "admin", P))
    nightly = await world.who(bearer=await world.person("nightly", "admin", P, D))
    guesses = ("freeze", "other.freeze", "other.production.freeze", f"{P}.production.freeze", "freez.e")
    place = {"project": P, "domain": D}

    async def answers(who: Principal, names: tuple[str, ...]) -> list[str]:
        found = []
        for name in names:
            with pytest.raises(Invalid) as caught:
                await put(world, who, name, FREEZE, **place)
            found.append(caught.value.public)
        return found

    visible = guesses[:3] + guesses[4:]
    before = await answers(keeper, visible), await answers(nightly, guesses)
    await put(world, MACHINE, "freeze", FREEZE)
    await put(world, MACHINE, "other.freeze", FREEZE, project="other")
    await put(world, MACHINE, "other.production.freeze", FREEZE, project="other", domain="production")
    await put(world, MACHINE, f"{P}.production.freeze", FREEZE, project=P, domain="production")
    assert (await answers(keeper, visible), await answers(nightly, guesses)) == before
    # a part's own names are its own, also in the hands of those who administer everything
    elsewhere: tuple[tuple[str, dict[str, str]], ...] = (
        (f"{P}.hidden", {}),
        (f"{P}.hidden", {"project": "other"}),
        (f"{P}.{D}.hidden", {"project": P}),
        (f"{P}.{D}.hidden", {"project": P, "domain": "production"}),
    )
    for name, scope in elsewhere:
        with pytest.raises(Invalid, match="Names that begin with"):
            await put(world, MACHINE, name, FREEZE, **scope)
    await put(world, keeper, f"{P}.own", FREEZE, project=P)
    await put(world, nightly, f"{P}.{D}.own", FREEZE, **place)
    with pytest.raises(AlreadyExists):
        await put(world, keeper, f"{P}.{D}.own", FREEZE, **place)


async def test_an_app_limited_to_one_task_does_no_other_even_for_an_admin(world: World) -> None:
    """T16."""
    admin = await world.who(bearer=await world.person("ada", "admin"), audience="gateway")
    socket = app_socket()
    free = await world.who(bearer=await world.grants.exchange(admin, socket.id), workload=socket)
    assert await may(world, free, Action.TASK_RUN, OTHER)
    limits = Limits(actions=frozenset({"task:run", "run:view"}), tasks=frozenset({f"{P}/{D}/{TASK.name}"}))
    await world.governance.ceilings.set(MACHINE, *socket.id.split("/"), limits)
    for caller in (
        free,
        await world.who(bearer=await world.grants.exchange(admin, socket.id), workload=socket),
    ):
        assert await may(world, caller, Action.TASK_RUN, TASK)
        assert await may(world, caller, Action.TASK_VIEW, TASK)
        assert not await may(world, caller, Action.TASK_RUN, OTHER)
        assert not await may(world, caller, Action.TASK_REGISTER, TASK)
        assert not await may(world, caller, Action.APP_DEPLOY, Resource(ResourceType.APP, P, D, "hook"))
    assert await may(world, admin, Action.TASK_RUN, OTHER)
    run = await world.who(workload=await world.running(free, task=TASK.name))
    assert not await may(world, run, Action.TASK_RUN, OTHER), "also from inside a run that the app asked for"
    with pytest.raises(Denied, match="You may not"):
        await world.access.require(free, Action.TASK_RUN, OTHER)
    (refused,) = await world.records(app=socket.id, event="access.refuse")
    assert refused.decision.startswith(f"below app:{socket.id}")
    assert refused.subject == "ada"
    await world.governance.ceilings.set(MACHINE, *socket.id.split("/"), None)
    assert await may(world, free, Action.TASK_RUN, OTHER)


def test_a_declared_limit_is_read_strictly() -> None:
    assert declared('{"actions": ["task:run"], "tasks": ["p/d/e.f"]}') == (
        '{"actions": ["task:run"], "tasks": ["p/d/e.f"]}'
    )
    for text in (
        "",
        "[]",
        "null",
        '{"action": []}',
        '{"actions": "task:run"}',
        '{"actions": ["x:y"]}',
        '{"tasks": ["e.f"]}',
        '{"projects": [1]}',
        "[" * 100_000,
    ):
        with pytest.raises(Invalid):
            declared(text)


async def test_a_document_that_cannot_be_read_any_more_closes_its_scope(world: World) -> None:
    alice = await world.who(bearer=await world.person("alice", "contributor", P))
    await put(world, MACHINE, "old", FREEZE, project=P, domain=D)
    await world.db.write(lambda tx: tx.execute(policies_table.update().values(text="forbid (")) and None)
    await Policies(db=world.db, access=world.access).open()
    assert not await may(world, alice, Action.TASK_VIEW, TASK)
    assert await may(world, alice, Action.TASK_VIEW, Resource(ResourceType.TASK, P, "staging", "x"))
    await world.governance.policies.delete_policy(MACHINE, "old")
    assert await may(world, alice, Action.TASK_RUN, TASK)


async def test_a_contributor_acts_as_no_service_but_the_one_that_is_given(world: World) -> None:
    """T34."""
    for name in ("robot", "root"):
        await world.identities.add_user(MACHINE, subject=name, kind=Kind.SERVICE)
    alice = await world.who(bearer=await world.person("alice", "admin"))
    robot, root = (Resource(ResourceType.USER, name=name) for name in ("robot", "root"))
    assert not await may(world, alice, Action.ACT_AS, robot)
    with pytest.raises(Invalid):
        await world.identities.add_binding(MACHINE, subject="alice", role="act-as")
    await world.identities.add_binding(MACHINE, subject="alice", role="act-as", kind="service", name="robot")
    assert await may(world, alice, Action.ACT_AS, robot)
    assert not await may(world, alice, Action.ACT_AS, root)


async def test_a_name_in_use_is_not_given_again(world: World) -> None:
    await put(world, MACHINE, "one", FREEZE)
    with pytest.raises(AlreadyExists):
        await put(world, MACHINE, "one", FREEZE)
    await world.person("gone", "viewer")
    await world.identities.delete_user(MACHINE, "gone")
    with pytest.raises(AlreadyExists):
        await world.person("gone")
    assert await world.db.read(lambda reader: store.groups_of(reader, "gone")) == []
