"""Whose rights a schedule has: of who activated it, as they are now, below what they showed then."""

from __future__ import annotations

from typing import Any

import pytest
from connectrpc.code import Code
from flyteidl2.workflow import run_service_pb2
from tests.rpc_world import PROJECT, refused
from tests.tower.schedules.conftest import Clockwork, name_of

from tower.identity.authenticators import MACHINE
from tower.policy.actions import Action
from tower.store import audit


def events(clockwork: Clockwork, event: str) -> list[Any]:
    """The audit records of this name, newest first."""
    return clockwork.rpc.world.db.read_now(lambda reader: audit.page(reader, event=event, limit=50))


async def test_a_deployment_by_somebody_else_moves_nothing(clockwork: Clockwork) -> None:
    await clockwork.deploy("alice", inputs={"x": 1})
    await clockwork.deploy("bob", "v2", inputs={"x": 666})
    await clockwork.pass_until(3, 2, 9)
    (run,) = clockwork.runs()
    assert (run.executed_by, run.task_version) == ("alice", "v1")
    row = clockwork.row()
    assert "bob deployed the version v2. This trigger stays at v1 until alice" in row.notice
    (record, *_) = events(clockwork, "trigger.deploy")
    assert (record.outcome, record.subject) == ("refused", "bob")


async def test_its_own_person_moves_it_by_deploying(clockwork: Clockwork) -> None:
    await clockwork.deploy("alice")
    await clockwork.deploy("bob", "v2")
    await clockwork.deploy("alice", "v3")
    await clockwork.pass_until(3, 2, 9)
    assert [run.task_version for run in clockwork.runs()] == ["v3"]
    assert clockwork.row().notice == ""


async def test_an_editor_of_the_task_changes_nothing_of_somebody_elses(clockwork: Clockwork) -> None:
    await clockwork.deploy("alice")
    await clockwork.deploy("bob", "v2")
    with refused(Code.PERMISSION_DENIED):
        await clockwork.set("bob", version="v2")
    with refused(Code.PERMISSION_DENIED):
        await clockwork.switch("bob", True)
    with refused(Code.PERMISSION_DENIED):
        await clockwork.delete("bob")
    row = clockwork.row()
    assert (row.revision, row.version, row.run_as, row.state) == (1, "v1", "alice", "active")


async def test_an_editor_may_switch_it_off(clockwork: Clockwork) -> None:
    await clockwork.deploy("alice")
    await clockwork.switch("bob", False)
    assert await clockwork.pass_until(3, 2, 9) == 0
    assert (await clockwork.details("alice")).metadata.updated_by.user.id.subject == "bob"


async def test_who_manages_takes_it_over_as_themselves_never_as_its_owner(clockwork: Clockwork) -> None:
    await clockwork.person("keeper", "admin", project=PROJECT)
    await clockwork.deploy("alice")
    await clockwork.deploy("bob", "v2")
    await clockwork.set("keeper", version="v2")
    await clockwork.pass_until(3, 2, 9)
    (run,) = clockwork.runs()
    assert (run.executed_by, run.task_version) == ("keeper", "v2")
    with refused(Code.PERMISSION_DENIED):
        await clockwork.switch("alice", True)


async def test_activating_again_does_not_adopt_what_was_deployed_meanwhile(clockwork: Clockwork) -> None:
    await clockwork.deploy("alice")
    await clockwork.switch("alice", False)
    await clockwork.deploy("bob", "v2")
    await clockwork.switch("alice", True)
    await clockwork.pass_until(3, 2, 9)
    assert [run.task_version for run in clockwork.runs()] == ["v1"]


async def test_the_next_firing_of_a_disabled_person_starts_nothing(clockwork: Clockwork) -> None:
    await clockwork.deploy("alice")
    await clockwork.pass_until(3, 2, 9)
    await clockwork.rpc.world.identities.set_disabled(MACHINE, "alice", disabled=True)
    await clockwork.pass_until(3, 3, 9)
    assert len(clockwork.runs()) == 1
    row = clockwork.row()
    assert (row.state, row.next_at) == ("suspended", None)
    assert "The account alice is disabled" in row.notice
    (record,) = events(clockwork, "trigger.suspend")
    assert (record.outcome, record.subject, record.credential_kind) == ("refused", "alice", "schedule")
    # enabling the account alone brings nothing back: a person has to
    await clockwork.rpc.world.identities.set_disabled(MACHINE, "alice", disabled=False)
    assert await clockwork.pass_until(3, 4, 9) == 0
    await clockwork.switch("alice", True)
    assert await clockwork.pass_until(3, 5, 9) == 1
    assert len(clockwork.runs()) == 2
    assert clockwork.row().notice == ""


async def test_who_may_not_run_the_task_any_more_starts_nothing(clockwork: Clockwork) -> None:
    await clockwork.deploy("alice")
    await clockwork.rpc.world.identities.remove_binding(
        MACHINE, subject="alice", role="contributor", project="*", domain="*"
    )
    await clockwork.pass_until(3, 2, 9)
    assert clockwork.runs() == []
    assert clockwork.row().state == "suspended"
    (refusal,) = events(clockwork, "access.refuse")
    assert (refusal.subject, refusal.action) == ("alice", Action.TASK_RUN.value)
    assert "schedule:" in refusal.actors


async def test_the_end_of_the_key_ends_it_the_end_of_a_session_does_not(clockwork: Clockwork) -> None:
    world = clockwork.rpc.world
    await clockwork.deploy("alice")
    principal = await world.who(cookie=await world.cookie("bob"), audience="console")
    await clockwork.deploy("bob", name="other")
    await clockwork.switch("bob", False, "other")
    await clockwork.rpc.schedules.set_active(principal, [clockwork.row("other").key], True, request_id="q")
    await world.logins.sign_out(principal)
    await world.api_keys.delete(MACHINE, "alice-key")
    await clockwork.pass_until(3, 2, 9)
    assert [run.executed_by for run in clockwork.runs()] == ["bob"]
    assert "was deleted or disabled" in clockwork.row().notice


async def test_an_expired_key_ends_it(clockwork: Clockwork) -> None:
    world = clockwork.rpc.world
    key = await world.key("short", "alice", expires_in=1800.0)
    clockwork.people["alice"] = clockwork.rpc.caller(key)
    await clockwork.deploy("alice")
    await clockwork.pass_until(3, 2, 9)
    assert clockwork.runs() == []
    assert "has expired" in clockwork.row().notice


async def test_the_limits_of_the_key_stay(clockwork: Clockwork) -> None:
    world = clockwork.rpc.world
    actions = frozenset({"task:view", "task:run", "task:register", "run:view"})
    clockwork.people["alice"] = clockwork.rpc.caller(await world.key("low", "alice", actions=actions))
    await clockwork.deploy("alice")
    await clockwork.pass_until(3, 2, 9)
    (run,) = clockwork.runs()
    assert "task:register" in run.ceilings
    assert "data:upload" not in run.ceilings


async def test_who_may_register_and_not_run_deploys_it_inactive(clockwork: Clockwork) -> None:
    world = clockwork.rpc.world
    actions = frozenset({"task:view", "task:register"})
    clockwork.people["ci"] = clockwork.rpc.caller(await world.key("ci", "alice", actions=actions))
    await clockwork.deploy("ci")
    row = clockwork.row()
    assert (row.state, row.run_as) == ("inactive", "")
    assert row.notice == "Deployed inactive: alice may not run env.main."
    with refused(Code.PERMISSION_DENIED):
        await clockwork.switch("ci", True)


@pytest.mark.parametrize("active", [True, False])
async def test_a_running_task_activates_nothing(clockwork: Clockwork, active: bool) -> None:
    world = clockwork.rpc.world
    alice = await world.who(bearer=await world.key("k", "alice"))
    inside = await world.who(("x-flyte-agent", "1"), workload=await world.running(alice))
    await clockwork.deploy("alice", active=active)
    await clockwork.switch("alice", active)
    before = clockwork.row()
    key = before.key
    if active:
        await clockwork.rpc.schedules.set_active(inside, [key], False, request_id="q")
    with pytest.raises(Exception, match="A running task cannot activate a trigger"):
        await clockwork.rpc.schedules.set_active(inside, [key], True, request_id="q")
    assert clockwork.row().state == "inactive"


async def test_nobody_is_named_to_run_as(clockwork: Clockwork) -> None:
    from flyteidl2.task import run_pb2

    spec = run_pb2.RunSpec()
    spec.security_context.run_as.iam_role = "bob"
    with refused(Code.UNIMPLEMENTED, "as the person who asked"):
        await clockwork.deploy("alice", run_spec=spec)


async def test_who_may_not_view_the_task_sees_no_trigger(clockwork: Clockwork) -> None:
    await clockwork.person("carol", None)
    await clockwork.deploy("alice")
    with refused(Code.NOT_FOUND):
        await clockwork.details("carol")
    with refused(Code.NOT_FOUND):
        await clockwork.switch("carol", False)


async def test_a_run_by_hand_is_its_callers_in_the_pinned_version(clockwork: Clockwork) -> None:
    await clockwork.person("carol", "viewer")
    await clockwork.deploy("alice", moment=True)
    await clockwork.deploy("bob", "v2")
    request = run_service_pb2.CreateRunRequest(trigger_name=name_of())
    bob, carol = clockwork.people["bob"], clockwork.people["carol"]
    await bob.runs.create_run(request, headers=bob.headers)
    (run,) = clockwork.runs()
    assert (run.executed_by, run.task_version, run.actors) == ("bob", "v1", "[]")
    assert set(await clockwork.given(run)) == {"x", "y", "at"}
    with refused(Code.PERMISSION_DENIED):
        await carol.runs.create_run(request, headers=carol.headers)
    request.trigger_name.name = "other"
    with refused(Code.NOT_FOUND):
        await bob.runs.create_run(request, headers=bob.headers)
