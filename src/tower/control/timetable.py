"""When a schedule is due: cron expressions on the wall clock of a zone, and fixed intervals. Pure.

The expressions are read by `cronsim`, on the calendar alone; what happens when clocks are changed is decided
here. A time that the clocks skip is due at the moment after the gap, once however many fall into it; a time
that comes twice is due the first time only. Where the hour is `*` or `*/n` the schedule just goes on: it is
due in both passes of what comes twice, and nothing takes the place of what is skipped.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from itertools import islice, pairwise
from typing import Protocol
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

from cronsim import CronSim, CronSimError
from flyteidl2.task import common_pb2

from tower.errors import Invalid

MAX_EXPRESSION = 100
ALIASES = {
    "@yearly": "0 0 1 1 *",
    "@annually": "0 0 1 1 *",
    "@monthly": "0 0 1 * *",
    "@weekly": "0 0 * * 0",
    "@daily": "0 0 * * *",
    "@midnight": "0 0 * * *",
    "@hourly": "0 * * * *",
}
_ZONE = re.compile(r"[A-Za-z][A-Za-z0-9_+-]{0,31}(/[A-Za-z0-9_+-]{1,32}){0,2}")
_MINUTE = timedelta(minutes=1)
_TRIED = 200
"""So many times of an expression are looked at, to tell whether two come too close."""

_SECONDS = {
    common_pb2.FIXED_RATE_UNIT_MINUTE: 60,
    common_pb2.FIXED_RATE_UNIT_HOUR: 3600,
    common_pb2.FIXED_RATE_UNIT_DAY: 86_400,
}
_MAX_INTERVAL = 366 * 86_400
_LATEST = 32_503_680_000.0
"""The year 3000: what is due then can be shown as a date."""


class Timetable(Protocol):
    """When a schedule is due. Times are seconds since the epoch."""

    def after(self, time: float) -> float | None:
        """The first due time later than this one, or None when there is none any more."""

    def spoken(self) -> str:
        """In words, for people."""


@dataclass(frozen=True, slots=True)
class Every:
    """Every `interval` seconds, in whole microseconds; `anchor` is the first of the times."""

    interval: float
    anchor: float

    def after(self, time: float) -> float | None:
        """The first due time later than this one."""
        anchor, interval = round(self.anchor * 1e6), round(self.interval * 1e6)
        count = max(0, (math.floor(time * 1e6) - anchor) // interval)
        while (found := (anchor + count * interval) / 1e6) <= time:
            count += 1
        return found

    def spoken(self) -> str:
        """In words."""
        minutes = round(self.interval / 60)
        return "every minute" if minutes == 1 else f"every {minutes} minutes"


@dataclass(frozen=True, slots=True)
class Cron:
    """A cron expression of five fields, or an alias of one, on the wall clock of a zone."""

    expression: str
    zone: str
    _fields: str = field(init=False, repr=False, compare=False)
    _clock: ZoneInfo = field(init=False, repr=False, compare=False)
    _through: bool = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        """Raises Invalid for what is no expression or no zone, and for one that never comes."""
        fields = ALIASES.get(self.expression.strip().lower(), self.expression)
        if len(self.expression) > MAX_EXPRESSION or len(fields.split()) != 5:
            raise Invalid(
                "A cron expression has five fields: minute, hour, day of month, month, day of week.",
                hint='For example "0 9 * * MON-FRI", or @daily.',
            )
        object.__setattr__(self, "_fields", fields)
        object.__setattr__(self, "_clock", _zone(self.zone))
        object.__setattr__(self, "_through", fields.split()[1].startswith("*"))
        try:
            first = next(CronSim(fields, datetime(2000, 1, 1)), None)  # noqa: DTZ001  (a calendar, no clock)
        except (CronSimError, AssertionError, TypeError, ValueError) as error:
            said = str(error) if isinstance(error, CronSimError) else "a field cannot be read"
            raise Invalid(f"{self.expression!r} is no cron expression: {said}.") from None
        if first is None:
            raise Invalid(f"{self.expression!r} names a day that there never is.")

    def after(self, time: float) -> float | None:
        """The first due time later than this one."""
        here = datetime.fromtimestamp(time, self._clock)
        passes = (self._first(here, fold=0, later=time), self._first(here, fold=1, later=time))
        found = [each for each in (passes if self._through else passes[:1]) if each is not None]
        return min(found, default=None)

    def spoken(self) -> str:
        """In words."""
        return f"{self.expression} ({self.zone})"

    def _first(self, here: datetime, *, fold: int, later: float) -> float | None:
        """The first time later than `later`, where of a wall-clock time that comes twice `fold` is meant."""
        start = here.replace(tzinfo=None, fold=0) - _repeated(here) - _MINUTE
        for wall in _wall_times(self._fields, start):
            at = _instant(wall, self._clock, fold=fold, skipped=None if self._through else _MINUTE)
            if at is not None and at > later:
                return at
        return None


def read(spec: common_pb2.TriggerAutomationSpec, *, since: float) -> Timetable | None:
    """The timetable of a trigger, or None for one that no time starts. Raises Invalid.

    An interval that names no start begins at `since`, so that it is due an interval later for the first time.
    """
    match spec.WhichOneof("automation"):
        case None:
            return None
        case "schedule":
            pass
        case _:
            raise Invalid("Triggers on artifacts are not offered by this Tower.", hint="Use a schedule.")
    schedule = spec.schedule
    match schedule.WhichOneof("expression"):
        case "rate":
            return _every(schedule.rate, since=since)
        case "cron":
            return Cron(schedule.cron.expression, schedule.cron.timezone or "UTC")
        case "cron_expression":
            return Cron(schedule.cron_expression, "UTC")
        case _:
            raise Invalid("The schedule says no time.", hint="Use flyte.Cron or flyte.FixedRate.")


def check_pace(table: Timetable, *, shortest: float, now: float) -> None:
    """Raise Invalid for a timetable that is due more often than every `shortest` seconds."""
    times = list(islice(upcoming(table, now), _TRIED))
    if any(later - earlier < shortest for earlier, later in pairwise(times)):
        raise Invalid(f"A schedule starts at most one run in {shortest:.0f} seconds here.")


def upcoming(table: Timetable, time: float) -> Iterator[float]:
    """The due times after this one."""
    while (found := table.after(time)) is not None:
        yield found
        time = found


def _every(rate: common_pb2.FixedRate, *, since: float) -> Every:
    interval = rate.value * _SECONDS.get(rate.unit, 0)
    if not 0 < interval <= _MAX_INTERVAL:
        raise Invalid("An interval has a minute at least and a year at most.")
    if rate.HasField("start_time"):
        try:
            start = rate.start_time.ToMicroseconds() / 1e6
        except ValueError:
            start = -1.0
        if not 0 <= start <= _LATEST:
            raise Invalid("An interval starts between the years 1970 and 3000.")
        return Every(interval, start)
    return Every(interval, since + interval)


def _zone(name: str) -> ZoneInfo:
    try:
        if _ZONE.fullmatch(name):
            return ZoneInfo(name)
    except (ZoneInfoNotFoundError, ValueError, OSError):
        pass
    raise Invalid(f"There is no time zone {name[:64]!r}.", hint='Name one as "Europe/Berlin" or "UTC".')


def _wall_times(fields: str, start: datetime) -> Iterator[datetime]:
    """The times of an expression after `start`, on the calendar alone."""
    return iter(CronSim(fields, start))


def _repeated(here: datetime) -> timedelta:
    """How much of the wall clock was set back around this time: nothing but when clocks are changed."""
    first, second = here.replace(fold=0).utcoffset(), here.replace(fold=1).utcoffset()
    assert first is not None
    assert second is not None
    return max(first - second, timedelta())


def _instant(wall: datetime, zone: ZoneInfo, *, fold: int, skipped: timedelta | None) -> float | None:
    """The moment of a wall-clock time; one that the clocks skip moves on by `skipped`, or is None."""
    at = wall.replace(tzinfo=zone, fold=fold)
    while at.astimezone(UTC).astimezone(zone).replace(tzinfo=None) != at.replace(tzinfo=None):
        if skipped is None:
            return None
        at += skipped
    return at.timestamp()
