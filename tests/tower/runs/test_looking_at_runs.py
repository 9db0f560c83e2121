"""Details, lists, watches, logs and aborts of runs."""

from __future__ import annotations

import asyncio
import json

import pytest
from connectrpc.code import Code
from connectrpc.errors import ConnectError
from flyteidl2.common import list_pb2, phase_pb2
from flyteidl2.dataproxy import dataproxy_service_pb2
from flyteidl2.workflow import run_definition_pb2, run_service_pb2
from tests.rpc_world import Caller, RpcWorld, action_id, create_run, listing, project_id, refused, run_id

from tower.states import Phase

F = list_pb2.Filter.Function
INJECTIONS = [
    "' OR '1'='1",
    "x'; DROP TABLE actions; --",
    '") OR 1=1 --',
    "%",
    "_",
    "\\",
    "x\x00y",
    "1 UNION SELECT * FROM api_keys",
    '$."a"\') OR 1=1 --',
    "𐍈" * 100,
]


async def _list(caller: Caller, **request: object) -> tuple[list[str], str]:
    answer = await caller.runs.list_runs(
        run_service_pb2.ListRunsRequest(project_id=project_id(), request=listing(**request)),
        headers=caller.headers,
    )
    return [run.action.id.run.name for run in answer.runs], answer.token


async def test_details_of_a_run(rpc: RpcWorld) -> None:
    alice = rpc.caller(await rpc.world.person("alice", "contributor"))
    spec = await rpc.deploy(alice)
    run = await rpc.run(alice)
    name = run.action.id.run.name
    details = (
        await alice.runs.get_run_details(
            run_service_pb2.GetRunDetailsRequest(run_id=run_id(name)), headers=alice.headers
        )
    ).details
    assert details.action.task.task_template.interface == spec.task_template.interface
    assert details.action.status.attempts == len(details.action.attempts) == 1
    assert not details.action.attempts[0].logs_available
    assert details.action.status.HasField("start_time")

    await rpc.move(name, Phase.FAILED, error=json.dumps({"message": "boom", "code": "E", "kind": "user"}))
    action = (
        await alice.runs.get_action_details(
            run_service_pb2.GetActionDetailsRequest(action_id=action_id(name)), headers=alice.headers
        )
    ).details
    assert action.status.phase == phase_pb2.ACTION_PHASE_FAILED
    assert (action.error_info.message, action.error_info.code) == ("boom", "E")
    assert action.error_info.kind == run_definition_pb2.ErrorInfo.KIND_USER
    assert action.attempts[0].logs_available
    assert action.status.HasField("end_time")


async def test_a_watch_tells_each_change_and_ends_with_the_run(rpc: RpcWorld) -> None:
    alice = rpc.caller(await rpc.world.person("alice", "contributor"))
    await rpc.deploy(alice)
    run = await rpc.run(alice)
    name = run.action.id.run.name
    request = run_service_pb2.WatchActionDetailsRequest(action_id=run.action.id)
    async with asyncio.timeout(60):
        stream = alice.runs.watch_action_details(request, headers=alice.headers)
        phases = [(await anext(stream)).details.status.phase]
        await rpc.move(name, Phase.RUNNING)
        phases.append((await anext(stream)).details.status.phase)
        await rpc.move(name, Phase.SUCCEEDED)
        phases += [message.details.status.phase async for message in stream]
        assert phases == [1, 4, 5]
        again = alice.runs.watch_action_details(request, headers=alice.headers)
        assert [message.details.status.phase async for message in again] == [5]
        whole = alice.runs.watch_run_details(
            run_service_pb2.WatchRunDetailsRequest(run_id=run_id(name)), headers=alice.headers
        )
        assert [message.details.action.status.phase async for message in whole] == [5]
        actions = alice.runs.watch_actions(
            run_service_pb2.WatchActionsRequest(run_id=run_id(name)), headers=alice.headers
        )
        assert [len(message.enriched_actions) async for message in actions] == [1]


async def test_a_watched_domain_tells_of_new_runs(rpc: RpcWorld) -> None:
    alice = rpc.caller(await rpc.world.person("alice", "contributor"))
    await rpc.deploy(alice)
    await rpc.run(alice, x=1)
    async with asyncio.timeout(60):
        stream = alice.runs.watch_runs(
            run_service_pb2.WatchRunsRequest(project_id=project_id()), headers=alice.headers
        )
        assert len((await anext(stream)).runs) == 1
        run = await rpc.run(alice, x=2)
        (fresh,) = (await anext(stream)).runs
        assert fresh.action.id == run.action.id
        await stream.aclose()


async def test_a_watch_of_a_hidden_run_is_not_found(rpc: RpcWorld) -> None:
    alice = rpc.caller(await rpc.world.person("alice", "contributor"))
    dave = rpc.caller(await rpc.world.person("dave"))
    await rpc.deploy(alice)
    run = await rpc.run(alice)
    with refused(Code.NOT_FOUND):
        async for _ in dave.runs.watch_action_details(
            run_service_pb2.WatchActionDetailsRequest(action_id=run.action.id), headers=dave.headers
        ):
            pass


async def test_logs_follow_and_end_with_the_attempt(rpc: RpcWorld) -> None:
    alice = rpc.caller(await rpc.world.person("alice", "contributor"))
    await rpc.deploy(alice)
    run = await rpc.run(alice)
    name = run.action.id.run.name
    request = dataproxy_service_pb2.TailLogsRequest(action_id=run.action.id, attempt=1)

    async def tail() -> list[str]:
        found = []
        async for message in alice.data.tail_logs(request, headers=alice.headers):
            found += [line.message for logs in message.logs for line in logs.lines]
        return found

    async with asyncio.timeout(60):
        tailing = asyncio.create_task(tail())
        rpc.write_log(name, "one\n")
        await rpc.move(name, Phase.RUNNING)
        rpc.write_log(name, "two\n", "three\n")
        await rpc.move(name, Phase.SUCCEEDED)
        assert await tailing == ["one\n", "two\n", "three\n"]
        assert await tail() == ["one\n", "two\n", "three\n"]
    with refused(Code.NOT_FOUND):
        late = dataproxy_service_pb2.TailLogsRequest(action_id=run.action.id, attempt=7)
        async for _ in alice.data.tail_logs(late, headers=alice.headers):
            pass


async def test_a_mark_stands_behind_what_was_written_already(rpc: RpcWorld) -> None:
    alice = rpc.caller(await rpc.world.person("alice", "contributor"))
    await rpc.deploy(alice)
    run = await rpc.run(alice)
    name = run.action.id.run.name
    await rpc.move(name, Phase.RUNNING)
    rpc.write_log(name, "one\n")
    request = dataproxy_service_pb2.TailLogsRequest(action_id=run.action.id, attempt=1)
    stream = alice.data.tail_logs(request, headers=alice.headers)
    async with asyncio.timeout(60):
        assert [line.message for line in (await anext(stream)).logs[0].lines] == ["one\n"]
        assert await anext(stream) == dataproxy_service_pb2.TailLogsResponse()
        rpc.write_log(name, "two\n")
        assert [line.message for line in (await anext(stream)).logs[0].lines] == ["two\n"]
        await rpc.move(name, Phase.SUCCEEDED)
        assert [message async for message in stream] == [], "one mark, and none where it has ended"


async def test_lists_page_sort_and_filter(rpc: RpcWorld) -> None:
    alice = rpc.caller(await rpc.world.person("alice", "contributor"))
    bob = rpc.caller(await rpc.world.person("bob", "contributor"))
    await rpc.deploy(alice)
    names = []
    for number in range(7):
        caller = bob if number % 2 else alice
        request = create_run(inputs={"x": number})
        request.run_spec.labels.values["parity"] = "odd" if number % 2 else "even"
        names.append((await caller.runs.create_run(request, headers=caller.headers)).run.action.id.run.name)
        rpc.world.clock.time += 1
    await rpc.move(names[0], Phase.SUCCEEDED)

    seen: list[str] = []
    token = ""
    for _ in range(4):
        page, token = await _list(alice, limit=3, token=token, sort=("created_at", list_pb2.Sort.ASCENDING))
        seen += page
        if not token:
            break
    assert seen == names
    assert (await _list(alice))[0] == names[::-1]
    assert (await _list(alice, limit=7))[1] == ""
    assert (await _list(alice, filters=[(F.EQUAL, "created_by", "bob")]))[0] == names[1::2][::-1]
    assert (await _list(alice, filters=[(F.EQUAL, "phase", "5")]))[0] == names[:1]
    assert (await _list(alice, filters=[(F.VALUE_IN, "phase", "SUCCEEDED", "1")]))[0] == names[::-1]
    assert (await _list(alice, filters=[(F.EQUAL, "labels.parity", "odd")]))[0] == names[1::2][::-1]
    assert (await _list(alice, filters=[(F.EXISTS, "labels.parity")]))[0] == names[::-1]
    assert (await _list(alice, filters=[(F.EXISTS, "labels.none")]))[0] == []
    assert (await _list(alice, filters=[(F.EQUAL, "task_name", "env.main")]))[0] == names[::-1]
    assert (await _list(alice, filters=[(F.CONTAINS, "task_name", "ENV")]))[0] == []
    at = "2027-01-15T08:00:03+00:00"  # the fourth run
    assert (await _list(alice, filters=[(F.GREATER_THAN_OR_EQUAL, "created_at", at)]))[0] == names[3:][::-1]
    assert (await _list(alice, filters=[(F.LESS_THAN, "created_at", at)]))[0] == names[:3][::-1]
    actions = await alice.runs.list_actions(
        run_service_pb2.ListActionsRequest(run_id=run_id(names[0])), headers=alice.headers
    )
    assert [action.id.name for action in actions.actions] == ["a0"]


async def test_lists_hold_only_what_the_caller_may_view(rpc: RpcWorld) -> None:
    alice = rpc.caller(await rpc.world.person("alice", "contributor"))
    erin = rpc.caller(await rpc.world.person("erin", "viewer", "flytesnacks", "staging"))
    await rpc.deploy(alice)
    await rpc.run(alice)
    assert (await _list(erin))[0] == []
    request = create_run(inputs={"x": 1})
    request.project_id.domain = "staging"
    run = (await alice.runs.create_run(request, headers=alice.headers)).run
    everything = run_service_pb2.ListRunsRequest(org="any", request=listing())
    answer = await erin.runs.list_runs(everything, headers=erin.headers)
    assert [each.action.id for each in answer.runs] == [run.action.id]
    assert len((await alice.runs.list_runs(everything, headers=alice.headers)).runs) == 2


@pytest.mark.parametrize("text", INJECTIONS)
async def test_nothing_that_a_caller_writes_becomes_sql(rpc: RpcWorld, text: str) -> None:
    alice = rpc.caller(await rpc.world.person("alice", "contributor"))
    await rpc.deploy(alice)
    run = await rpc.run(alice)
    name = run.action.id.run.name
    refusals = set()
    for field in ("name", "phase", "task_name", "task_version", "created_by", "created_at", "labels.a", text):
        for function in (F.EQUAL, F.CONTAINS, F.VALUE_IN, F.ENDS_WITH, F.CONTAINS_CASE_INSENSITIVE):
            found: list[str] = []
            try:
                found, _ = await _list(alice, filters=[(function, field, text)])
            except ConnectError as error:
                refusals.add(error.code)
            assert found == [], (field, function)
    assert refusals == {Code.INVALID_ARGUMENT}
    with refused(Code.INVALID_ARGUMENT):
        await _list(alice, filters=[(F.EQUAL, f"labels.{text}", "x")])
    with refused(Code.INVALID_ARGUMENT):
        await _list(alice, sort=(text, list_pb2.Sort.ASCENDING))
    with refused(Code.INVALID_ARGUMENT):
        await _list(alice, token=text)
    assert (await _list(alice))[0] == [name]


async def test_a_token_of_another_list_is_refused(rpc: RpcWorld) -> None:
    alice = rpc.caller(await rpc.world.person("alice", "contributor"))
    await rpc.deploy(alice)
    for _ in range(3):
        await rpc.run(alice)
    _, token = await _list(alice, limit=1)
    with refused(Code.INVALID_ARGUMENT, "token"):
        await _list(alice, limit=1, token=token, sort=("name", list_pb2.Sort.ASCENDING))


async def test_abort_ends_a_run_once_and_says_who(rpc: RpcWorld) -> None:
    alice = rpc.caller(await rpc.world.person("alice", "contributor"))
    bob = rpc.caller(await rpc.world.person("bob", "contributor"))
    carol = rpc.caller(await rpc.world.person("carol", "viewer"))
    dave = rpc.caller(await rpc.world.person("dave"))
    await rpc.deploy(alice)
    run = await rpc.run(alice)
    request = run_service_pb2.AbortRunRequest(run_id=run.action.id.run, reason="enough")
    with refused(Code.NOT_FOUND):
        await dave.runs.abort_run(request, headers=dave.headers)
    with refused(Code.PERMISSION_DENIED):
        await carol.runs.abort_run(request, headers=carol.headers)
    watch = alice.runs.watch_action_details(
        run_service_pb2.WatchActionDetailsRequest(action_id=run.action.id), headers=alice.headers
    )
    await anext(watch)
    await bob.runs.abort_run(request, headers=bob.headers)
    await bob.runs.abort_run(request, headers=bob.headers)
    details = (await anext(watch)).details
    assert details.status.phase == phase_pb2.ACTION_PHASE_ABORTED
    assert details.abort_info.reason == "enough"
    assert details.abort_info.aborted_by.user.id.subject == "bob"
    assert len(await rpc.world.records(event="run.abort")) == 1
    with refused(Code.NOT_FOUND):
        missing = run_service_pb2.AbortRunRequest(run_id=run_id("rnone"))
        await alice.runs.abort_run(missing, headers=alice.headers)


async def test_abort_of_a_finished_run_changes_nothing(rpc: RpcWorld) -> None:
    alice = rpc.caller(await rpc.world.person("alice", "contributor"))
    await rpc.deploy(alice)
    run = await rpc.run(alice)
    await rpc.move(run.action.id.run.name, Phase.SUCCEEDED)
    await alice.runs.abort_action(
        run_service_pb2.AbortActionRequest(action_id=run.action.id, reason="late"), headers=alice.headers
    )
    details = await alice.runs.get_action_details(
        run_service_pb2.GetActionDetailsRequest(action_id=run.action.id), headers=alice.headers
    )
    assert details.details.status.phase == phase_pb2.ACTION_PHASE_SUCCEEDED
    assert not details.details.HasField("abort_info")
