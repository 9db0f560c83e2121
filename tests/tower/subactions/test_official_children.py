"""A running task of the official SDK asks for children by files of its own; its refusals end its asking."""

from __future__ import annotations

from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path

import pytest
from connectrpc.code import Code
from flyteidl2.common import identifier_pb2, phase_pb2
from flyteidl2.task import common_pb2
from flyteidl2.workflow import queue_service_pb2, state_service_pb2
from tests.rpc_world import PROJECT, RpcWorld, named
from tests.tower.subactions.test_asking import Family, family_of

from tower.control.follow import Update
from tower.control.traces import Traced
from tower.errors import Exhausted, Fault, Invalid, Unsupported
from tower.rpc import caller
from tower.rpc.caller import Call
from tower.rpc.codes import WIRE
from tower.rpc.subactions import QueueService, StateService
from tower.states import Phase


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    made = tmp_path / ".tower"
    made.mkdir()
    return made


@pytest.fixture
async def family(rpc: RpcWorld, folder: Path) -> AsyncIterator[Family]:
    made = await family_of(rpc)
    made.handovers.open("/".join((*made.key, "1")), folder)
    token = caller.enter(Call(made.principal, "q", ""))
    yield made
    caller.leave(token)


def inputs(folder: Path, action: str = "c1") -> str:
    place = folder / "run" / action
    place.mkdir(parents=True)
    (place / "inputs.pb").write_bytes(named({"x": 4}).SerializeToString())
    return str(place / "inputs.pb")


def request(family: Family, action: str, uri: str, task: str = "env.main") -> object:
    asked = queue_service_pb2.EnqueueActionRequest(parent_action_name="a0", input_uri=uri)
    asked.action_id.name = action
    run = asked.action_id.run
    run.project, run.domain, run.name = family.key[:3]
    identity = asked.task.id
    identity.project, identity.domain, identity.name = PROJECT, family.key.domain, task
    return asked


async def test_inputs_come_from_the_file_and_outputs_go_to_one(
    family: Family, folder: Path, rpc: RpcWorld
) -> None:
    await QueueService(family.subactions).enqueue_action(request(family, "c1", inputs(folder)), None)
    key = family.key._replace(action="c1")
    row = family.row(key)
    assert (row.executed_by, row.parent) == ("alice", "a0")
    done = common_pb2.Outputs()
    done.literals.add(name="o0").value.scalar.primitive.integer = 8
    await rpc.blobs.put("outputs/here/outputs.pb", done.SerializeToString())
    ended = replace(row, outputs_uri="tower://outputs/here")
    uri = await family.subactions.hand_over(family.principal, ended)
    assert common_pb2.Outputs.FromString((Path(uri) / "outputs.pb").read_bytes()) == done


async def test_a_file_elsewhere_is_refused(family: Family, folder: Path, tmp_path: Path) -> None:
    other = inputs(tmp_path / "elsewhere")
    with pytest.raises(Invalid):
        await QueueService(family.subactions).enqueue_action(request(family, "c1", other), None)


async def test_what_the_client_would_ask_for_ever_is_final(
    family: Family, folder: Path, rpc: RpcWorld
) -> None:
    """Of the codes of the protocol it takes INVALID_ARGUMENT and NOT_FOUND for an answer."""
    service = QueueService(family.subactions)
    family.subactions._settings = replace(rpc.world.settings, max_children=0)
    with pytest.raises(Fault, match="at most 0") as caught:
        await service.enqueue_action(request(family, "c1", inputs(folder)), None)
    assert WIRE[caught.value.code] is Code.INVALID_ARGUMENT
    # our own client is told what it is
    family.handovers.close("/".join((*family.key, "1")))
    with pytest.raises(Exhausted):
        await family.enqueue(family.ask())


async def test_a_step_of_its_own_is_told_back(family: Family, folder: Path) -> None:
    stream = StateService(family.subactions).watch(
        state_service_pb2.WatchRequest(
            parent_action_id=identifier_pb2.ActionIdentifier(
                run=identifier_pb2.RunIdentifier(
                    project=family.key.project, domain=family.key.domain, name=family.key.run
                ),
                name="a0",
            )
        ),
        None,
    )
    assert (await anext(stream)).control_message.sentinel
    asked = request(family, "t1", "")
    asked.ClearField("task")  # type: ignore[attr-defined]
    asked.trace.name = "step"  # type: ignore[attr-defined]
    asked.trace.phase = phase_pb2.ACTION_PHASE_SUCCEEDED  # type: ignore[attr-defined]
    asked.trace.outputs.output_uri = "/outputs/o.pb"  # type: ignore[attr-defined]
    await QueueService(family.subactions).enqueue_action(asked, None)
    update = (await anext(stream)).action_update
    assert (update.action_id.name, update.action_id.run.name) == ("t1", family.key.run)
    assert (update.phase, update.output_uri) == (phase_pb2.ACTION_PHASE_SUCCEEDED, "/outputs/o.pb")
    await stream.aclose()  # type: ignore[attr-defined]
    again = family.subactions.follow(family.principal, family.key, request_id="q")
    seen = [await anext(again), await anext(again)]
    assert [type(each) for each in seen if each is not None] == [Traced]
    assert Update not in map(type, seen)
    await again.aclose()


async def test_steps_are_for_official_tasks_and_their_own_run(family: Family) -> None:
    step = Traced("t1", Phase.SUCCEEDED, "")
    stranger = family.key._replace(run="r-of-somebody")
    with pytest.raises(Fault):
        await family.subactions.trace(family.principal, stranger, "", step=step)
    family.handovers.close("/".join((*family.key, "1")))
    with pytest.raises(Unsupported):
        await family.subactions.trace(family.principal, family.key._replace(action="t1"), "a0", step=step)
