"""Lines of a log."""

from __future__ import annotations

import asyncio
import contextlib
import datetime as dt
from collections.abc import AsyncGenerator, AsyncIterator, Callable
from dataclasses import dataclass
from typing import TypeVar

from flyteidl2.logs.dataplane import payload_pb2

from flyte.remote._wire import instant
from flyte.transport.session import Session

T = TypeVar("T")

_QUIET_SECONDS = 1.0
_SOURCES = {1: "user", 2: "system"}


@dataclass(frozen=True, slots=True)
class LogLine:
    """One line; `str(line)` is its text.

    :ivar text: without the line break at its end.
    :ivar time: when it was written, in UTC, where known.
    :ivar source: `user` for output of the code, `system` for the platform, else `unknown`.
    """

    text: str
    time: dt.datetime | None = None
    source: str = "unknown"

    @classmethod
    def of(cls, line: payload_pb2.LogLine) -> LogLine:
        """Read a line from the wire."""
        return cls(
            line.message.removesuffix("\n"), instant(line.timestamp), _SOURCES.get(line.originator, "unknown")
        )

    def __str__(self) -> str:
        return self.text


async def what_is_there(
    source: AsyncGenerator[T, None], session: Session, *, lines: Callable[[T], int]
) -> AsyncIterator[T]:
    """What the stream of a log has to say now.

    Tower marks the end of that with an answer without lines, however long it takes to get there. Other
    servers say nothing when there is no more for now: with them it ends when nothing came for a second.

    :param session: it has had an answer.
    :param lines: how many lines an answer has, at least whether it has any.
    """
    async with contextlib.aclosing(source):
        while True:
            try:
                async with asyncio.timeout(None if session.is_tower else _QUIET_SECONDS):
                    item = await source.__anext__()
            except (StopAsyncIteration, TimeoutError):
                return
            if session.is_tower and not lines(item):
                return
            yield item
