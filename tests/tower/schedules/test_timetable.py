"""When a schedule is due, above all when clocks are changed."""

from __future__ import annotations

from datetime import UTC, datetime
from itertools import islice, pairwise
from zoneinfo import ZoneInfo

import pytest
from flyteidl2.task import common_pb2
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from tests.tower.schedules.conftest import cron, every

from tower.control.timetable import Cron, Every, check_pace, read, upcoming
from tower.errors import Invalid

ZONES = (
    "UTC",
    "Europe/Berlin",
    "America/New_York",
    "America/Sao_Paulo",
    "Africa/Cairo",  # clocks change at midnight
    "Australia/Lord_Howe",  # by half an hour
    "Asia/Kathmandu",
    "Pacific/Apia",  # a day was left out
    "America/St_Johns",
)


def shown(table: Cron, start: datetime, count: int) -> list[str]:
    """The next times on the wall clock."""
    zone = ZoneInfo(table.zone)
    times = islice(upcoming(table, start.timestamp()), count)
    return [datetime.fromtimestamp(time, zone).strftime("%d %H:%M%z") for time in times]


SPRING = datetime(2026, 3, 29, 0, 30, tzinfo=ZoneInfo("Europe/Berlin"))
AUTUMN = datetime(2026, 10, 25, 0, 50, tzinfo=ZoneInfo("Europe/Berlin"))


@pytest.mark.parametrize(
    ("expression", "spring", "autumn"),
    [
        ("30 2 * * *", ["29 03:00+0200", "30 02:30+0200"], ["25 02:30+0200", "26 02:30+0100"]),
        ("0,30 2 * * *", ["29 03:00+0200", "30 02:00+0200"], ["25 02:00+0200", "25 02:30+0200"]),
        ("0 3 * * *", ["29 03:00+0200", "30 03:00+0200"], ["25 03:00+0100", "26 03:00+0100"]),
        ("0 2,3 * * *", ["29 03:00+0200", "30 02:00+0200"], ["25 02:00+0200", "25 03:00+0100"]),
        (
            "30 * * * *",
            ["29 01:30+0100", "29 03:30+0200", "29 04:30+0200"],
            ["25 01:30+0200", "25 02:30+0200", "25 02:30+0100", "25 03:30+0100"],
        ),
    ],
)
def test_when_clocks_are_changed(expression: str, spring: list[str], autumn: list[str]) -> None:
    table = Cron(expression, "Europe/Berlin")
    assert shown(table, SPRING, len(spring)) == spring
    assert shown(table, AUTUMN, len(autumn)) == autumn


def fields() -> st.SearchStrategy[str]:
    """Expressions that are due often enough to be tried."""

    def field(low: int, high: int) -> st.SearchStrategy[str]:
        number = st.integers(low, high)
        return st.one_of(
            st.just("*"),
            number.map(str),
            st.integers(2, 20).map("*/{}".format),
            st.lists(number, min_size=1, max_size=3).map(lambda found: ",".join(map(str, found))),
            st.tuples(number, number).map(lambda pair: f"{min(pair)}-{max(pair)}"),
        )

    return st.tuples(
        field(0, 59), field(0, 23), st.sampled_from(["*", "1-28/3"]), st.just("*"), st.just("*")
    ).map(" ".join)


def changes(zone: str) -> list[float]:
    """Moments at which a zone's clocks were or will be changed."""
    clock, step = ZoneInfo(zone), 86_400
    start = int(datetime(2011, 1, 1, tzinfo=UTC).timestamp())

    def offset(time: int) -> object:
        return datetime.fromtimestamp(time, clock).utcoffset()

    days = range(start, start + 366 * 16 * step, step)
    return [float(day) for day in days if offset(day) != offset(day + step)]


CHANGES = {zone: changes(zone) for zone in ZONES}


@st.composite
def moments(draw: st.DrawFn, zone: str) -> float:
    """Times, most of them shortly before clocks are changed."""
    anywhere = st.floats(1.3e9, 2.1e9)
    if not CHANGES[zone]:
        return draw(anywhere)
    near = st.builds(lambda at, before: at + before, st.sampled_from(CHANGES[zone]), st.floats(-7e3, 1e5))
    return draw(st.one_of(near, anywhere))


@settings(deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(data=st.data(), expression=fields(), zone=st.sampled_from(ZONES))
def test_due_times_rise_and_show_on_the_wall_clock(data: st.DataObject, expression: str, zone: str) -> None:
    table, clock = Cron(expression, zone), ZoneInfo(zone)
    start = data.draw(moments(zone))
    times = [start, *islice(upcoming(table, start), 30)]
    minutes, hours = (
        allowed(text, most) for text, most in zip(expression.split()[:2], (60, 24), strict=True)
    )
    for before, time in pairwise(times):
        assert time > before
        assert time % 60 == 0
        here = datetime.fromtimestamp(time, clock)
        earlier = datetime.fromtimestamp(time - 60, clock)
        after_a_gap = here.utcoffset() != earlier.utcoffset()
        assert after_a_gap or (here.minute in minutes and here.hour in hours)
        # whoever asks later, but before this time, is told the same
        assert table.after(max(before, time - 1)) == time
        assert table.after((before + time - 1) / 2) == time or before + 1 > time


def allowed(text: str, most: int) -> set[int]:
    """The values of a field, worked out once more."""
    found: set[int] = set()
    for part in text.split(","):
        span, _, step = part.partition("/")
        low, _, high = ("0", "-", str(most - 1)) if span == "*" else span.partition("-")
        found.update(range(int(low), int(high or low) + 1, int(step or 1)))
    return found


@settings(deadline=None)
@given(
    interval=st.integers(1, 100_000).map(lambda minutes: minutes * 60.0),
    anchor=st.integers(10**15, 2 * 10**15).map(lambda microseconds: microseconds / 1e6),
    time=st.floats(0.9e9, 2.2e9),
)
def test_an_interval_is_kept_from_its_start(interval: float, anchor: float, time: float) -> None:
    table = Every(interval, anchor)
    first, second = islice(upcoming(table, time), 2)
    assert first > time
    assert first >= anchor
    assert second - first == pytest.approx(interval)
    beats = round((first - anchor) / interval)
    assert first - anchor == pytest.approx(beats * interval, abs=1e-5)
    assert table.after(first) == second


@pytest.mark.parametrize(
    ("expression", "zone"),
    [
        ("* * * *", "UTC"),
        ("* * * * * *", "UTC"),
        ("60 * * * *", "UTC"),
        ("0 0 30 2 *", "UTC"),
        ("5#2/3 * * * *", "UTC"),
        ("x", "UTC"),
        ("0 0 * * " + "1," * 100 + "1", "UTC"),
        ("@reboot", "UTC"),
        ("0 0 * * *", "Mars/Olympus"),
        ("0 0 * * *", "../../etc/passwd"),
        ("0 0 * * *", "/etc/localtime"),
        ("0 0 * * *", ""),
        ("0 0 * * *", "Europe"),
    ],
)
def test_what_is_no_time(expression: str, zone: str) -> None:
    with pytest.raises(Invalid):
        Cron(expression, zone)


def test_what_is_read_from_the_wire() -> None:
    assert read(common_pb2.TriggerAutomationSpec(), since=0.0) is None
    assert read(cron("@daily", ""), since=0.0) == Cron("@daily", "UTC")
    assert read(every(5), since=100.0) == Every(300.0, 400.0)
    for spec in (
        every(0),
        every(60 * 24 * 400),
        common_pb2.TriggerAutomationSpec(schedule=common_pb2.Schedule()),
        common_pb2.TriggerAutomationSpec(artifact=common_pb2.ArtifactTrigger(artifact_name="a")),
    ):
        with pytest.raises(Invalid):
            read(spec, since=0.0)


def test_a_pace_is_bounded() -> None:
    check_pace(Cron("* * * * *", "UTC"), shortest=60.0, now=0.0)
    with pytest.raises(Invalid, match="one run in 300 seconds"):
        check_pace(Cron("0,1 12 * * *", "UTC"), shortest=300.0, now=0.0)
    with pytest.raises(Invalid):
        check_pace(Every(120.0, 0.0), shortest=300.0, now=0.0)


@pytest.mark.parametrize("seconds", [10**15, -(10**15), 253_402_300_799, -1])
def test_an_interval_starts_where_there_are_dates(seconds: int) -> None:
    """What is due then is shown on pages that others look at."""
    declared = every(1)
    declared.schedule.rate.start_time.seconds = seconds
    with pytest.raises(Invalid, match="between the years"):
        read(declared, since=0.0)
