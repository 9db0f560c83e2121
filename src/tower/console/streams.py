"""Server-sent events: the state of a run or app and its output, as they change."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import suppress

from tower.errors import Fault, Unauthenticated

Event = tuple[str, object]

HEARTBEAT_SECONDS = 15.0
_BUFFER = 64


async def encoded(
    *sources: AsyncIterator[Event],
    holds: Callable[[], Awaitable[object]],
    heartbeat: float = HEARTBEAT_SECONDS,
) -> AsyncIterator[bytes]:
    """The sources side by side as a stream of events, until all are at their end.

    `begin` tells the page to start from nothing: a browser that lost the stream comes again and gets it all.
    `holds` is asked every `heartbeat` seconds and raises Unauthenticated when the session is over.
    """
    queue: asyncio.Queue[Event | None] = asyncio.Queue(_BUFFER)
    pumps = [asyncio.ensure_future(_pump(source, queue)) for source in sources]
    pulse = asyncio.ensure_future(asyncio.sleep(heartbeat))
    following = asyncio.ensure_future(queue.get())
    left = len(pumps)
    try:
        yield _encode("begin", None)
        while left:
            await asyncio.wait({pulse, following}, return_when=asyncio.FIRST_COMPLETED)
            if pulse.done():
                await holds()
                pulse = asyncio.ensure_future(asyncio.sleep(heartbeat))
                yield b": still here\n\n"
            if following.done():
                event = following.result()
                following = asyncio.ensure_future(queue.get())
                if event is None:
                    left -= 1
                else:
                    yield _encode(*event)
        yield _encode("end", None)
    except Unauthenticated:
        yield _encode("gone", None)
    finally:
        tasks = (*pumps, pulse, following)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


async def _pump(source: AsyncIterator[Event], queue: asyncio.Queue[Event | None]) -> None:
    with suppress(Fault):  # out of sight by now: the stream just ends
        async for event in source:
            await queue.put(event)
    await queue.put(None)


def _encode(name: str, data: object) -> bytes:
    return f"event: {name}\ndata: {json.dumps(data)}\n\n".encode()
