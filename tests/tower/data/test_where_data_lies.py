"""The URIs of inputs and outputs name what is there."""

from __future__ import annotations

from flyteidl2.task import common_pb2
from flyteidl2.workflow import run_service_pb2
from tests.rpc_world import RpcWorld, action_id, literal

from tower.states import Phase


async def test_the_uris_of_inputs_and_outputs_lead_to_them(rpc: RpcWorld) -> None:
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
    await rpc.blobs.put(f"{place}/outputs.pb", outputs.SerializeToString())
    await rpc.move(name, Phase.SUCCEEDED, outputs_uri=f"tower://{place}")
    over = await alice.runs.get_action_data_u_r_is(request, headers=alice.headers)
    assert (over.inputs_uri, over.outputs_uri) == (running.inputs_uri, f"tower://{place}")
    written = await rpc.blobs.get(f"{place}/outputs.pb", limit=10_000)
    assert common_pb2.Outputs.FromString(written) == outputs
