"""What comes of a due time: one run as the trigger's person, of the pinned version, and never two."""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime
from typing import Any

import pytest
from tests.rpc_world import PROJECT
from tests.tower.schedules.conftest import Clockwork, every

from tower.control import triggers
from tower.identity.authenticators import MACHINE


async def test_a_due_time_starts_one_run_as_who_deployed_it(clockwork: Clockwork) -> None:
    await clockwork.deploy("alice")
    assert await clockwork.pass_until(3, 2, 8, 59, 59) == 0
    assert await clockwork.pass_until(3, 2, 9) == 1
    (run,) = clockwork.runs()
    assert (run.executed_by, run.task_version, run.credential_kind) == ("alice", "v1", "schedule")
    assert run.actors == '["schedule:flytesnacks/development/env.main/daily/1"]'
    assert await clockwork.wait(0) == 0
    row = clockwork.row()
    assert row.last_run == run.run
    assert datetime.fromtimestamp(row.next_at or 0, UTC) == datetime(2026, 3, 3, 9, tzinfo=UTC)


async def test_the_time_of_the_firing_is_an_input(clockwork: Clockwork) -> None:
    await clockwork.deploy("alice", moment=True)
    await clockwork.pass_until(3, 2, 9, 0, 20)
    (run,) = clockwork.runs()
    at = (await clockwork.given(run))["at"].datetime.ToDatetime(tzinfo=UTC)
    assert at == datetime(2026, 3, 2, 9, tzinfo=UTC)


async def test_several_at_once_start_one_run(clockwork: Clockwork) -> None:
    await clockwork.deploy("alice")
    clockwork.rpc.world.clock.time = datetime(2026, 3, 2, 9, tzinfo=UTC).timestamp()
    await asyncio.gather(*(clockwork.rpc.firing.fire_due() for _ in range(4)))
    assert len(clockwork.runs()) == 1


async def test_an_interval_keeps_its_beat(clockwork: Clockwork) -> None:
    await clockwork.deploy("alice", automation=every(10))
    for _ in range(3):
        assert await clockwork.wait(600) == 1
        await clockwork.deploy("alice", automation=every(10))
    await clockwork.wait(599)
    assert len(clockwork.runs()) == 3


async def test_what_was_missed_is_made_up_for_once_within_an_hour(clockwork: Clockwork) -> None:
    await clockwork.deploy("alice", automation=every(10))
    assert await clockwork.wait(6 * 3600 + 5) == 1
    assert len(clockwork.runs()) == 1
    shown = await clockwork.rpc.schedules.views.get(
        await clockwork.rpc.world.who(bearer=clockwork.people["alice"].headers["authorization"][7:]),
        clockwork.row().key,
        request_id="",
    )
    assert [(each.outcome, each.due_at) for each in shown.firings] == [
        ("started", clockwork.now - 5),
        ("missed", clockwork.now - 6 * 3600 - 5 + 600),
    ]
    assert await clockwork.wait(600) == 1
    assert len(clockwork.runs()) == 2


async def test_what_was_missed_longer_ago_is_only_noted(clockwork: Clockwork) -> None:
    await clockwork.deploy("alice")
    assert await clockwork.pass_until(3, 2, 13) == 1
    assert clockwork.runs() == []
    row = clockwork.row()
    assert row.state == "active"
    assert "Tower was not there at 2026-03-02 09:00:00 UTC" in row.notice
    assert await clockwork.pass_until(3, 3, 9) == 1
    assert len(clockwork.runs()) == 1


async def test_what_can_make_no_run_now_is_skipped_and_goes_on(clockwork: Clockwork) -> None:
    await clockwork.deploy("alice")
    await set_archived(clockwork, archived=True)
    assert await clockwork.pass_until(3, 2, 9) == 1
    row = clockwork.row()
    assert (row.state, clockwork.runs()) == ("active", [])
    assert "2026-03-02 09:00:00 UTC started nothing: " in row.notice
    await set_archived(clockwork, archived=False)
    assert await clockwork.pass_until(3, 3, 9) == 1
    assert len(clockwork.runs()) == 1
    assert clockwork.row().notice == ""


async def test_one_that_cannot_fire_keeps_no_other_from_firing(
    clockwork: Clockwork, monkeypatch: pytest.MonkeyPatch
) -> None:
    await clockwork.deploy("alice", name="good")
    await clockwork.deploy("alice", name="bad")
    await clockwork.deploy("alice", name="ugly")
    read, fill = triggers.table, triggers.fill

    def table(row: Any) -> Any:
        if row.name == "bad":
            raise KeyError("Mars/Olympus")
        return read(row)

    def filled(row: Any, inputs: Any, time: float) -> Any:
        if row.name == "ugly":
            raise ZeroDivisionError
        return fill(row, inputs, time)

    monkeypatch.setattr(triggers, "table", table)
    monkeypatch.setattr(triggers, "fill", filled)
    assert await clockwork.pass_until(3, 2, 9) == 3
    assert await clockwork.wait(0) == 0
    assert [run.actors.split("/")[3] for run in clockwork.runs()] == ["good"]
    assert clockwork.row("bad").state == "suspended"
    assert (clockwork.row("ugly").state, "internal error" in clockwork.row("ugly").notice) == ("active", True)


async def set_archived(clockwork: Clockwork, *, archived: bool) -> None:
    """Archive the project, or open it again."""
    await clockwork.rpc.projects.update(MACHINE, PROJECT, description="", archived=archived, request_id="q")
