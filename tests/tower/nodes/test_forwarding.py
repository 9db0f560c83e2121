"""The agent between a task and Tower: whole bodies both ways, streams, and a Tower that comes and goes."""

from __future__ import annotations

import asyncio
import contextlib
import json
import socket
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest
import uvicorn
from tests.agent_world import WHO, Agent, Node
from tests.connections import cut
from tests.grounds_world import Grounds
from tests.rpc_world import RpcWorld, run_id
from tests.tower_process import held_port

from tower.agent.forward import Caller, Forward
from tower.agent.upstream import BrokenOffError, Upstream
from tower.protocol import Bounded
from tower.states import Phase

App = Callable[[Any, Any, Any], Awaitable[None]]


@pytest.fixture
async def rpc(tmp_path: Path) -> AsyncIterator[RpcWorld]:
    async with RpcWorld.opened(tmp_path) as opened:
        yield opened


class Purse:
    """A keeper that always has a token."""

    over = ""
    fresh = ""
    left = 100.0
    spoilt = 0

    async def token(self) -> str:
        return f"token{self.spoilt}"

    def prove(self, method: str, target: bytes, token: str) -> bytes:
        return b"proof of " + method.encode() + b" " + target

    def spoil(self, token: str) -> None:
        self.spoilt += 1


class Bench:
    """An agent before an application that plays Tower."""

    def __init__(self, url: str, purse: Purse) -> None:
        self.purse = purse
        self.upstream = Upstream(url)
        self.forward = Forward(purse, self.upstream, patience=0.3)  # type: ignore[arg-type]
        self.url = ""


@asynccontextmanager
async def served(app: App, **options: Any) -> AsyncIterator[str]:
    """An application on a free port; its URL."""
    listener = socket.socket(socket.AF_INET, socket.SOCK_STREAM, socket.IPPROTO_TCP)
    listener.bind(("127.0.0.1", 0))
    config = uvicorn.Config(app, http=Bounded, lifespan="off", log_config=None, access_log=False, **options)
    server = uvicorn.Server(config)
    serving = asyncio.create_task(server.serve(sockets=[listener]))
    try:
        yield f"http://127.0.0.1:{listener.getsockname()[1]}"
    finally:
        server.should_exit = server.force_exit = True
        await serving
        await cut(server.server_state)
        listener.close()


@asynccontextmanager
async def bench(tower: App) -> AsyncIterator[Bench]:
    async with served(tower) as url:
        made = Bench(url, Purse())

        async def attested(scope: Any, receive: Any, send: Any) -> None:
            scope["state"] = {"workload": Caller("attempt", "", 42)}
            await made.forward(scope, receive, send)

        async with served(attested) as made.url:
            yield made
        made.upstream.close()


async def whole(receive: Any) -> bytes:
    body, more = b"", True
    while more:
        message = await receive()
        body += message.get("body", b"")
        more = message.get("more_body", False)
    return body


async def echo(scope: Any, receive: Any, send: Any) -> None:
    """Answers with what came."""
    body = await whole(receive)
    told = {
        "method": scope["method"],
        "target": (scope["raw_path"] + b"?" + scope["query_string"]).decode(),
        "headers": [[name.decode(), value.decode()] for name, value in scope["headers"]],
        "body": body.decode("latin-1"),
    }
    await send({"type": "http.response.start", "status": 207, "headers": [(b"x-a", b"1"), (b"x-a", b"2")]})
    await send({"type": "http.response.body", "body": json.dumps(told).encode()})


async def test_a_call_arrives_as_it_was_made(tmp_path: Path) -> None:
    async with bench(echo) as made, httpx.AsyncClient(base_url=made.url, timeout=60.0) as client:
        sent = {
            "host": "tower.test",
            "x-request-id": "r",
            "te": "trailers",
            "x-tower-peer": "1",
            "x-flyte-agent": "1",
        }
        answer = await client.post("/a%20b/c?x=1&y", content=b"\0\1\2", headers=sent)
        told = answer.json()
        assert (answer.status_code, told["method"], told["target"]) == (207, "POST", "/a%20b/c?x=1&y")
        assert answer.headers.get_list("x-a") == ["1", "2"]
        assert told["body"] == "\0\1\2"
        headers = dict(told["headers"])
        assert headers["host"] == "tower.test"
        assert headers["x-request-id"] == "r"
        assert headers["x-tower-agent"] == "token0"
        assert headers["x-tower-proof"] == "proof of POST /a%20b/c?x=1&y"
        assert headers["x-tower-peer"] == "42"
        assert not {"te", "x-flyte-agent"} & headers.keys()
        assert [name for name, _ in told["headers"]].count("x-tower-peer") == 1


@pytest.mark.parametrize("size", [0, 1, 70_000, 5_000_000])
@pytest.mark.parametrize("chunked", [False, True])
async def test_bodies_of_every_size_go_both_ways(size: int, chunked: bool) -> None:
    data = b"x" * size

    async def parts() -> AsyncIterator[bytes]:
        for begin in range(0, size, 50_000):
            yield data[begin : begin + 50_000]

    async with bench(echo) as made, httpx.AsyncClient(base_url=made.url, timeout=60.0) as client:
        for _ in range(2):
            answer = await client.put("/up", content=parts() if chunked else data)
            assert len(answer.json()["body"]) == size


@pytest.mark.parametrize("method", ["GET", "HEAD", "DELETE", "OPTIONS"])
async def test_calls_without_a_body(method: str) -> None:
    async with bench(echo) as made, httpx.AsyncClient(base_url=made.url, timeout=60.0) as client:
        for _ in range(3):
            answer = await client.request(method, "/x")
            assert answer.status_code == 207
            if method != "HEAD":
                headers = dict(answer.json()["headers"])
                assert "transfer-encoding" not in headers


async def test_a_stream_is_passed_on_as_it_comes() -> None:
    go = asyncio.Event()

    async def stream(scope: Any, receive: Any, send: Any) -> None:
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": b"one", "more_body": True})
        await go.wait()
        await send({"type": "http.response.body", "body": b"two"})

    async with (
        bench(stream) as made,
        httpx.AsyncClient(base_url=made.url, timeout=60.0) as client,
        client.stream("POST", "/s", content=b"x") as answer,
    ):
        parts = answer.aiter_raw()
        assert await anext(parts) == b"one"
        go.set()
        assert b"".join([part async for part in parts]) == b"two"


async def test_who_hangs_up_ends_the_call_at_tower() -> None:
    begun, ended = asyncio.Event(), asyncio.Event()

    async def forever(scope: Any, receive: Any, send: Any) -> None:
        await whole(receive)
        begun.set()
        assert (await receive())["type"] == "http.disconnect"
        ended.set()

    async with bench(forever) as made:
        async with httpx.AsyncClient(base_url=made.url, timeout=60.0) as client:
            call = asyncio.create_task(client.post("/s", content=b"x"))
            await begun.wait()
            call.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await call
        async with asyncio.timeout(60):
            await ended.wait()


async def test_an_answer_that_breaks_off_is_no_answer() -> None:
    async def breaks(scope: Any, receive: Any, send: Any) -> None:
        await whole(receive)
        if scope["path"] == "/late":
            await send({"type": "http.response.start", "status": 200, "headers": [(b"content-length", b"9")]})
            await send({"type": "http.response.body", "body": b"half", "more_body": True})
        transport = receive.__self__.transport
        transport.abort()

    async with bench(breaks) as made, httpx.AsyncClient(base_url=made.url, timeout=60.0) as client:
        early = await client.post("/early", content=b"x")
        assert (early.status_code, early.json()["code"]) == (503, "unavailable")
        assert "may have been carried out" in early.json()["message"]
        with pytest.raises(httpx.RemoteProtocolError):
            await client.post("/late", content=b"x")


async def test_a_token_that_tower_does_not_take_is_renewed_once() -> None:
    seen: list[str] = []

    async def refuses(scope: Any, receive: Any, send: Any) -> None:
        await whole(receive)
        token = next(value.decode() for name, value in scope["headers"] if name == b"x-tower-agent")
        seen.append(token)
        late = token == "token0" or scope["path"] == "/never"
        headers = [(b"content-length", b"0"), *([(b"x-tower-agent", b"refused")] if late else [])]
        await send({"type": "http.response.start", "status": 401 if late else 200, "headers": headers})
        await send({"type": "http.response.body", "body": b""})

    async with bench(refuses) as made, httpx.AsyncClient(base_url=made.url, timeout=60.0) as client:
        assert (await client.post("/once", content=b"x")).status_code == 200
        assert seen == ["token0", "token1"]
        assert (await client.post("/never", content=b"x")).status_code == 401
        assert seen[2:] == ["token1", "token2"]


async def test_tower_goes_and_comes_and_the_token_is_the_same(rpc: RpcWorld) -> None:
    """While Tower is away calls wait a little, then are told so; afterwards all is as it was, streams too."""
    grounds = await Grounds.opened(rpc)
    key = await grounds.asked("alice")
    workload = await grounds.lease(key)
    with held_port() as port:
        async with Node.opened(rpc, port=port) as node:
            agent = await node.agent(workload)
            token = await agent.keeper.token()
            assert await agent.subject() == "alice"
        away = await agent.call()
        assert (away.status_code, away.headers["retry-after"]) == (503, "1")
        assert away.json()["code"] == "unavailable"
        assert (await agent.http.get("/health")).status_code == 503
        patient = Agent(agent.keeper, agent.forward._upstream, patience=60.0)
        waiting = asyncio.create_task(patient.subject())
        await asyncio.wait([waiting], timeout=0.1)
        assert not waiting.done()
        async with Node.opened(rpc, port=port):
            assert await waiting == "alice"
            assert await agent.keeper.token() == token
            assert await agent.subject() == "alice"
            assert (await agent.http.get("/health")).json() == {
                "status": "ok",
                "tower": "reachable",
                "token_expires_in": 300.0,
            }
            # away for longer than a token lives: the key renews it
            rpc.world.clock.time += 1000
            assert await agent.subject() == "alice"
            assert await agent.keeper.token() != token


async def test_a_stream_ends_with_the_right(rpc: RpcWorld) -> None:
    """A watch through the agent goes on for as long as the attempt acts for somebody, and no longer."""
    from flyteidl2.workflow import run_service_pb2

    from flyte.transport._envelope import Unwrapper, envelope

    grounds = await Grounds.opened(rpc)
    watched = await grounds.asked("alice")
    key = await grounds.asked("alice")
    workload = await grounds.lease(key)
    request = run_service_pb2.WatchRunDetailsRequest(run_id=run_id(watched.run))
    async with Node.opened(rpc) as node:
        agent = await node.agent(workload)

        async def attested(scope: Any, receive: Any, send: Any) -> None:
            scope["state"] = {"workload": Caller("attempt", "", 42)}
            await agent.forward(scope, receive, send)

        async with served(attested) as url, httpx.AsyncClient(base_url=url, timeout=60.0) as client:
            path = "/flyteidl2.workflow.RunService/WatchRunDetails"
            content = envelope(request.SerializeToString())
            headers = {"content-type": "application/connect+proto"}
            async with client.stream("POST", path, content=content, headers=headers) as answer:
                assert answer.status_code == 200
                parts = answer.aiter_raw()
                unwrapper = Unwrapper()
                (first,) = unwrapper.feed(await anext(parts))
                assert run_service_pb2.WatchRunDetailsResponse.FromString(first).details.action.id.run.name
                await grounds.revoke("alice", key)
                await rpc.move(watched.run, Phase.RUNNING)
                rest = b"".join([part async for part in parts])
                assert rest[0] & 2, "more of the stream before its end"
                assert b"grant of the run" in rest


@pytest.mark.parametrize("url", ["ftp://x", "http://example.com", "http://10.0.0.1:80", "https://", "x"])
def test_tower_is_reached_by_tls_or_on_this_machine(url: str) -> None:
    with pytest.raises(ValueError, match="Tower"):
        Upstream(url)


async def test_what_is_no_http_is_no_answer() -> None:
    async def babble(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(b"220 hello\r\n\r\n")
        await writer.drain()
        writer.close()
        await writer.wait_closed()

    server = await asyncio.start_server(babble, "127.0.0.1", 0)
    async with server:
        upstream = Upstream(f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}")
        connection = await upstream.connection()
        connection.ask(b"GET", b"/", [(b"host", b"x")], b"")
        with pytest.raises(BrokenOffError):
            await connection.head()


async def test_health_and_metrics_for_who_runs_it(rpc: RpcWorld) -> None:
    grounds = await Grounds.opened(rpc)
    workload = await grounds.lease(await grounds.asked("alice"))
    async with Node.opened(rpc) as node:
        agent = await node.agent(workload)
        assert await agent.subject() == "alice"
        text = (await agent.http.get("/metrics")).text
        for name in (
            "forwarded_total",
            "renewals_total",
            "token_expires_seconds",
            "refusals_total",
            "calls_total",
        ):
            assert f"tower_agent_{name}" in text
        assert "tower_agent_token_expires_seconds 300.0" in text
        health = (await agent.http.get("/health")).text
        for secret in (await agent.keeper.token(), workload.id, "alice"):
            assert secret not in health + text

        async def operator(scope: Any, receive: Any, send: Any) -> None:
            scope["state"] = {"workload": Caller("admin", "", 42)}
            await agent.forward(scope, receive, send)

        async with httpx.AsyncClient(transport=httpx.ASGITransport(operator), base_url="http://x") as client:
            assert (await client.get("/health")).status_code == 200
            assert (await client.post(WHO)).status_code == 403
        agent.keeper.end()
        assert (await agent.call()).status_code == 401
        assert (await agent.http.get("/health")).json()["status"] == "over"
