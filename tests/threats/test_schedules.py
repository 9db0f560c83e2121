"""Schedules, where nobody is present: T1, T2, T7, T34, T40. The clock is the tests'."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from connectrpc.code import Code
from flyteidl2.common import identifier_pb2
from flyteidl2.task import run_pb2
from flyteidl2.trigger import trigger_service_pb2 as service
from flyteidl2.workflow import run_definition_pb2
from flyteidl2.workflow import run_service_pb2 as runs
from tests.rpc_world import DOMAIN, PROJECT, RpcWorld, create_run, refused, run_id
from tests.tower.schedules.conftest import START, Clockwork, Declared, cron, every, name_of

from tower.identity.authenticators import MACHINE
from tower.policy.rulebook import Written
from tower.store import audit

pytestmark = pytest.mark.xdist_group("threats")


@pytest.fixture
async def clockwork(tmp_path: Path) -> AsyncIterator[Clockwork]:
    """alice administers, mallory contributes."""
    async with RpcWorld.opened(tmp_path) as rpc:
        rpc.world.clock.time = START
        made = Clockwork(rpc)
        await made.person("alice", "admin")
        await made.person("mallory")
        yield made


async def test_t02_a_trigger_is_no_moving_target(clockwork: Clockwork) -> None:
    """Mallory registers a new version under alice's schedule: it still runs hers, and says so."""
    await clockwork.deploy("alice")
    for version in ("v2", "v3"):
        await clockwork.deploy("mallory", version, inputs={"x": 666}, automation=cron("* * * * *"))
    assert await clockwork.pass_until(3, 2, 8, 30) == 0
    for day in (2, 3):
        await clockwork.pass_until(3, day, 9)
    runs = clockwork.runs()
    assert [(run.executed_by, run.task_version) for run in runs] == [("alice", "v1")] * 2
    assert [(await clockwork.given(run))["x"].integer for run in runs] == [1, 1]
    shown = await clockwork.details("alice")
    assert shown.spec.task_version == "v1"
    assert "mallory deployed the version v3" in shown.spec.run_spec.labels.values["tower/notice"]
    # she approves it by naming it; nothing else moves it
    await clockwork.switch("alice", False)
    await clockwork.switch("alice", True)
    assert clockwork.row().version == "v1"
    await clockwork.set("alice", version="v3")
    await clockwork.pass_until(3, 4, 9)
    assert clockwork.runs()[-1].task_version == "v3"


async def test_t07_the_schedule_of_a_dismissed_person_starts_nothing(clockwork: Clockwork) -> None:
    """Disabled between two firings: the next one starts nothing, is on record, and is there to be seen."""
    await clockwork.deploy("mallory")
    await clockwork.pass_until(3, 2, 9)
    await clockwork.rpc.world.identities.set_disabled(MACHINE, "mallory", disabled=True)
    for day in (3, 4, 5):
        await clockwork.pass_until(3, day, 9)
    assert len(clockwork.runs()) == 1
    labels = (await clockwork.details("alice")).spec.run_spec.labels.values
    assert labels["tower/state"] == "suspended"
    assert "The account mallory is disabled" in labels["tower/notice"]
    records = clockwork.rpc.world.db.read_now(
        lambda reader: audit.page(reader, event="trigger.suspend", limit=10)
    )
    assert [(record.subject, record.outcome) for record in records] == [("mallory", "refused")]


async def test_t07_deleting_the_key_ends_what_it_activated(clockwork: Clockwork) -> None:
    """Whoever had the key and set a schedule up with it is rid of that when the key is deleted."""
    await clockwork.deploy("alice")
    await clockwork.rpc.world.api_keys.delete(MACHINE, "alice-key")
    await clockwork.pass_until(3, 2, 9)
    assert clockwork.runs() == []
    assert clockwork.row().state == "suspended"


async def test_t40_who_edits_the_task_does_not_get_its_owners_rights(clockwork: Clockwork) -> None:
    """No way for a contributor to have a run of theirs, or of their code, made as the administrator."""
    await clockwork.deploy("alice")
    await clockwork.deploy("mallory", "v2")
    before = clockwork.row()
    with refused(Code.PERMISSION_DENIED):
        await clockwork.set("mallory", version="v2")
    with refused(Code.PERMISSION_DENIED):
        await clockwork.switch("mallory", True)
    with refused(Code.PERMISSION_DENIED):
        await clockwork.delete("mallory")
    await clockwork.switch("mallory", False)
    with refused(Code.PERMISSION_DENIED):
        await clockwork.switch("mallory", True)
    await clockwork.deploy("mallory", "v3")
    row = clockwork.row()
    assert (row.state, row.version, row.run_as) == ("inactive", before.version, "alice")
    # one of her own runs as herself
    await clockwork.deploy("mallory", "v3", name="hers")
    await clockwork.pass_until(3, 2, 9)
    assert [(run.executed_by, run.task_version) for run in clockwork.runs()] == [("mallory", "v3")]


async def test_t40_labels_and_actors_of_a_schedule_cannot_be_claimed(clockwork: Clockwork) -> None:
    """A run says that a trigger started it where Tower started it, and nowhere else."""
    await clockwork.deploy("alice")
    mallory = clockwork.people["mallory"]
    asked = create_run(inputs={"x": 1})
    asked.run_spec.labels.values["tower/trigger"] = "flytesnacks/development/env.main/daily"
    asked.source = run_definition_pb2.RUN_SOURCE_SCHEDULE_TRIGGER
    made = (await mallory.runs.create_run(asked, headers=mallory.headers)).run
    shown = await mallory.runs.get_run_details(
        runs.GetRunDetailsRequest(run_id=run_id(made.action.id.run.name)), headers=mallory.headers
    )
    assert "tower/trigger" not in shown.details.run_spec.labels.values
    assert not shown.details.action.metadata.trigger_name
    await clockwork.pass_until(3, 2, 9)
    by_trigger = runs.ListRunsRequest(trigger_name=name_of())
    listed = (await mallory.runs.list_runs(by_trigger, headers=mallory.headers)).runs
    (run,) = listed
    assert run.labels["tower/trigger"] == "flytesnacks/development/env.main/daily"
    assert run.action.metadata.executed_by.user.id.subject == "alice"
    assert run.action.metadata.trigger_id.name == identifier_pb2.TriggerName(
        project=PROJECT, domain=DOMAIN, task_name="env.main", name="daily"
    )


async def test_t34_a_schedule_names_nobody_to_run_as(clockwork: Clockwork) -> None:
    """Also who may act as a service does not set up a schedule that runs as it: they activate it as it."""
    spec = run_pb2.RunSpec()
    spec.security_context.run_as.iam_role = "alice"
    with refused(Code.UNIMPLEMENTED, "as the person who asked"):
        await clockwork.deploy("mallory", run_spec=spec)
    caller = clockwork.people["mallory"]
    request = service.DeployTriggerRequest(name=name_of("other"), automation_spec=cron())
    request.spec.run_spec.security_context.run_as.k8s_service_account = "alice"
    await clockwork.deploy("mallory")
    with refused(Code.UNIMPLEMENTED, "as the person who asked"):
        await caller.triggers.deploy_trigger(request, headers=caller.headers)


async def test_t01_a_task_leaves_no_schedule_behind(clockwork: Clockwork) -> None:
    """Code that runs with somebody's rights cannot make itself run again when it is over."""
    world = clockwork.rpc.world
    await clockwork.deploy("mallory")
    alice = await world.who(bearer=await world.key("k", "alice"))
    inside = await world.who(("x-flyte-agent", "1"), workload=await world.running(alice))
    declared = Declared("trojan", every(1), clockwork.inputs(), run_pb2.RunSpec(), active=True)
    task = (PROJECT, DOMAIN, "env.main")
    await clockwork.rpc.schedules.deploy(inside, task, "", declared, request_id="q")
    row = clockwork.row("trojan")
    assert (row.state, row.run_as, row.next_at) == ("inactive", "", None)
    with pytest.raises(Exception, match="A running task cannot activate a trigger"):
        await clockwork.rpc.schedules.set_active(inside, [row.key], True, request_id="q")
    assert await clockwork.wait(120) == 0


async def test_t02_policy_may_forbid_the_latest_version(clockwork: Clockwork) -> None:
    """In chosen domains a run names its version; a schedule does, since its version is pinned."""
    text = (
        'forbid (principal, action == Action::"task:run", resource is Task) '
        'when { resource.domain == "development" && context.latest };'
    )
    await clockwork.rpc.world.governance.policies.put_policy(MACHINE, Written("pinned", text), create=True)
    await clockwork.deploy("mallory")
    mallory = clockwork.people["mallory"]
    with refused(Code.PERMISSION_DENIED, "policy"):
        await clockwork.rpc.run(mallory)
    await clockwork.rpc.run(mallory, version="v1")
    await clockwork.pass_until(3, 2, 9)
    assert [run.task_version for run in clockwork.runs()] == ["v1", "v1"]
