"""Hours in the queue and days at work, on a whole Tower with a clock that tests set: T6, E9."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
from tests.altered import Altered
from tests.suites.rooms import House, deploy
from tests.threats.conftest import opened
from tests.tower_process import Tower

pytestmark = pytest.mark.xdist_group("time-passes")

HOUR = 3600.0
TIMES = """
    mine = remote.default().fetch_execution(os.environ["RUN_NAME"]).closure
    child = remote.default().fetch_execution(flyte.run(remote.Task.get(name="room.leaf"), x=0).name).closure
    answer = [(mine.started_at - mine.created_at).total_seconds(),
              (child.created_at - mine.started_at).total_seconds()]
"""
"""How long a task was queued, and how long it has been running, by the clock of Tower."""


@pytest.fixture(scope="module", params=["inside", "beside"])
def site(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[tuple[Tower, Altered]]:
    """A Tower with room for one attempt at a time."""
    folder = tmp_path_factory.mktemp("time")
    altered = Altered(folder / "altered", parallel_attempts=1)
    options = ("--agent", request.param)
    with Tower.started(folder / "home", *options, before=altered.before) as tower:
        tower.add_people()
        for lab in opened(tower):
            deploy(lab, folder)
        yield tower, altered


@pytest.fixture
def house(site: tuple[Tower, Altered]) -> Iterator[House]:
    tower, _ = site
    for lab in opened(tower):
        with House.opened(lab, "") as made:
            yield made


def shown(house: House, run: str) -> dict[str, Any]:
    """What `flyte get run` says of it, asked by an administrator."""
    place = ("--project", "flytesnacks", "--domain", "development", "-o", "json")
    printed = house.tower.flyte(*place, "get", "run", run, user=house.lab.admin_key).json()
    assert isinstance(printed, dict)
    return printed


def test_t06_six_hours_queued_and_two_days_running(house: House, site: tuple[Tower, Altered]) -> None:
    """Asked for with a key of one hour; calls, sub-tasks and runs go on to be its person's to the end."""
    tower, altered = site
    key = tower.new_key("brief", "alice", "--expires", "1h")
    first = house.room("bob")
    name = house.ask(key)
    altered.advance(6 * HOUR)
    assert house.lab.rest(key, "GET", "/whoami").status_code == 401
    first.end()
    room = house.next()
    assert (room.run, room.who()) == (name, "alice")
    for hour in range(48):
        altered.advance(HOUR)
        assert room.who() == "alice", f"after {hour + 1} hours"
        if hour % 12 == 11:
            assert room.do("answer = remote.default().user().subject()") == "alice"
            assert room.do(f"answer = leaf({hour})") == f"alice {hour}"
    waited, went_on = room.do(TIMES)
    assert 6 * HOUR <= waited < 7 * HOUR
    assert went_on >= 48 * HOUR
    started = str(room.do('answer = flyte.run(remote.Task.get(name="room.leaf"), x=1).name'))
    room.end()
    # none but the attempt that has been here all the time, also where starting it took two
    assert house.lab.wait("bob", name).action.status.attempts == int(room.attempt)
    house.lab.wait("bob", started)
    run, below = shown(house, name), shown(house, started)
    assert (run["phase"], run["executed_by"]) == ("SUCCEEDED", "alice")
    assert (below["phase"], below["executed_by"]) == ("SUCCEEDED", "alice")
    assert below["outputs"] == {"o0": "alice 1"}


def test_t06_at_the_end_of_its_grant_a_run_is_nobody(house: House, site: tuple[Tower, Altered]) -> None:
    """Bounded: seven days after it was asked for, whatever it did meanwhile."""
    _, altered = site
    room = house.room("bob")
    altered.advance(7 * 24 * HOUR - 60)
    assert room.who() == "bob"
    altered.advance(60)
    told = room.who()
    assert told.startswith("401"), told
    assert "The grant of the run" in told
    house.abort("bob", room.run)
    room.gone()
