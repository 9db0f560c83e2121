"""Room for an action that is stored together with its first attempt."""

from __future__ import annotations

import asyncio
from dataclasses import replace

from tests.tower.reconcile.conftest import House

from tower.states import Phase
from tower.store import attempts, runs
from tower.store.database import Transaction
from tower.store.runs import ActionKey, ActionRow


async def stored(house: House, key: ActionKey) -> ActionRow:
    """Store another action like one that is there, leased, as SubActions do."""
    like = house.row(key)

    def insert(tx: Transaction) -> ActionRow:
        return attempts.insert(tx, replace(like, action="c1", parent="a0", phase=Phase.QUEUED, attempts=0))

    return await house.db.write(insert)


async def test_an_action_that_is_stored_leased_runs_once_it_is_begun(house: House) -> None:
    key = await house.launch("add", {"x": 2, "y": 40})
    await house.until(key)
    place = house.reconcile.take(key._replace(action="c1"))
    assert place is not None
    row = await stored(house, key)
    assert (house.row(row.key).phase, house.row(row.key).attempts) == (Phase.INITIALIZING, 1)

    place.begin(row)
    ended = await house.until(row.key)

    assert (ended.phase, ended.attempts) == (Phase.SUCCEEDED, 1)
    assert await house.output(ended) == 42
    (attempt,) = house.attempts(row.key)
    assert (attempt.attempt, attempt.phase) == (1, Phase.SUCCEEDED)


async def test_there_is_room_for_so_many_and_what_is_given_back_is_free(house: House) -> None:
    keys = [ActionKey("p", "development", "r", f"c{number}") for number in range(3)]
    first, second = house.reconcile.take(keys[0]), house.reconcile.take(keys[1])
    assert first is not None
    assert second is not None
    assert house.reconcile.take(keys[2]) is None
    waiting = await house.launch("add", {"x": 1, "y": 1})
    await asyncio.sleep(0)
    assert house.reconcile.running == 0

    first.give_back()
    first.give_back()

    assert (await house.until(waiting)).phase is Phase.SUCCEEDED
    third = None
    while third is None:  # until the process has ended
        await asyncio.sleep(0)
        third = house.reconcile.take(keys[2])
    assert house.reconcile.take(keys[0]) is None
    second.give_back()
    third.give_back()


async def test_nobody_is_overtaken_that_the_loop_is_about_to_look_at(house: House) -> None:
    key = ActionKey("p", "development", "r", "c1")
    house.events.publish(("queue",))
    assert house.reconcile.take(key) is None
    place = None
    while place is None:
        await asyncio.sleep(0)
        place = house.reconcile.take(key)
    place.give_back()


async def test_one_action_has_one_place(house: House) -> None:
    key = ActionKey("p", "development", "r", "c1")
    place = house.reconcile.take(key)
    assert place is not None
    assert house.reconcile.take(key) is None
    place.give_back()


async def test_a_server_that_stops_gives_no_places_and_waits_for_those_it_gave(house: House) -> None:
    key = ActionKey("p", "development", "r", "c1")
    place = house.reconcile.take(key)
    assert place is not None
    stopping = asyncio.create_task(house.reconcile.stop())
    await asyncio.sleep(0)
    assert house.reconcile.take(key._replace(action="c2")) is None
    assert not stopping.done()
    place.give_back()
    await stopping


async def test_what_was_stored_and_not_begun_is_taken_up_by_the_next_start(house: House) -> None:
    key = await house.launch("add", {"x": 20, "y": 22})
    await house.until(key)
    row = await stored(house, key)
    await house.reconcile.stop()
    house.settle()
    await house.reconcile.start()
    ended = await house.until(row.key)
    assert (ended.phase, ended.attempts) == (Phase.SUCCEEDED, 2)
    assert house.db.read_now(lambda reader: runs.get(reader, row.key)) == ended
