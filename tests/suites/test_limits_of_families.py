"""Depth, breadth and circles on a whole Tower with small limits: what a task is told, in the task."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from tests.altered import Altered
from tests.suites.rooms import House, Room, deploy
from tests.threats.conftest import opened
from tests.tower_process import Tower

pytestmark = pytest.mark.xdist_group("time-passes")

MAPPED = """
    try:
        answer = list(flyte.map(leaf, range(COUNT)))
    except Exception as error:
        answer = [type(error).__name__, str(error)]
"""


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[House, Altered]]:
    """No task asks for more than four others or starts more than six runs; nobody has more than five open."""
    folder = tmp_path_factory.mktemp("limits")
    altered = Altered(folder / "altered", max_children=4, max_started=6, max_open_runs=5)
    with Tower.started(folder / "home", before=altered.before) as tower:
        tower.add_people()
        for lab in opened(tower):
            deploy(lab, folder)
            with House.opened(lab, "inside") as made:
                yield made, altered


@pytest.fixture
def house(site: tuple[House, Altered]) -> House:
    """Later than before: what is open is counted anew."""
    made, altered = site
    altered.advance(60.0)
    return made


@pytest.fixture
def room(house: House) -> Iterator[Room]:
    made = house.room("alice")
    yield made
    made.end()
    house.lab.wait("alice", made.run)


def test_so_many_sub_tasks_and_no_more(room: Room) -> None:
    assert room.do(MAPPED.replace("COUNT", "4")) == [f"alice {number}" for number in range(4)]
    kind, message = room.do(MAPPED.replace("COUNT", "1"))
    assert kind == "ResourceExhaustedError"
    assert "at most 4 other tasks" in message
    assert room.who() == "alice"


def test_more_at_once_than_there_may_be(room: Room) -> None:
    kind, message = room.do(MAPPED.replace("COUNT", "5"))
    assert kind == "ResourceExhaustedError"
    assert "at most 4 other tasks" in message


STARTED = """
    answer = []
    try:
        while len(answer) < 20:
            task = remote.Task.get(name="room.stay")
            answer.append(flyte.run(task, port=PORT, word=str(len(answer))).name)
    except Exception as error:
        answer += [type(error).__name__, str(error)]
"""


def test_runs_from_inside_count_as_their_persons(house: House, room: Room) -> None:
    *names, kind, message = room.do(STARTED.replace("PORT", str(house.port)))
    assert kind == "ResourceExhaustedError"
    assert "5 runs that have not ended" in message
    assert len(names) == 4
    assert room.who() == "alice"
    started = [house.next() for _ in names]
    for each in started:
        house.abort("alice", each.run)
        each.gone()
        house.lab.wait("alice", each.run)


def test_so_many_runs_and_no_more(site: tuple[House, Altered], house: House, room: Room) -> None:
    """Those that have ended count, too: nobody starts one after another for ever."""
    for most in (4, 2):
        names = room.do(STARTED.replace("PORT", str(house.port)).replace("20", str(most)))
        assert len(names) == most, names
        for each in [house.next() for _ in names]:
            house.abort("alice", each.run)
            each.gone()
            house.lab.wait("alice", each.run)
        site[1].advance(60.0)
    kind, message = room.do(STARTED.replace("PORT", str(house.port)))
    assert kind == "ResourceExhaustedError"
    assert "at most 6 runs" in message


def test_a_circle_and_a_depth_are_told(room: Room) -> None:
    """The task that asks for itself, as it was asked for."""
    told = room.do(
        """
        try:
            mine = remote.default().fetch_execution(os.environ["RUN_NAME"]).inputs
            answer = flyte.run(remote.Task.get(name="room.stay"), **mine).name
        except Exception as error:
            answer = f"{type(error).__name__}: {error}"
        """
    )
    assert told.startswith("FailedPreconditionError")
    assert "same inputs" in told
