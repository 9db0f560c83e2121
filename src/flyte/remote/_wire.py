"""Small things that the remote objects share: identities, times, filters, pages."""

from __future__ import annotations

import datetime as dt
from collections.abc import AsyncGenerator, Awaitable, Callable, Sequence
from typing import TypeVar

from flyteidl2.common import identity_pb2, list_pb2
from google.protobuf.timestamp_pb2 import Timestamp

T = TypeVar("T")

PAGE = 100


def subject(identity: identity_pb2.EnrichedIdentity) -> str:
    """The subject of a person or an application; empty where nobody is named."""
    match identity.WhichOneof("principal"):
        case "user":
            return str(identity.user.id.subject)
        case "application":
            return str(identity.application.id.subject)
        case _:
            return ""


def instant(stamp: Timestamp) -> dt.datetime | None:
    """An aware time in UTC, or None for one that was never set."""
    if not stamp.seconds and not stamp.nanos:
        return None
    when: dt.datetime = stamp.ToDatetime(tzinfo=dt.UTC)
    return when


def equal(field: str, *values: str) -> list_pb2.Filter:
    """A filter: the field is one of these values."""
    function = list_pb2.Filter.EQUAL if len(values) == 1 else list_pb2.Filter.VALUE_IN
    return list_pb2.Filter(function=function, field=field, values=values)


def newest_first() -> list_pb2.Sort:
    """The order of a list, latest creation first."""
    return list_pb2.Sort(key="created_at", direction=list_pb2.Sort.DESCENDING)


async def pages(
    fetch: Callable[[int, str], Awaitable[tuple[Sequence[T], str]]], *, limit: int | None
) -> AsyncGenerator[T, None]:
    """The items of all pages, up to `limit`. `fetch(size, token)` gives the items and the next token."""
    if limit is not None and limit < 1:
        return
    token, left = "", limit
    while True:
        size = PAGE if left is None else min(PAGE, left)
        items, following = await fetch(size, token)
        for item in items:
            yield item
            if left is not None:
                left -= 1
                if left == 0:
                    return
        # A server that names the same page again would keep us for ever.
        if not following or following == token:
            return
        token = following
