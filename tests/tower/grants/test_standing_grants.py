"""How long a run acts for its person, and what ends that: with a clock that tests set."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import replace
from typing import Any

import pytest
from connectrpc.code import Code
from sqlalchemy import delete, update
from tests.grounds_world import Grounds, socket
from tests.rpc_world import DOMAIN, PROJECT, RpcWorld, create_run, refused

from tower.errors import Denied, NotFound, Unauthenticated
from tower.identity.authenticators import MACHINE
from tower.identity.workload import Workload, WorkloadKind
from tower.states import Phase
from tower.store import runs
from tower.store import schema as tables
from tower.store.runs import ActionKey

HOUR = 3600.0
DAY = 24 * HOUR


@pytest.fixture
async def grounds(rpc: RpcWorld) -> Grounds:
    return await Grounds.opened(rpc)


async def test_six_hours_queued_and_two_days_running(grounds: Grounds) -> None:
    """The person's session and key are long over; the run and what it asks for act for them all the time."""
    clock = grounds.world.clock
    short = await grounds.world.key("short", "alice", expires_in=HOUR)
    key = await grounds.asked(await grounds.world.who(bearer=short))
    clock.time += 6 * HOUR
    assert await grounds.starts(key) == ""
    task = socket(key)
    child = await grounds.child(task)
    for _ in range(48):
        clock.time += HOUR
        for each in (task, child):
            principal = await grounds.call(each)
            assert (principal.subject, principal.credential.expires_at) == (
                "alice",
                clock.time - (clock.time - 1_800_000_000.0) + 7 * DAY,
            )
    with pytest.raises(Unauthenticated, match="expired"):
        await grounds.world.who(bearer=short)


async def test_a_grant_ends_by_itself(grounds: Grounds) -> None:
    task = await grounds.lease(await grounds.asked("alice"))
    grounds.world.clock.time += 7 * DAY - 1
    await grounds.call(task)
    grounds.world.clock.time += 1
    assert "ended at 2027-01-22T08:00:00+00:00" in await grounds.refusal(task)


async def test_a_run_may_ask_for_less_and_gives_no_more_than_it_has(grounds: Grounds) -> None:
    clock = grounds.world.clock
    task = await grounds.lease(await grounds.asked("alice", grant=2 * HOUR))
    clock.time += HOUR
    detached = await grounds.asked(await grounds.call(task))
    seen = await grounds.grants.list(await grounds.principal("alice"))
    assert {each.expires_at - clock.time for each in seen} == {HOUR}
    below = await grounds.lease(detached)
    await grounds.call(below)
    longer = await grounds.asked("alice", grant=70 * DAY)
    ends = {each.row.run: each.expires_at for each in await grounds.grants.list(MACHINE)}
    assert ends[longer.run] - clock.time == 7 * DAY
    clock.time += HOUR
    for each in (task, below):
        assert "The grant of the run" in await grounds.refusal(each)


async def test_the_caller_names_the_bound_in_an_annotation(rpc: RpcWorld, grounds: Grounds) -> None:
    alice = rpc.caller(grounds.keys["alice"])
    request = create_run(inputs={"x": 1})
    request.run_spec.annotations.values["tower/grant"] = "60"
    await alice.runs.create_run(request, headers=alice.headers)
    (seen,) = await grounds.grants.list(await grounds.principal("alice"))
    assert seen.expires_at == grounds.world.clock.time + 60
    for wrong in ("0", "-5", "1h", "", "9" * 12):
        request.run_spec.annotations.values["tower/grant"] = wrong
        with refused(Code.INVALID_ARGUMENT, "tower/grant"):
            await alice.runs.create_run(request, headers=alice.headers)


@pytest.mark.parametrize("who", ["alice", "root"])
async def test_a_revoked_grant_ends_everything_behind_it(grounds: Grounds, who: str) -> None:
    """The run, its children and the runs that it started are refused at the next call; none starts."""
    key = await grounds.asked("alice")
    task = await grounds.lease(key)
    child = await grounds.child(task)
    detached = await grounds.asked(await grounds.call(child))
    below = await grounds.lease(detached)
    queued = await grounds.asked(await grounds.call(task))
    other = await grounds.lease(await grounds.asked("alice"))
    for each in (task, child, below, other):
        await grounds.call(each)

    seen = await grounds.revoke(who, key)
    assert (seen.row.revoked_by, seen.ended) == (who, f"The grant of the run {key.run} was revoked by {who}.")
    for each in (task, child, below):
        assert await grounds.refusal(each) == seen.ended
    assert await grounds.starts(queued) == seen.ended
    await grounds.call(other)
    await grounds.revoke(who, key)
    (record,) = await grounds.world.records(event="grant.revoke")
    assert (record.subject, record.outcome) == (who, "allowed")
    assert key.run in record.detail


async def test_grants_are_their_persons_and_the_administrators(grounds: Grounds) -> None:
    key = await grounds.asked("alice")
    task = await grounds.call(await grounds.lease(key))
    await grounds.asked("bob")
    for name in ("alice", "bob"):
        (seen,) = await grounds.grants.list(await grounds.principal(name))
        assert seen.row.executed_by == name
    assert len(await grounds.grants.list(await grounds.principal("root"))) == 2
    (hers,) = await grounds.grants.list(await grounds.principal("root"), subject="alice")
    assert hers.row.key == key
    with pytest.raises(Denied):
        await grounds.grants.list(await grounds.principal("bob"), subject="alice")
    absent = ActionKey(PROJECT, DOMAIN, "r-of-nobody")
    answers = set()
    for each in (key, absent):
        with pytest.raises(Denied) as caught:
            await grounds.revoke("bob", each)
        answers.add(caught.value.message)
        with pytest.raises(Denied):
            await grounds.grants.revoke(task, each)
    assert len(answers) == 1
    with pytest.raises(NotFound):
        await grounds.revoke("root", absent)
    assert (await grounds.call(socket(key))).subject == "alice"


async def test_a_list_goes_on_where_it_ended(grounds: Grounds) -> None:
    keys = sorted([await grounds.asked("alice") for _ in range(3)])
    seen = await grounds.grants.list(MACHINE, after=keys[0])
    assert [each.row.key for each in seen] == keys[1:]


Change = Callable[[Grounds, ActionKey], Awaitable[object]]


async def disable(grounds: Grounds, key: ActionKey) -> None:
    await grounds.world.identities.set_disabled(MACHINE, "alice", disabled=True)


async def delete_key(grounds: Grounds, key: ActionKey) -> None:
    await grounds.world.api_keys.delete(MACHINE, "alice-key")


async def disable_key(grounds: Grounds, key: ActionKey) -> None:
    await grounds.world.api_keys.set_disabled(MACHINE, "alice-key", disabled=True)


async def demote(grounds: Grounds, key: ActionKey) -> None:
    await grounds.world.identities.remove_binding(
        MACHINE, subject="alice", role="contributor", project="*", domain="*"
    )
    await grounds.world.identities.add_binding(
        MACHINE, subject="alice", role="viewer", project="*", domain="*"
    )


async def abort(grounds: Grounds, key: ActionKey) -> None:
    await grounds.rpc.runs.abort(
        await grounds.principal("root"), key, reason="", whole_run=True, request_id="q"
    )


@pytest.mark.parametrize("change", [disable, delete_key, disable_key, demote, abort])
async def test_what_ends_a_grant_at_once(grounds: Grounds, change: Change) -> None:
    """For the run, for what it asked for, and for what it started and let go."""
    key = await grounds.asked("alice")
    task = await grounds.lease(key)
    child = await grounds.child(task)
    detached = await grounds.lease(await grounds.asked(await grounds.call(child)))
    queued = await grounds.asked(await grounds.call(task))
    for each in (task, child, detached):
        assert (await grounds.call(each)).subject == "alice"
    await change(grounds, key)
    for each in (task, child, detached):
        await grounds.refusal(each)
    assert await grounds.starts(queued) != ""


async def test_losing_the_right_to_one_task_ends_its_runs_alone(grounds: Grounds) -> None:
    """A policy against the one task: its runs and what they started act for nobody, other runs go on."""
    from tower.policy.rulebook import Written

    await grounds.rpc.deploy(grounds.rpc.caller(grounds.keys["alice"]), name="env.other")
    key = await grounds.asked("alice")
    task = await grounds.lease(key)
    below = await grounds.lease(await grounds.asked(await grounds.call(task)))
    other = replace(await_row(grounds, key), run="r-other", task_name="env.other", request_id=None)
    other = replace(other, phase=Phase.QUEUED, attempts=0)
    await grounds.world.db.write(lambda tx: runs.insert(tx, other))
    others = await grounds.lease(other.key)
    text = """forbid (principal, action == Action::"task:run", resource is Task)
        when { resource.name == "env.main" };"""
    await grounds.world.governance.policies.put_policy(MACHINE, Written("no-main", text), create=True)
    for each in (task, below):
        assert await grounds.refusal(each) == "alice may not run env.main any more."
    assert (await grounds.call(others)).subject == "alice"


def await_row(grounds: Grounds, key: ActionKey) -> Any:
    row = grounds.world.db.read_now(lambda reader: runs.get(reader, key))
    assert row is not None
    return row


async def test_a_policy_sees_the_question_as_it_was_asked(grounds: Grounds) -> None:
    """No runs from inside of runs: what a person asked for goes on, and what that started does not."""
    from tower.policy.rulebook import Written

    task = await grounds.lease(await grounds.asked("alice"))
    below = await grounds.lease(await grounds.asked(await grounds.call(task)))
    text = """forbid (principal, action == Action::"task:run", resource) when { context.in_run };
        forbid (principal, action == Action::"task:run", resource)
            when { context.credential != "api_key" && context.credential != "workload" };"""
    await grounds.world.governance.policies.put_policy(MACHINE, Written("flat", text), create=True)
    assert (await grounds.call(task)).subject == "alice"
    assert await grounds.refusal(below) == "alice may not run env.main any more."
    with pytest.raises(Denied):
        await grounds.asked(await grounds.call(task))
    assert await grounds.starts(await grounds.asked("alice")) == ""


async def test_signing_out_ends_no_run(grounds: Grounds) -> None:
    """Nor does the end of the session, or of the key's life, or a rotation of the key."""
    world = grounds.world
    cookie = await world.cookie("alice")
    session = await world.who(cookie=cookie, audience="console")
    by_session = await grounds.lease(await grounds.asked(session))
    by_key = await grounds.lease(await grounds.asked("alice"))
    await world.logins.sign_out(session)
    with pytest.raises(Unauthenticated):
        await world.who(cookie=cookie, audience="console")
    await world.api_keys.rotate(MACHINE, "alice-key", overlap=1.0)
    world.clock.time += DAY
    with pytest.raises(Unauthenticated):
        await grounds.principal("alice")
    for each in (by_session, by_key):
        assert (await grounds.call(each)).subject == "alice"


async def test_a_cut_ceiling_of_an_app_is_felt_by_the_runs_that_it_started(grounds: Grounds) -> None:
    from tower.control.ceilings import Limits

    world = grounds.world
    app = f"{PROJECT}/{DOMAIN}/probe"
    token = await world.grants.exchange(await grounds.principal("alice"), app)
    through = await world.who(bearer=token, workload=Workload(WorkloadKind.APP, app, 1))
    task = await grounds.lease(await grounds.asked(through))
    assert (await grounds.call(task)).via_app == app
    limits = Limits(actions=frozenset({"run:view"}))
    await world.governance.ceilings.set(MACHINE, PROJECT, DOMAIN, "probe", limits)
    assert "may not run env.main any more" in await grounds.refusal(task)


async def test_a_row_of_an_earlier_version_has_the_longest_grant(grounds: Grounds) -> None:
    key = await grounds.asked("alice")
    task = await grounds.lease(key)
    cleared = update(tables.actions).values(grant_expires_at=None)
    await grounds.world.db.write(lambda tx: tx.execute(cleared) and None)
    grounds.world.clock.time += 7 * DAY - 1
    await grounds.call(task)
    grounds.world.clock.time += 1
    await grounds.refusal(task)


async def test_a_link_that_is_gone_ends_what_is_behind_it(grounds: Grounds) -> None:
    task = await grounds.lease(await grounds.asked("alice"))
    below = await grounds.lease(await grounds.asked(await grounds.call(task)))
    run = task.id.split("/")[2]
    for table in (tables.attempts, tables.actions):
        gone = delete(table).where(table.c.run == run)
        await grounds.world.db.write(lambda tx, gone=gone: tx.execute(gone) and None)  # type: ignore[misc]
    assert await grounds.refusal(below) == "The run that this one stands on is gone."


async def test_nobody_is_left_once_somebody_ended_it_on_purpose(grounds: Grounds) -> None:
    """Account, key and grant, of the run or of what asked for it; a lost right only ends the calls."""
    gone = grounds.world.standing.gone
    key = await grounds.asked("alice")
    task = await grounds.lease(key)
    below = await grounds.lease(await grounds.asked(await grounds.call(task)))
    waiting = await grounds.asked("alice")
    assert [await gone(each.id) for each in (task, below)] == ["", ""]
    assert await gone("/".join((*waiting, "1"))) == ""
    await grounds.world.db.write(
        lambda tx: tx.execute(delete(tables.bindings).where(tables.bindings.c.subject == "alice")) and None
    )
    grounds.world.directory.forget()
    assert "may not run" in await grounds.refusal(task)
    assert await gone(task.id) == ""
    await grounds.revoke("root", key)
    for each in (task, below):
        assert await gone(each.id) == f"The grant of the run {key.run} was revoked by root."
    other = await grounds.lease(await grounds.asked("bob"))
    await grounds.world.identities.set_disabled(MACHINE, "bob", disabled=True)
    assert "account or the key" in await gone(other.id)
