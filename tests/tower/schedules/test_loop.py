"""The loop sleeps until the next due time, wakes on a change, and is taken up again after a crash."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from tests.identity_world import World
from tests.rpc_world import RpcWorld
from tests.tower.reconcile.conftest import FakeClock
from tests.tower.schedules.conftest import START, Clockwork, every

from tower.control.events import Events
from tower.control.reconcile import ScheduleLoop
from tower.control.schedules import CHANGED
from tower.store import schedules as store


class Fired:
    """What the loop asks of the use-case: due times in a list, and when they were seen to."""

    def __init__(self, clock: FakeClock, *times: float) -> None:
        self.clock, self.times = clock, list(times)
        self.fired: list[tuple[float, float]] = []
        self.broken = 0
        self.looked = asyncio.Event()

    async def fire_due(self) -> int:
        if self.broken:
            self.broken -= 1
            self.looked.set()
            raise OSError("the disk is away")
        due = [time for time in self.times if time <= self.clock.time]
        self.fired += [(time, self.clock.time) for time in due]
        self.times = [time for time in self.times if time not in due]
        return len(due)

    async def next_due(self) -> float | None:
        self.looked.set()
        return min(self.times, default=None)

    async def next_look(self, act: Callable[[], Any] | None = None) -> None:
        self.looked.clear()
        if act is not None:
            act()
        await self.looked.wait()
        await asyncio.sleep(0)


async def test_it_sleeps_until_something_is_due() -> None:
    clock = FakeClock(1000.0)
    fired, events = Fired(clock, 1010.0, 1500.0), Events()
    loop = ScheduleLoop(firing=fired, clock=clock, events=events, timers=clock)
    await fired.next_look(lambda: asyncio.ensure_future(loop.start()))
    assert [time for time, _ in clock.timers] == [1010.0]
    await fired.next_look(lambda: clock.advance(10))
    assert fired.fired == [(1010.0, 1010.0)]
    # it looks again before long: the clock of the machine may be set
    assert [time for time, _ in clock.timers] == [1310.0]
    await fired.next_look(lambda: clock.advance(300))
    await fired.next_look(lambda: clock.advance(190))
    assert fired.fired == [(1010.0, 1010.0), (1500.0, 1500.0)]
    assert clock.timers == []
    # a change wakes it
    fired.times = [1600.0]
    await fired.next_look(lambda: events.publish(CHANGED))
    assert [time for time, _ in clock.timers] == [1600.0]
    await loop.stop()
    assert clock.timers == []


async def test_a_store_that_does_not_answer_is_asked_again() -> None:
    clock = FakeClock(1000.0)
    fired, events = Fired(clock, 990.0), Events()
    fired.broken = 1
    loop = ScheduleLoop(firing=fired, clock=clock, events=events, timers=clock)
    await fired.next_look(lambda: asyncio.ensure_future(loop.start()))
    assert fired.fired == []
    await fired.next_look(lambda: clock.advance(1))
    assert fired.fired == [(990.0, 1001.0)]
    await loop.stop()


@pytest.mark.parametrize("step", ["advance", "add_firing"])
async def test_a_crash_in_the_middle_leaves_the_time_due(
    clockwork: Clockwork, monkeypatch: pytest.MonkeyPatch, step: str
) -> None:
    await clockwork.deploy("alice")

    class Crash(Exception):
        pass

    def fails(*_: object, **__: object) -> None:
        raise Crash

    with monkeypatch.context() as patched:
        patched.setattr(store, step, fails)
        with pytest.raises(Crash):
            await clockwork.pass_until(3, 2, 9)
    assert clockwork.runs() == []
    assert await clockwork.wait(5) == 1
    assert len(clockwork.runs()) == 1


async def test_a_restart_goes_on_where_it_was(tmp_path: Path) -> None:
    async with RpcWorld.opened(tmp_path) as rpc:
        rpc.world.clock.time = START
        clockwork = Clockwork(rpc)
        await clockwork.person("alice")
        await clockwork.deploy("alice", automation=every(10))
        await clockwork.wait(600)
    async with World.opened(tmp_path, projects=False) as world:
        again = RpcWorld(world, 1)
        clockwork = Clockwork(again)
        world.clock.time, world.clock.count = START + 600, 100
        assert await clockwork.wait(1) == 0
        assert await again.firing.next_due() == START + 1200
        assert await clockwork.wait(599) == 1
        assert len(clockwork.runs()) == 2
        await again.http.aclose()


async def test_what_is_deployed_while_it_fires_does_not_fire_twice(clockwork: Clockwork) -> None:
    await clockwork.deploy("alice")
    clockwork.rpc.world.clock.time = datetime(2026, 3, 2, 9, tzinfo=UTC).timestamp()
    await asyncio.gather(
        clockwork.rpc.firing.fire_due(),
        clockwork.deploy("alice", inputs={"x": 2}),
        clockwork.rpc.firing.fire_due(),
    )
    await clockwork.wait(0)
    assert len(clockwork.runs()) == 1
