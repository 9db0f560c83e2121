"""`flyte.map`: one task for each item of an iterable."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import AsyncIterator, Iterable
from typing import Any

from flyte import _context
from flyte._syncify import syncify
from flyte._task import Task

AHEAD = 1000
"""So many calls are on their way at most, however many items there are."""


@syncify
async def map(  # noqa: A001 - what it is called everywhere
    task: Any, /, *iterables: Iterable[Any], concurrency: int = 0, return_exceptions: bool = False
) -> AsyncIterator[Any]:
    """The results of a task for each item, in the order of the items.

    Inside of a task each call is an action of its own; elsewhere the function is called here, one after the
    other. ::

        async for thumbnail in flyte.map.aio(shrink, pictures, concurrency=8): ...
        thumbnails = list(flyte.map(shrink, pictures))  # where nothing is asynchronous

    :param iterables: as many as the task takes inputs by position; the shortest one decides.
    :param concurrency: how many run at the same time; 0 leaves it to the platform.
    :param return_exceptions: give the exception in the place of a result instead of raising the first one.
    """
    context = _context.task()
    here = context is None or context.submitter is None
    limit = 1 if here else concurrency or AHEAD
    places = asyncio.Semaphore(limit)
    calls: deque[asyncio.Task[Any]] = deque()

    async def call(items: tuple[Any, ...]) -> Any:
        async with places:
            return await (task.aio(*items) if isinstance(task, Task) else task(*items))

    try:
        for items in zip(*iterables, strict=False):
            calls.append(asyncio.create_task(call(items)))
            while len(calls) >= (1 if here else AHEAD):
                yield await _result(calls.popleft(), return_exceptions)
        while calls:
            yield await _result(calls.popleft(), return_exceptions)
    finally:
        for each in calls:
            each.cancel()
        await asyncio.gather(*calls, return_exceptions=True)


async def _result(call: asyncio.Task[Any], return_exceptions: bool) -> Any:
    if not return_exceptions:
        return await call
    try:
        return await call
    except Exception as error:  # noqa: BLE001 - asked for
        return error
