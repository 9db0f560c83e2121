"""A role for one task alone is one for its runs: seen, listed, counted and stopped; no other run is there."""

from __future__ import annotations

from typing import Any

import pytest
from connectrpc.code import Code
from connectrpc.errors import ConnectError
from flyteidl2.common.list_pb2 import Filter
from flyteidl2.workflow import run_service_pb2
from tests.rpc_world import DOMAIN, PROJECT, Caller, RpcWorld, listing, project_id, refused, run_id

from tower.identity.authenticators import MACHINE
from tower.policy.actions import Action, Resource, ResourceType
from tower.states import Phase


@pytest.fixture
async def alice(rpc: RpcWorld) -> Caller:
    """Who deploys two tasks in the project and runs both of them."""
    made = rpc.caller(await rpc.world.person("alice", "contributor"))
    await rpc.deploy(made, "env.mine")
    await rpc.deploy(made, "env.other")
    return made


async def for_task(rpc: RpcWorld, name: str, role: str, task: str = "env.mine", **place: str) -> Caller:
    """A person with a role for one task and nothing else."""
    key = await rpc.world.person(name)
    where = {"project": PROJECT, "domain": DOMAIN, **place}
    await rpc.world.identities.add_binding(MACHINE, subject=name, role=role, kind="task", name=task, **where)
    return rpc.caller(key)


async def listed(caller: Caller, **asked: Any) -> list[str]:
    """The names of all runs that the caller's list has, page by page."""
    names: list[str] = []
    token = ""
    while True:
        request = run_service_pb2.ListRunsRequest(
            request=listing(limit=2, token=token, **asked), project_id=project_id()
        )
        answer = await caller.runs.list_runs(request, headers=caller.headers)
        assert len(answer.runs) == 2 or not answer.token
        names += [run.action.id.run.name for run in answer.runs]
        token = answer.token
        if not token:
            return names


async def details(caller: Caller, name: str) -> Any:
    request = run_service_pb2.GetRunDetailsRequest(run_id=run_id(name))
    return (await caller.runs.get_run_details(request, headers=caller.headers)).details


async def runs_of_both(rpc: RpcWorld, alice: Caller) -> tuple[list[str], list[str]]:
    """Five runs of the one task among five of the other."""
    mine, other = [], []
    for number in range(5):
        for task, names in (("env.mine", mine), ("env.other", other)):
            made = await rpc.run(alice, name=task, x=number)
            names.append(made.action.id.run.name)
            rpc.world.clock.time += 1
    return mine, other


async def test_the_list_has_the_runs_of_the_task_and_no_others(rpc: RpcWorld, alice: Caller) -> None:
    mine, other = await runs_of_both(rpc, alice)
    erin = await for_task(rpc, "erin", "viewer")
    assert await listed(erin) == mine[::-1]  # pages of two, full but for the last: filtered before counted
    assert sorted(await listed(alice)) == sorted(mine + other)
    assert await listed(erin, filters=[(Filter.EQUAL, "name", other[0])]) == []
    assert await listed(erin, filters=[(Filter.EQUAL, "task_name", "env.other")]) == []
    assert await listed(erin, filters=[(Filter.EQUAL, "name", mine[0])]) == [mine[0]]


async def test_its_runs_are_there_with_their_data_and_others_are_not(rpc: RpcWorld, alice: Caller) -> None:
    mine, other = await runs_of_both(rpc, alice)
    erin = await for_task(rpc, "erin", "viewer")
    assert (await details(erin, mine[0])).action.id.run.name == mine[0]
    data = run_service_pb2.GetActionDataRequest()
    data.action_id.run.CopyFrom(run_id(mine[0]))
    data.action_id.name = "a0"
    answer = await erin.runs.get_action_data(data, headers=erin.headers)
    assert [each.name for each in answer.inputs.literals] == ["x", "y"]
    texts = []
    for name in (other[0], "r" + "0" * 19):
        with pytest.raises(ConnectError) as caught:
            await details(erin, name)
        assert caught.value.code is Code.NOT_FOUND
        texts.append(caught.value.message.replace(name, "NAME"))
    assert texts[0] == texts[1]


async def test_a_viewer_stops_nothing_and_a_contributor_of_the_task_its_runs_alone(
    rpc: RpcWorld, alice: Caller
) -> None:
    mine, other = await runs_of_both(rpc, alice)
    erin, frank = await for_task(rpc, "erin", "viewer"), await for_task(rpc, "frank", "contributor")

    async def abort(caller: Caller, name: str) -> None:
        request = run_service_pb2.AbortRunRequest(run_id=run_id(name), reason="enough")
        await caller.runs.abort_run(request, headers=caller.headers)

    with refused(Code.PERMISSION_DENIED):
        await abort(erin, mine[0])
    with refused(Code.NOT_FOUND):
        await abort(frank, other[0])
    await abort(frank, mine[0])
    assert (await details(frank, mine[0])).action.status.phase == int(Phase.ABORTED)
    # whom the task is given to may run it, see that run and stop it
    made = await rpc.run(frank, name="env.mine")
    await abort(frank, made.action.id.run.name)


@pytest.mark.parametrize(
    ("place", "sees"),
    [
        ({"domain": "*"}, True),
        ({"project": "*", "domain": "*"}, True),
        ({"domain": "production"}, False),
        ({"project": "elsewhere"}, False),
    ],
)
async def test_where_the_role_holds_decides(
    rpc: RpcWorld, alice: Caller, place: dict[str, str], sees: bool
) -> None:
    mine, _ = await runs_of_both(rpc, alice)
    if "elsewhere" in place.values():
        await rpc.projects.create(MACHINE, "elsewhere", description="", request_id="p")
    erin = await for_task(rpc, "erin", "viewer", **place)
    assert bool(await listed(erin)) is sees
    if not sees:
        with refused(Code.NOT_FOUND):
            await details(erin, mine[0])


async def test_the_role_ends_and_so_do_the_runs(rpc: RpcWorld, alice: Caller) -> None:
    mine, _ = await runs_of_both(rpc, alice)
    erin = await for_task(rpc, "erin", "viewer")
    assert len(await listed(erin)) == 5
    place = {"project": PROJECT, "domain": DOMAIN, "kind": "task", "name": "env.mine"}
    await rpc.world.identities.remove_binding(MACHINE, subject="erin", role="viewer", **place)
    assert await listed(erin) == []
    with refused(Code.NOT_FOUND):
        await details(erin, mine[0])


async def test_a_run_in_another_place_than_its_task_is_not_of_that_place(
    rpc: RpcWorld, alice: Caller
) -> None:
    """A run of the task that was asked for in another place is seen by the people of that place."""
    erin = await rpc.world.who(bearer=(await for_task(rpc, "erin", "viewer")).headers["authorization"][7:])
    here = Resource(ResourceType.RUN, PROJECT, DOMAIN, "r1", task="env.mine")
    there = Resource(ResourceType.RUN, PROJECT, "production", "r1")
    assert (await rpc.world.access.check(erin, Action.RUN_VIEW, here)).allowed
    assert not (await rpc.world.access.check(erin, Action.RUN_VIEW, there)).allowed
