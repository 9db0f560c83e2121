"""Asking for runs: who, what, once."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from connectrpc.code import Code
from flyteidl2.common import phase_pb2
from flyteidl2.workflow import run_service_pb2
from sqlalchemy import select
from tests.rpc_world import DOMAIN, PROJECT, RpcWorld, action_id, create_run, refused, run_id, task_spec

from tower.identity.authenticators import MACHINE
from tower.store.schema import actions


async def test_a_run_is_queued_for_the_caller_and_recorded(rpc: RpcWorld) -> None:
    alice = rpc.caller(await rpc.world.person("alice", "contributor"))
    await rpc.deploy(alice)
    run = await rpc.run(alice, x=42)

    assert run.action.id.name == "a0"
    assert run.action.id.run.name.startswith("r")
    assert run.action.status.phase == phase_pb2.ACTION_PHASE_QUEUED
    assert run.action.metadata.executed_by.user.id.subject == "alice"
    assert run.labels["tower/credential-kind"] == "api_key"
    (record,) = await rpc.world.records(event="run.create")
    assert (record.subject, record.outcome) == ("alice", "allowed")
    assert record.credential_id == run.labels["tower/credential-id"]
    assert run.action.id.run.name in record.detail


async def test_what_runs_share_is_not_shared_any_longer_than_the_decision(rpc: RpcWorld) -> None:
    alice = rpc.caller(await rpc.world.person("alice", "contributor"))
    bob = rpc.caller(await rpc.world.person("bob", "contributor"))
    await rpc.deploy(bob, version="v1")
    usual = [await rpc.run(alice, x=number) for number in range(3)]
    spec = create_run(inputs={"x": 4})
    spec.run_spec.labels.values["team"] = "blue"
    labelled = (await alice.runs.create_run(spec, headers=alice.headers)).run
    await rpc.deploy(bob, version="v2")
    newer = await rpc.run(alice, x=5)
    # from here on it is a privileged person who runs bob's code
    await rpc.world.identities.add_binding(MACHINE, subject="alice", role="admin")
    later = await rpc.run(alice, x=6)

    def rows(tx: Any) -> dict[str, Any]:
        return {row.run: row for row in tx.execute(select(actions))}

    found = await rpc.world.db.read(rows)
    kept = [found[run.action.id.run.name] for run in (*usual, labelled, newer, later)]
    assert [row.task_version for row in kept] == ["v1"] * 4 + ["v2"] * 2
    assert len({row.inputs_hash for row in kept}) == len({row.request_id for row in kept}) == 6
    assert [row.labels for row in kept] == ["{}"] * 3 + ['{"team": "blue"}'] + ["{}"] * 2
    assert [row.warning for row in kept] == [""] * 5 + ["foreign-code"]


async def test_two_people_make_two_runs_with_two_identities(rpc: RpcWorld) -> None:
    alice = rpc.caller(await rpc.world.person("alice", "contributor"))
    bob = rpc.caller(await rpc.world.person("bob", "contributor"))
    await rpc.deploy(alice)
    runs = await asyncio.gather(*(rpc.run(caller, x=n) for n in range(20) for caller in (alice, bob)))
    subjects = [run.action.metadata.executed_by.user.id.subject for run in runs]
    assert subjects == ["alice", "bob"] * 20
    assert len({run.action.id.run.name for run in runs}) == 40


async def test_a_service_identity_is_an_application(rpc: RpcWorld) -> None:
    from tower.identity.principal import Kind

    bot = rpc.caller(await rpc.world.person("bot", "contributor", kind=Kind.SERVICE))
    await rpc.deploy(bot)
    run = await rpc.run(bot)
    assert run.action.metadata.executed_by.application.id.subject == "bot"


async def test_the_same_request_twice_is_one_run(rpc: RpcWorld) -> None:
    key = await rpc.world.person("alice", "contributor")
    alice = rpc.caller(key, x_request_id="call-1")
    await rpc.deploy(rpc.caller(key))
    answers = await asyncio.gather(*(rpc.run(alice, x=1) for _ in range(8)))
    assert len({run.action.id.run.name for run in answers}) == 1
    assert len(await rpc.world.records(event="run.create")) == 1

    with refused(Code.ALREADY_EXISTS, "x-request-id"):
        await rpc.run(alice, x=2)


async def test_a_repeat_after_a_deployment_is_still_the_same_run(rpc: RpcWorld) -> None:
    key = await rpc.world.person("alice", "contributor")
    alice = rpc.caller(key, x_request_id="call-1")
    await rpc.deploy(rpc.caller(key), version="v1", default="one")
    first = await rpc.run(alice, x=1)
    await rpc.deploy(rpc.caller(key), version="v2", default="two")
    again = await rpc.run(alice, x=1)
    assert again.action.id == first.action.id


async def test_another_caller_with_the_same_request_id_has_a_run_of_their_own(rpc: RpcWorld) -> None:
    alice = rpc.caller(await rpc.world.person("alice", "contributor"), x_request_id="call-1")
    bob = rpc.caller(await rpc.world.person("bob", "contributor"), x_request_id="call-1")
    await rpc.deploy(alice)
    one, two = await rpc.run(alice), await rpc.run(bob)
    assert one.action.id != two.action.id


async def test_latest_is_the_version_deployed_last(rpc: RpcWorld) -> None:
    alice = rpc.caller(await rpc.world.person("alice", "contributor"))
    for version in ("zz", "aa"):
        await rpc.deploy(alice, version=version, default=version)
    assert (await rpc.run(alice)).action.metadata.task.id.version == "aa"
    assert (await rpc.run(alice, version="zz")).action.metadata.task.id.version == "zz"


@pytest.mark.parametrize(
    ("inputs", "words"),
    [
        ({"x": 1, "zz": 2}, ("no input 'zz'", "x, y")),
        ({}, ("needs the input 'x'",)),
        ({"x": "1"}, ("'x'", "an integer", "a string")),
        ({"x": True}, ("'x'", "an integer", "a boolean")),
        ({"x": None}, ("'x'", "an integer")),
        ({"x": 1, "y": 2}, ("'y'", "a string")),
        ({"x": [1]}, ("'x'",)),
    ],
)
async def test_wrong_inputs_are_refused_by_name_and_make_no_run(
    rpc: RpcWorld, inputs: dict[str, object], words: tuple[str, ...]
) -> None:
    alice = rpc.caller(await rpc.world.person("alice", "contributor"))
    await rpc.deploy(alice)
    with refused(Code.INVALID_ARGUMENT, *words):
        await alice.runs.create_run(create_run(inputs=inputs), headers=alice.headers)
    assert not await rpc.world.records(event="run.create")


async def test_hidden_and_missing_are_the_same_bytes(rpc: RpcWorld) -> None:
    alice = rpc.caller(await rpc.world.person("alice", "contributor"))
    dave = await rpc.world.person("dave")
    await rpc.deploy(alice, name="env.secret")
    await rpc.deploy(alice, name="env.shown")
    run = await rpc.run(alice, name="env.shown")
    bodies = []
    for name in ("env.secret", "env.absent"):
        request = create_run(name=name, inputs={"x": 1}).SerializeToString()
        answer = await rpc.post("workflow.RunService/CreateRun", request, authorization=f"Bearer {dave}")
        bodies.append(answer.content.replace(name.encode(), b"NAME"))
        assert answer.status_code == 404
    assert bodies[0] == bodies[1]

    bodies = []
    for name in (run.action.id.run.name, "rnothere"):
        request = run_service_pb2.GetRunDetailsRequest(run_id=run_id(name)).SerializeToString()
        answer = await rpc.post("workflow.RunService/GetRunDetails", request, authorization=f"Bearer {dave}")
        bodies.append(answer.content.replace(name.encode(), b"NAME"))
        assert answer.status_code == 404
    assert bodies[0] == bodies[1]
    # and a run that is absent for one who may view
    answer = await rpc.post("workflow.RunService/GetRunDetails", request, **alice.headers)
    assert answer.content.replace(b"rnothere", b"NAME") == bodies[0]


async def test_a_viewer_may_not_run_and_the_refusal_is_recorded(rpc: RpcWorld) -> None:
    alice = rpc.caller(await rpc.world.person("alice", "contributor"))
    carol = rpc.caller(await rpc.world.person("carol", "viewer"))
    await rpc.deploy(alice)
    with refused(Code.PERMISSION_DENIED, "task:run"):
        await rpc.run(carol)
    (record,) = await rpc.world.records(event="access.refuse")
    assert (record.subject, record.outcome, record.action) == ("carol", "refused", "task:run")


async def test_right_on_the_task_alone_is_not_right_on_the_place_of_the_run(rpc: RpcWorld) -> None:
    await rpc.world.person("alice", "contributor")
    key = await rpc.world.key("a2", "alice")
    alice = rpc.caller(key)
    await rpc.deploy(alice)
    only = rpc.caller(await rpc.world.person("erin", "contributor", "flytesnacks", "development"))
    request = create_run(inputs={"x": 1})
    request.project_id.domain = "production"
    with refused(Code.NOT_FOUND):
        await only.runs.create_run(request, headers=only.headers)
    await alice.runs.create_run(request, headers=alice.headers)


async def test_owner_parent_and_labels_of_tower_are_never_taken_from_the_message(rpc: RpcWorld) -> None:
    alice = rpc.caller(await rpc.world.person("alice", "contributor"))
    await rpc.deploy(alice)
    request = create_run(inputs={"x": 1})
    request.run_spec.labels.values["team"] = "red"
    request.run_spec.labels.values["tower/via-app"] = "flytesnacks/development/forged"
    request.run_spec.labels.values["tower/credential-id"] = "forged"
    request.run_spec.relation.related_to.name = "forged"
    request.run_spec.related_to.name = "forged"
    run = (await alice.runs.create_run(request, headers=alice.headers)).run
    assert run.labels["team"] == "red"
    assert "tower/via-app" not in run.labels
    assert run.labels["tower/credential-id"] != "forged"
    details = await alice.runs.get_run_details(
        run_service_pb2.GetRunDetailsRequest(run_id=run.action.id.run), headers=alice.headers
    )
    assert not details.details.run_spec.HasField("relation")
    assert not details.details.run_spec.HasField("related_to")
    assert details.details.run_spec.labels.values["tower/credential-kind"] == "api_key"


@pytest.mark.parametrize("name", ["FLYTE_AGENT_SOCKET", "_U_EP_OVERRIDE", "LD_PRELOAD", "a b"])
async def test_reserved_variables_cannot_be_set_by_a_run(rpc: RpcWorld, name: str) -> None:
    alice = rpc.caller(await rpc.world.person("alice", "contributor"))
    await rpc.deploy(alice)
    request = create_run(inputs={"x": 1})
    request.run_spec.envs.values.add(key=name, value="x")
    with refused(Code.INVALID_ARGUMENT, name):
        await alice.runs.create_run(request, headers=alice.headers)


async def test_a_run_asked_for_by_a_task_names_the_run_behind_it(rpc: RpcWorld) -> None:
    key = await rpc.world.person("alice", "contributor")
    await rpc.deploy(rpc.caller(key))
    parent = await rpc.world.running(await rpc.world.who(bearer=key))
    principal = await rpc.world.who(workload=parent)
    from flyteidl2.task import run_pb2
    from tests.rpc_world import named

    from tower.control.launches import Launch

    launched = await rpc.runs.launch(
        principal,
        Launch(
            project="flytesnacks",
            domain="development",
            run_spec=run_pb2.RunSpec(),
            task=("flytesnacks", "development", "env.main"),
            inputs=named({"x": 1}),
        ),
        request_id="q",
    )
    assert launched.row.executed_by == "alice"
    assert launched.row.actors == '["run:flytesnacks/development/r1/a0/1"]'
    assert run_pb2.RunSpec.FromString(launched.row.run_spec).relation.related_to.name == "r1"


async def test_an_uploaded_input_is_as_good_as_an_inline_one(rpc: RpcWorld) -> None:
    from flyteidl2.dataproxy import dataproxy_service_pb2
    from tests.rpc_world import named, project_id, task_id

    alice = rpc.caller(await rpc.world.person("alice", "contributor"))
    await rpc.deploy(alice)
    uploaded = await alice.data.upload_inputs(
        dataproxy_service_pb2.UploadInputsRequest(
            project_id=project_id(), task_id=task_id(version="v1"), inputs=named({"x": 5})
        ),
        headers=alice.headers,
    )
    place = uploaded.offloaded_input_data
    assert place.uri
    assert place.inputs_hash
    request = create_run(inputs={})
    request.ClearField("inputs")
    request.offloaded_input_data.CopyFrom(place)
    run = (await alice.runs.create_run(request, headers=alice.headers)).run
    data = await alice.data.get_action_data(
        dataproxy_service_pb2.GetActionDataRequest(action_id=action_id(run.action.id.run.name)),
        headers=alice.headers,
    )
    assert {each.name for each in data.inputs.literals} == {"x", "y"}

    for uri in (
        place.uri.replace("development", "staging"),
        "file:///etc/passwd",
        "tower://bundles/x",
        place.uri + "/../x",
        place.uri[:-4] + "0000",
    ):
        request.offloaded_input_data.uri = uri
        with refused(Code.INVALID_ARGUMENT):
            await alice.runs.create_run(request, headers=alice.headers)


async def test_one_caller_cannot_fill_the_queue(rpc: RpcWorld) -> None:
    alice = rpc.caller(await rpc.world.person("alice", "contributor"))
    bob = rpc.caller(await rpc.world.person("bob", "contributor"))
    await rpc.deploy(alice)
    rpc.runs.quota._limit = 3
    runs = [await rpc.run(alice) for _ in range(3)]
    with refused(Code.RESOURCE_EXHAUSTED, "3 runs"):
        await rpc.run(alice)
    await rpc.run(bob)
    from tower.states import Phase

    await rpc.move(runs[0].action.id.run.name, Phase.SUCCEEDED)
    rpc.world.clock.time += 2
    await rpc.run(alice)


async def test_the_operator_of_the_machine_runs_nothing(rpc: RpcWorld) -> None:
    from flyteidl2.task import run_pb2

    from tower.control.launches import Launch
    from tower.errors import Denied
    from tower.identity.authenticators import MACHINE

    with pytest.raises(Denied):
        await rpc.runs.launch(
            MACHINE,
            Launch(project="flytesnacks", domain="development", run_spec=run_pb2.RunSpec()),
            request_id="q",
        )
    [told] = await rpc.world.records(event="access.refuse")
    assert (told.subject, told.action, told.decision) == (MACHINE.subject, "task:run", "no-person")
    assert told.resource == "domain:flytesnacks/development"


async def test_a_named_run_has_its_name_once(rpc: RpcWorld) -> None:
    alice = rpc.caller(await rpc.world.person("alice", "contributor"))
    await rpc.deploy(alice)
    request = create_run(inputs={"x": 1})
    request.run_id.CopyFrom(run_id("my-run"))
    run = (await alice.runs.create_run(request, headers=alice.headers)).run
    assert run.action.id.run.name == "my-run"
    with refused(Code.ALREADY_EXISTS, "my-run"):
        await alice.runs.create_run(request, headers=alice.headers)
    for name in ("My", "x" * 31, "-a", "a/b", "../a"):
        request.run_id.name = name
        with refused(Code.INVALID_ARGUMENT):
            await alice.runs.create_run(request, headers=alice.headers)


async def test_a_specification_sent_along_needs_the_right_to_register(rpc: RpcWorld) -> None:
    alice = rpc.caller(await rpc.world.person("alice", "contributor"))
    carol = rpc.caller(await rpc.world.person("carol", "viewer"))
    request = create_run(inputs={"x": 1})
    request.task_spec.CopyFrom(task_spec())
    request.task_spec.task_template.id.name = "env.local"
    run = (await alice.runs.create_run(request, headers=alice.headers)).run
    details = await alice.runs.get_run_details(
        run_service_pb2.GetRunDetailsRequest(run_id=run.action.id.run), headers=alice.headers
    )
    assert details.details.action.task.task_template.id.name == "env.local"
    with refused(Code.PERMISSION_DENIED):
        await carol.runs.create_run(request, headers=carol.headers)
    request.task_spec.task_template.container.env.add(key="LD_PRELOAD", value="/x")
    with refused(Code.INVALID_ARGUMENT, "LD_PRELOAD"):
        await alice.runs.create_run(request, headers=alice.headers)


async def test_nothing_runs_without_a_task_or_with_a_trigger_that_is_not_there(rpc: RpcWorld) -> None:
    alice = rpc.caller(await rpc.world.person("alice", "contributor"))
    request = create_run(inputs={})
    request.ClearField("task_id")
    with refused(Code.INVALID_ARGUMENT, "no task"):
        await alice.runs.create_run(request, headers=alice.headers)
    request.trigger_name.name, request.trigger_name.task_name = "nightly", "env.main"
    request.trigger_name.project, request.trigger_name.domain = PROJECT, DOMAIN
    with refused(Code.NOT_FOUND, "no trigger nightly of env.main"):
        await alice.runs.create_run(request, headers=alice.headers)


async def test_a_disabled_person_makes_no_more_runs(rpc: RpcWorld) -> None:
    from tower.identity.authenticators import MACHINE

    alice = rpc.caller(await rpc.world.person("alice", "contributor"))
    await rpc.deploy(alice)
    await rpc.run(alice)
    await rpc.world.identities.set_disabled(MACHINE, "alice", disabled=True)
    with refused(Code.UNAUTHENTICATED):
        await rpc.run(alice)


async def test_taking_a_role_away_is_seen_by_the_next_call(rpc: RpcWorld) -> None:
    from tower.identity.authenticators import MACHINE

    alice = rpc.caller(await rpc.world.person("alice", "contributor"))
    await rpc.deploy(alice)
    await rpc.world.identities.remove_binding(
        MACHINE, subject="alice", role="contributor", project="*", domain="*"
    )
    with refused(Code.NOT_FOUND):
        await rpc.run(alice)


async def test_a_limited_key_is_limited(rpc: RpcWorld) -> None:
    alice = rpc.caller(await rpc.world.person("alice", "contributor"))
    await rpc.deploy(alice)
    viewer = rpc.caller(await rpc.world.key("view-only", "alice", role="viewer"))
    with refused(Code.PERMISSION_DENIED):
        await rpc.run(viewer)
    staging = rpc.caller(
        await rpc.world.key("staging-only", "alice", project="flytesnacks", domain="staging")
    )
    with refused(Code.NOT_FOUND):
        await rpc.run(staging)
