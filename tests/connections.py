"""Servers in a test's own loop end with their connections, before it does.

One that is left behind is found by the collector during a later test, which has nothing to do with it and
fails.
"""

from __future__ import annotations

import asyncio

from uvicorn.server import ServerState


async def cut(state: ServerState) -> None:
    """End what a server of uvicorn has open and under way, whoever is at the other side, and wait for that.

    A connection that is not read from, or has something to write still, does not end by `shutdown`.
    """
    for connection in list(state.connections):
        connection.transport.abort()
    for task in list(state.tasks):
        task.cancel()
    await asyncio.gather(*state.tasks, return_exceptions=True)
    async with asyncio.timeout(60):
        while state.connections:
            await asyncio.sleep(0)
