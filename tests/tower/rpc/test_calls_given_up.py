"""Who goes away before a call has arrived is on record, and nothing has happened; later it happens anyway."""

from __future__ import annotations

import asyncio
from typing import Any

from flyteidl2.workflow import run_service_pb2
from tests.rpc_world import RpcWorld, create_run

CREATE = "/flyteidl2.workflow.RunService/CreateRun"


async def _begin(rpc: RpcWorld, key: str, *, length: int, body: bytes, kind: str) -> asyncio.StreamWriter:
    """Send the head of a call and some of its body; the connection stays open."""
    port = int(rpc.url.rpartition(":")[2])
    _, writer = await asyncio.open_connection("127.0.0.1", port)
    head = (
        f"POST {CREATE} HTTP/1.1\r\nhost: 127.0.0.1:{port}\r\ncontent-type: {kind}\r\n"
        f"authorization: Bearer {key}\r\nx-request-id: gone-1\r\ncontent-length: {length}\r\n\r\n"
    )
    writer.write(head.encode() + body)
    await writer.drain()
    return writer


async def _recorded(rpc: RpcWorld, **filters: Any) -> Any:
    """The first record that these filters find, as soon as it is there."""
    async with asyncio.timeout(60):
        while not (found := await rpc.world.records(**filters)):
            await asyncio.sleep(0)
    return found[0]


async def test_a_call_whose_client_leaves_in_the_middle_is_cancelled_on_record(rpc: RpcWorld) -> None:
    key = await rpc.world.person("alice", "contributor")
    alice = rpc.caller(key)
    await rpc.deploy(alice)
    body = create_run(inputs={"x": 1}).SerializeToString()
    for kind in ("application/proto", "application/json"):
        before = len(await rpc.world.records(outcome="cancelled"))
        writer = await _begin(rpc, key, length=len(body), body=body[:-3], kind=kind)
        writer.close()
        await writer.wait_closed()
        async with asyncio.timeout(60):
            while len(await rpc.world.records(outcome="cancelled")) == before:
                await asyncio.sleep(0)
                await rpc.world.access.settle(
                    everything=True
                )  # the second is the same call given up once more
        [entry, *_] = await rpc.world.records(event="call.cancel")
        assert (entry.subject, entry.outcome, entry.action) == ("alice", "cancelled", "task:run")
        assert entry.credential_kind == "api_key"
        assert entry.request_id == "gone-1"
        assert CREATE in entry.detail
    assert await rpc.world.records(event="run.create") == []


async def test_a_stranger_who_leaves_leaves_no_record(rpc: RpcWorld) -> None:
    writer = await _begin(rpc, "twr_nobody", length=9, body=b"x", kind="application/proto")
    writer.close()
    await writer.wait_closed()
    assert await rpc.world.records(outcome="cancelled") == []


async def test_a_call_that_has_arrived_is_carried_out_for_nobody(rpc: RpcWorld) -> None:
    """The client hangs up right behind its last byte: the run is there, and recorded as allowed."""
    key = await rpc.world.person("alice", "contributor")
    await rpc.deploy(rpc.caller(key))
    body = create_run(inputs={"x": 1}).SerializeToString()
    writer = await _begin(rpc, key, length=len(body), body=body, kind="application/proto")
    writer.close()
    await writer.wait_closed()
    entry = await _recorded(rpc, event="run.create")
    assert (entry.outcome, entry.request_id) == ("allowed", "gone-1")
    assert await rpc.world.records(outcome="cancelled") == []


async def test_an_aborted_run_ends_cancelled_with_whose_it_was_and_who_ended_it(rpc: RpcWorld) -> None:
    alice = rpc.caller(await rpc.world.person("alice", "contributor"))
    bob = rpc.caller(await rpc.world.person("bob", "contributor"))
    await rpc.deploy(alice)
    run = await rpc.run(alice)
    request = run_service_pb2.AbortRunRequest(run_id=run.action.id.run, reason="enough")
    for _ in range(2):
        await bob.runs.abort_run(request, headers=bob.headers)
    [ended] = await rpc.world.records(outcome="cancelled")
    [abort] = await rpc.world.records(event="run.abort")
    assert (ended.event, ended.subject, ended.credential_kind) == ("run.finish", "alice", "api_key")
    assert '"aborted_by":"bob"' in ended.detail
    assert '"reason":"enough"' in ended.detail
    assert (abort.subject, abort.outcome) == ("bob", "allowed")
    assert '"executed_by":"alice"' in abort.detail
    assert ended.run == abort.run == f"flytesnacks/development/{run.action.id.run.name}"
    [seen] = await rpc.world.records(outcome="cancelled", run=ended.run)
    assert seen == ended
