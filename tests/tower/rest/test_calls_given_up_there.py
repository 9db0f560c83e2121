"""A request to the administration API that never arrives whole changes nothing and is on record."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from tests.identity_world import HOST, World
from tests.tower.rest.test_rest_door import Api

HEADERS = [(b"host", HOST.encode()), (b"content-type", b"application/json"), (b"content-length", b"99")]


async def _call(world: World, key: str, *messages: Any) -> list[Any]:
    """One request whose body arrives as these messages; what was answered."""
    coming = iter(messages)
    sent: list[Any] = []

    async def receive() -> Any:
        message = next(coming)
        if isinstance(message, BaseException):
            raise message
        return message

    async def send(message: Any) -> None:
        sent.append(message)

    scope = {
        "type": "http",
        "method": "POST",
        "path": "/api/v1/keys/alice-key/rotate",
        "raw_path": b"/api/v1/keys/alice-key/rotate",
        "query_string": b"",
        "headers": [*HEADERS, (b"authorization", b"Bearer " + key.encode())],
        "scheme": "http",
        "client": ("127.0.0.1", 1),
        "state": {},
    }
    await Api(world).door(scope, receive, send)
    return sent


async def test_half_a_request_is_cancelled_on_record_and_changes_nothing(world: World) -> None:
    key = await world.person("alice", "viewer")
    part = {"type": "http.request", "body": b"", "more_body": True}
    assert await _call(world, key, part, {"type": "http.disconnect"}) == []
    [entry] = await world.records(outcome="cancelled")
    assert (entry.event, entry.subject, entry.action) == ("call.cancel", "alice", "key:manage-own")
    assert "POST /api/v1/keys/alice-key/rotate" in entry.detail
    assert await world.records(event="key.rotate") == []


async def test_a_call_that_is_ended_here_stays_ended(world: World) -> None:
    key = await world.person("alice", "viewer")
    with pytest.raises(asyncio.CancelledError):
        await _call(world, key, asyncio.CancelledError())
    assert [entry.event for entry in await world.records(outcome="cancelled")] == ["call.cancel"]
