"""Agents of another node, in the test's own loop, before a real Tower's doors with a clock that tests set."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import httpx
import uvicorn
from flyteidl2.auth import identity_pb2
from tests.connections import cut
from tests.rpc_world import RpcWorld

from tower.agent.forward import Caller, Forward
from tower.agent.keeper import Assignment, Keeper
from tower.agent.upstream import Upstream
from tower.control.agents import Agents
from tower.identity.agenttokens import AgentTokens
from tower.identity.guesses import Guesses, Pace
from tower.identity.signing import SigningKey
from tower.identity.workload import Workload
from tower.nodes.door import NodesDoor
from tower.possession import PROOF_HEADER, TOKEN_HEADER

WHO = "/flyteidl2.auth.IdentityService/UserInfo"


class Node:
    """Tower's doors on a port, and agents that know it."""

    def __init__(self, rpc: RpcWorld, port: int) -> None:
        world = rpc.world
        key = SigningKey.load(world.home / "signing-key.pem")
        self.rpc, self.world, self.port = rpc, world, port
        self.url = f"http://127.0.0.1:{port}"
        self.tokens = AgentTokens(
            keys=world.ring, secret=key.derive("agents"), clock=world.clock, issuer=world.settings.org
        )
        self.agents = Agents(
            db=world.db,
            clock=world.clock,
            access=world.access,
            standing=world.standing,
            tokens=self.tokens,
            key=key,
            settings=world.settings,
        )
        self.guesses = Guesses(clock=world.clock, source=Pace(burst=20, per_second=4.0))
        self.door = NodesDoor(self.agents, hosted=rpc, public=rpc, guesses=self.guesses)
        self.http = httpx.AsyncClient(base_url=self.url, trust_env=False, timeout=60.0)
        self.upstreams: list[Upstream] = []

    @classmethod
    @asynccontextmanager
    async def opened(cls, rpc: RpcWorld, *, port: int = 0) -> AsyncIterator[Node]:
        """Serve on a port, by default a free one; for one that is served on again, see `held_port`."""
        listener = socket.socket(socket.AF_INET, socket.SOCK_STREAM, socket.IPPROTO_TCP)
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind(("127.0.0.1", port))
        node = cls(rpc, listener.getsockname()[1])
        server = uvicorn.Server(uvicorn.Config(node.door, lifespan="off", log_config=None, access_log=False))
        serving = asyncio.create_task(server.serve(sockets=[listener]))
        try:
            yield node
        finally:
            await node.http.aclose()
            for each in node.upstreams:
                each.close()
            server.should_exit = server.force_exit = True
            await serving
            await cut(server.server_state)
            listener.close()

    def launched(self, workload: Workload, *, ticket: str = "") -> tuple[Keeper, Upstream]:
        """An agent that has its ticket and has not used it yet."""
        given = ticket or self.agents.ticket(workload.id)
        upstream = Upstream(self.url)
        self.upstreams.append(upstream)
        assignment = Assignment(workload.id, given, self.agents.public)
        return Keeper(assignment, upstream, clock=self.world.clock), upstream

    async def agent(self, workload: Workload) -> Agent:
        """An agent at work."""
        keeper, upstream = self.launched(workload)
        await keeper.begin(patience=60.0)
        return Agent(keeper, upstream)

    async def ask(
        self, token: str, proof: str = "", *, path: str = WHO, body: bytes = b"", **headers: str
    ) -> httpx.Response:
        """A call with a token and a proof, by whoever has them."""
        sent = {"content-type": "application/proto", TOKEN_HEADER.decode(): token, **headers}
        if proof:
            sent[PROOF_HEADER.decode()] = proof
        return await self.http.post(path, content=body, headers=sent)


class Agent:
    """An agent at work, and its socket without the kernel: the attestation has tests of its own."""

    def __init__(self, keeper: Keeper, upstream: Upstream, *, patience: float = 0.2) -> None:
        self.keeper = keeper
        self.forward = Forward(keeper, upstream, patience=patience)
        transport = httpx.ASGITransport(self._attested)
        self.http = httpx.AsyncClient(transport=transport, base_url="http://agent")

    async def _attested(self, scope: Any, receive: Any, send: Any) -> None:
        scope["state"] = {"workload": Caller("attempt", "", 1)}
        await self.forward(scope, receive, send)

    async def call(self, path: str = WHO, body: bytes = b"", **headers: str) -> httpx.Response:
        """A call of the task."""
        sent = {"content-type": "application/proto", **headers}
        return await self.http.post(path, content=body, headers=sent)

    async def subject(self) -> str:
        """Whom Tower takes the task for, or the status of the refusal."""
        answer = await self.call()
        if answer.status_code != 200:
            return str(answer.status_code)
        return str(identity_pb2.UserInfoResponse.FromString(answer.content).subject)
