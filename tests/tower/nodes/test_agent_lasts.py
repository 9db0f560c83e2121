"""A `tower agent` process at work for longer than tokens hold, while Tower's doors close and open again."""

from __future__ import annotations

import asyncio
import json
import re
import shutil
import tempfile
import time
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, suppress
from pathlib import Path

import pytest
from tests.agent_world import Node
from tests.grounds_world import Grounds
from tests.rpc_world import RpcWorld
from tests.tower.nodes.test_agent_process import Place, Task

from tower.states import Phase

LIFE = 2.0
"""Seconds that a token holds here."""


class Site(Place):
    """Another node, and a Tower whose doors open and close."""

    def __init__(self, node: Node, grounds: Grounds, doors: AsyncExitStack) -> None:
        super().__init__(node, grounds, Path(tempfile.mkdtemp()))  # short enough for a socket
        self.doors = doors

    async def open(self) -> None:
        """Tower is back at its port, and remembers what is in its database."""
        rpc, port = self.node.rpc, self.node.port
        self.node = await self.doors.enter_async_context(Node.opened(rpc, port=port))


@pytest.fixture
async def place(tmp_path: Path) -> AsyncIterator[Site]:
    (tmp_path / "home").mkdir()
    async with RpcWorld.opened(tmp_path / "home", agent_token_life=LIFE) as rpc, AsyncExitStack() as doors:
        rpc.world.clock.time = time.time()  # the agent has a clock of its own
        node = await doors.enter_async_context(Node.opened(rpc))
        made = Site(node, await Grounds.opened(rpc), doors)
        try:
            yield made
        finally:
            for agent in made.agents:
                with suppress(ProcessLookupError):
                    agent.kill()
                await agent.communicate()
            shutil.rmtree(made.folder)


async def renewals(place: Site) -> int:
    """How many tokens the agent got for its key."""
    told = (await asyncio.to_thread(place.knock, place.health, "/metrics")).decode()
    found = re.search(r'tower_agent_renewals_total\{outcome="renewed"\} ([0-9.]+)', told)
    return int(float(found[1])) if found else 0


async def left(place: Site) -> float:
    """Seconds that the token in hand holds."""
    told = (await asyncio.to_thread(place.knock, place.health, "/health")).decode()
    return float(json.loads(told[told.index("{") : told.rindex("}") + 1])["token_expires_in"])


async def now(place: Site) -> None:
    """Let Tower's clock be the agent's."""
    place.node.world.clock.time = time.time()


async def test_it_renews_survives_a_restart_of_tower_and_ends_with_the_run(place: Site) -> None:
    key = await place.grounds.asked("alice")
    workload = await place.grounds.lease(key)
    task = await Task.started()
    agent = await place.ready(place.line(workload))
    place.root(agent, task.process.pid)
    while await renewals(place) < 4:  # also while no task calls
        await now(place)
    assert b"alice" in await task.ask(place.socket)

    for _ in range(2):  # gone for longer than a token holds, twice
        await place.doors.aclose()
        while await left(place) > 0:
            await now(place)
        assert agent.returncode is None
        waiting = asyncio.create_task(task.ask(place.socket))
        await place.open()
        await now(place)
        answer = await waiting
        assert answer.startswith(b"HTTP/1.1 200"), answer
        assert b"alice" in answer
    before = await renewals(place)
    while await renewals(place) == before:
        await now(place)
    assert b"alice" in await task.ask(place.socket)

    await place.node.rpc.move(key.run, Phase.SUCCEEDED)
    assert (await task.ask(place.socket)).startswith(b"HTTP/1.1 401")
    while await left(place) > 0:
        await now(place)
    assert (await task.ask(place.socket)).startswith(b"HTTP/1.1 401")
    health = await asyncio.to_thread(place.knock, place.health, "/health")
    assert b'"status": "over"' in health
    await task.end()
    assert await agent.wait() == 0
