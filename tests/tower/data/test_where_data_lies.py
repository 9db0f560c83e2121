"""The URIs of inputs and outputs name what is there, also where the content stayed in the row."""

from __future__ import annotations

from connectrpc.code import Code
from flyteidl2.task import common_pb2
from flyteidl2.workflow import run_service_pb2
from tests.rpc_world import RpcWorld, action_id, literal, refused

from tower.states import Phase


async def test_small_inputs_and_outputs_become_blobs_when_their_uris_are_asked(rpc: RpcWorld) -> None:
    alice = rpc.caller(await rpc.world.person("alice", "contributor"))
    await rpc.deploy(alice)
    name = (await rpc.run(alice, x=1, y="hello")).action.id.run.name
    request = run_service_pb2.GetActionDataURIsRequest(action_id=action_id(name))

    running = await alice.runs.get_action_data_u_r_is(request, headers=alice.headers)
    assert running.outputs_uri == ""
    stored = await rpc.blobs.get(f"{running.inputs_uri.removeprefix('tower://')}/inputs.pb", limit=10_000)
    inputs = common_pb2.Inputs.FromString(stored)
    assert [(each.name, each.value) for each in inputs.literals] == [
        ("x", literal(1)),
        ("y", literal("hello")),
    ]

    outputs = common_pb2.Outputs()
    outputs.literals.add(name="o0").value.CopyFrom(literal(8))
    place = f"outputs/flytesnacks/development/{name}/a0/1"
    await rpc.move(name, Phase.SUCCEEDED, outputs_uri=f"tower://{place}", outputs=outputs.SerializeToString())
    assert not await rpc.blobs.exists(f"{place}/outputs.pb")
    for _ in range(2):
        over = await alice.runs.get_action_data_u_r_is(request, headers=alice.headers)
        assert (over.inputs_uri, over.outputs_uri) == (running.inputs_uri, f"tower://{place}")
    written = await rpc.blobs.get(f"{place}/outputs.pb", limit=10_000)
    assert common_pb2.Outputs.FromString(written) == outputs


async def test_who_may_not_view_a_run_writes_nothing(rpc: RpcWorld) -> None:
    alice = rpc.caller(await rpc.world.person("alice", "contributor"))
    stranger = rpc.caller(await rpc.world.person("stranger"))
    await rpc.deploy(alice)
    name = (await rpc.run(alice, x=1, y="hello")).action.id.run.name
    request = run_service_pb2.GetActionDataURIsRequest(action_id=action_id(name))
    with refused(Code.NOT_FOUND):
        await stranger.runs.get_action_data_u_r_is(request, headers=stranger.headers)
    assert not list((rpc.blobs.path("inputs/flytesnacks")).rglob("inputs.pb"))
