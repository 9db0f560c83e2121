"""`flyte.remote.Trigger` against the server."""

from __future__ import annotations

import pytest
from tests.rpc_world import DOMAIN, PROJECT
from tests.tower.schedules.conftest import Clockwork, every

from flyte._init import open_session, use_session
from flyte.errors import PermissionDeniedError, RemoteNotFoundError
from flyte.remote import Trigger


async def test_what_a_trigger_tells_and_does(clockwork: Clockwork) -> None:
    await clockwork.deploy("alice", description="the report")
    await clockwork.deploy("bob", "v2", name="often", automation=every(90), active=False)
    await clockwork.pass_until(3, 2, 9)
    key = clockwork.people["alice"].headers["authorization"].removeprefix("Bearer ")
    session = open_session(
        endpoint=clockwork.rpc.url, api_key=key, insecure=True, project=PROJECT, domain=DOMAIN
    )
    try:
        with use_session(session):
            await looks(clockwork)
            await changes()
    finally:
        await session.aclose()


async def looks(clockwork: Clockwork) -> None:
    """Everything that changes nothing."""
    daily, often = [each async for each in Trigger.listall.aio()]
    assert [each.name async for each in Trigger.listall.aio("env.main", limit=1)] == ["daily"]
    (run,) = clockwork.runs()
    shown = daily.to_dict()
    assert shown | {"url": ""} == {
        "name": "daily",
        "task": "env.main",
        "state": "active",
        "owner": "alice",
        "version": "v1",
        "schedule": "0 9 * * * UTC",
        "next_at": "2026-03-03T09:00:00+00:00",
        "last_at": "2026-03-02T09:00:00+00:00",
        "last_run": run.run,
        "notice": "",
        "revision": 1,
        "description": "the report",
        "deployed_by": "alice",
        "updated_by": "alice",
        "url": "",
    }
    assert daily.url.endswith(f"/v2/domain/{DOMAIN}/project/{PROJECT}/triggers/env.main/daily")
    assert (often.state, often.schedule, often.next_at) == ("inactive", "every 90 minutes", None)
    started = [each async for each in daily.runs.aio()]
    assert [(each.name, each.executed_by) for each in started] == [(run.run, "alice")]
    assert started[0].via_trigger == f"{PROJECT}/{DOMAIN}/env.main/daily"
    with pytest.raises(RemoteNotFoundError, match=r"no trigger other of env\.main"):
        await Trigger.get.aio("other", "env.main")


async def changes() -> None:
    """Switching, moving, starting and deleting."""
    daily = await Trigger.get.aio("daily", "env.main")
    await daily.deactivate.aio()
    assert not daily.is_active
    await daily.activate.aio()
    assert (daily.state, daily.version, daily.revision) == ("active", "v1", 3)
    await daily.pin.aio()
    assert (daily.state, daily.version, daily.owner) == ("active", "v2", "alice")
    by_hand = await daily.start.aio()
    assert (by_hand.executed_by, by_hand.via_trigger) == ("alice", "")
    often = await Trigger.get.aio("often", "env.main")
    with pytest.raises(PermissionDeniedError):
        await often.activate.aio()
    await daily.delete.aio()
    assert [each.name async for each in Trigger.listall.aio()] == ["often"]
