"""The pages of triggers: whom they run as, what is due, what came of it, and what to look at."""

from __future__ import annotations

from flyteidl2.task import run_pb2
from sqlalchemy import update
from tests.rpc_world import named, task_spec
from tests.tower.console.conftest import PLACE, Town
from tests.tower.schedules.conftest import cron

from tower.control.schedules import Declared
from tower.identity.authenticators import MACHINE
from tower.store.schema_schedules import triggers

TASK = (*PLACE, "env.main")
PAGE = "/v2/domain/development/project/flytesnacks/triggers"


async def deployed(town: Town, name: str = "daily") -> None:
    """A trigger of alice's task."""
    alice, rooms = await town.caller("alice"), town.house.rooms
    spec = task_spec()
    await rooms.tasks.deploy(alice, TASK, "v1", spec=spec, request_id="d")
    declared = Declared(
        name,
        cron("0 9 * * *", "Europe/Berlin"),
        named({"x": 1}),
        run_pb2.RunSpec(),
        active=True,
        description="The <b>daily</b> report",
    )
    await rooms.schedules.deploy(alice, TASK, "v1", declared, request_id="t")


async def fired(town: Town) -> None:
    """It was due a minute ago, and that was seen to."""
    at = town.house.rooms.clock.now() - 60
    await town.house.db.write(lambda tx: tx.execute(update(triggers).values(next_at=at)).rowcount)
    await town.house.rooms.firing.fire_due()


async def test_the_list_and_the_page_of_a_trigger(town: Town) -> None:
    await deployed(town)
    await fired(town)
    async with town.client(await town.session("bob")) as client:
        for path in ("/v2/triggers", PAGE):
            text = (await client.get(path)).text
            for told in ("daily", "env.main", "active", "alice", "0 9 * * * (Europe/Berlin)", "v1"):
                assert told in text
        text = (await client.get(f"{PAGE}/env.main/daily")).text
        for told in ("alice", "deployed", "started", "whatever is deployed later"):
            assert told in text
        assert "The &lt;b&gt;daily&lt;/b&gt; report" in text
        run = text.partition("/runs/")[2].partition('"')[0]
        text = (await client.get(f"/v2/domain/development/project/flytesnacks/runs/{run}")).text
        assert f'Started by</dt><dd>the trigger <a href="{PAGE}/env.main/daily">daily of env.main</a>' in text
        assert "schedule:flytesnacks/development/env.main/daily/1" in text


async def test_a_suspended_trigger_says_why(town: Town) -> None:
    await deployed(town)
    await town.house.rooms.identities.set_disabled(MACHINE, "alice", disabled=True)
    await fired(town)
    async with town.client(await town.session("bob")) as client:
        for path in ("/v2/triggers", f"{PAGE}/env.main/daily"):
            text = (await client.get(path)).text
            assert "suspended" in text
            assert "The account alice is disabled" in text


async def test_who_may_not_view_the_task_sees_no_trigger(town: Town) -> None:
    await deployed(town)
    await town.house.person("dave", None)
    async with town.client(await town.session("dave")) as client:
        assert "no triggers that you may view" in (await client.get("/v2/triggers")).text
        hidden = await client.get(f"{PAGE}/env.main/daily")
        absent = await client.get(f"{PAGE}/env.main/other")
        assert (hidden.status_code, hidden.text) == (absent.status_code, absent.text)
        assert hidden.status_code == 404
