"""What a trigger may be, how many there may be, and what a change of one leaves on record."""

from __future__ import annotations

from typing import Any

import pytest
from connectrpc.code import Code
from flyteidl2.common import list_pb2
from flyteidl2.task import run_pb2, task_service_pb2
from flyteidl2.trigger import trigger_definition_pb2 as pb
from flyteidl2.trigger import trigger_service_pb2 as service
from tests.rpc_world import listing, named, project_id, refused, task_id
from tests.tower.schedules.conftest import Clockwork, cron, every, name_of

from tower.identity.authenticators import MACHINE
from tower.identity.principal import ActorKind

RESERVED = run_pb2.RunSpec(envs=run_pb2.Envs(values=[{"key": "FLYTE_AGENT_SOCKET"}]))


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"name": "a/b"}, "name of a trigger"),
        ({"name": ""}, "no name"),
        ({"automation": cron("* * * *")}, "five fields"),
        ({"automation": cron("0 9 * * *", "Mars/Olympus")}, "no time zone"),
        ({"automation": every(0)}, "minute at least"),
        ({"automation": cron(moment="nothing")}, "no input 'nothing'"),
        ({"automation": cron(moment="x")}, "'x' of the task"),
        ({"inputs": {}}, "needs the input 'x'"),
        ({"inputs": {"x": "one"}}, "must be an integer"),
        ({"inputs": {"x": 1, "z": 2}}, "no input 'z'"),
        (
            {"run_spec": run_pb2.RunSpec(envs=run_pb2.Envs(values=[{"key": "FLYTE_AGENT_SOCKET"}]))},
            "FLYTE_AGENT",
        ),
    ],
)
async def test_what_cannot_be_declared_registers_nothing(
    clockwork: Clockwork, change: dict[str, Any], words: str
) -> None:
    with refused(Code.INVALID_ARGUMENT, words):
        await clockwork.deploy("alice", **change)
    alice = clockwork.people["alice"]
    with refused(Code.NOT_FOUND):
        await alice.tasks.get_task_details(
            task_service_pb2.GetTaskDetailsRequest(task_id=task_id()), headers=alice.headers
        )


async def test_there_is_an_end_to_how_many(clockwork: Clockwork) -> None:
    for number in range(20):
        await clockwork.deploy("alice", name=f"t{number}")
    with refused(Code.RESOURCE_EXHAUSTED, "at most 20 triggers"):
        await clockwork.deploy("alice", name="more")
    await clockwork.delete("alice", "t0")
    await clockwork.deploy("alice", name="more")


async def test_deploying_the_same_again_changes_nothing(clockwork: Clockwork) -> None:
    await clockwork.deploy("alice")
    before = clockwork.row()
    clockwork.rpc.world.clock.time += 100
    await clockwork.deploy("alice")
    assert clockwork.row() == before
    await clockwork.deploy("alice", inputs={"x": 2})
    assert clockwork.row().revision == 2


async def test_a_change_in_between_is_noticed(clockwork: Clockwork) -> None:
    await clockwork.deploy("alice")
    await clockwork.set("alice", revision=1)
    with refused(Code.FAILED_PRECONDITION, "changed meanwhile"):
        await clockwork.set("alice", version="v1", revision=7)


async def test_a_revision_is_never_used_again(clockwork: Clockwork) -> None:
    await clockwork.deploy("alice")
    await clockwork.switch("alice", False)
    await clockwork.delete("alice")
    await clockwork.deploy("alice")
    assert clockwork.row().revision == 4
    alice = clockwork.people["alice"]
    request = service.GetTriggerRevisionHistoryRequest(
        request=listing(sort=("revision", list_pb2.Sort.ASCENDING)), name=name_of()
    )
    history = (await alice.triggers.get_trigger_revision_history(request, headers=alice.headers)).triggers
    assert [(each.id.revision, each.action) for each in history] == [
        (1, pb.TRIGGER_REVISION_ACTION_DEPLOY),
        (2, pb.TRIGGER_REVISION_ACTION_DEACTIVATE),
        (3, pb.TRIGGER_REVISION_ACTION_DELETE),
        (4, pb.TRIGGER_REVISION_ACTION_DEPLOY),
    ]
    first = await alice.triggers.get_trigger_revision_details(
        service.GetTriggerRevisionDetailsRequest(id=history[0].id), headers=alice.headers
    )
    assert first.trigger.spec.active
    assert first.trigger.spec.run_spec.labels.values["tower/run-as"] == "alice"


async def test_lists_by_project_task_and_version(clockwork: Clockwork) -> None:
    await clockwork.deploy("alice")
    await clockwork.deploy("bob", "v2", name="other", automation=every(10))
    alice = clockwork.people["alice"]

    async def names(**scope: Any) -> list[str]:
        request = service.ListTriggersRequest(
            request=listing(sort=("name", list_pb2.Sort.ASCENDING)), **scope
        )
        found = await alice.triggers.list_triggers(request, headers=alice.headers)
        return [each.id.name.name for each in found.triggers]

    assert await names(project_id=project_id()) == ["daily", "other"]
    assert await names(task_id=task_id("env.main", "v2")) == ["other"]
    assert await names(task_id=task_id("env.none")) == []
    await clockwork.person("carol", None)
    alice = clockwork.people["carol"]
    assert await names(project_id=project_id()) == []


async def test_all_are_switched_or_none(clockwork: Clockwork) -> None:
    await clockwork.deploy("alice", name="a", active=False)
    await clockwork.deploy("bob", name="b", active=False)
    with refused(Code.PERMISSION_DENIED):
        await clockwork.switch("alice", True, "a", "b")
    assert clockwork.row("a").state == "inactive"
    with refused(Code.NOT_FOUND, "no trigger c"):
        await clockwork.switch("alice", True, "a", "c")
    assert clockwork.row("a").state == "inactive"
    await clockwork.switch("alice", True, "a")
    assert clockwork.row("a").state == "active"


async def test_what_an_app_activated_keeps_the_limits_of_the_app(clockwork: Clockwork) -> None:
    """The chain names the app, and its limits as they are later hold too."""
    from tests.identity_world import app_socket

    from tower.control.ceilings import Limits

    world = clockwork.rpc.world
    socket = app_socket()
    alice = await world.who(bearer=await world.key("k", "alice"))
    token = await world.grants.exchange(alice, socket.id)
    through = await world.who(bearer=token, workload=socket)
    assert [actor.kind for actor in through.actors] == [ActorKind.APP]
    await clockwork.deploy("alice", active=False)
    await clockwork.rpc.schedules.set_active(through, [clockwork.row().key], True, request_id="q")
    await clockwork.pass_until(3, 2, 9)
    (run,) = clockwork.runs()
    assert run.actors.startswith('["app:flytesnacks/development/hook","schedule:')
    assert (run.executed_by, run.via_app) == ("alice", "flytesnacks/development/hook")
    limits = Limits(actions=frozenset({"task:view"}))
    await world.governance.ceilings.set(MACHINE, "flytesnacks", "development", "hook", limits)
    await clockwork.pass_until(3, 3, 9)
    assert len(clockwork.runs()) == 1
    assert clockwork.row().state == "suspended"


async def test_inputs_that_were_uploaded(clockwork: Clockwork) -> None:
    from flyteidl2.dataproxy import dataproxy_service_pb2 as data

    alice = clockwork.people["alice"]
    await clockwork.deploy("alice")
    kept = await alice.data.upload_inputs(
        data.UploadInputsRequest(project_id=project_id(), trigger_name=name_of(), inputs=named({"x": 9})),
        headers=alice.headers,
    )
    request = service.DeployTriggerRequest(name=name_of("uploaded"), automation_spec=cron())
    request.spec.offloaded_input_data.CopyFrom(kept.offloaded_input_data)
    request.spec.active = True
    await alice.triggers.deploy_trigger(request, headers=alice.headers)
    await clockwork.pass_until(3, 2, 9)
    given = [(await clockwork.given(run))["x"].integer for run in clockwork.runs()]
    assert sorted(given) == [1, 9]
