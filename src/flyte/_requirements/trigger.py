"""What starts a task without a caller: a trigger, its schedule, and the inputs that it passes."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import KW_ONLY, dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any, Final

from flyte._requirements.names import check_description
from flyte._requirements.variables import check_variables
from flyte.errors import DeclarationError

ALIASES = frozenset({"@yearly", "@annually", "@monthly", "@weekly", "@daily", "@midnight", "@hourly"})
_NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]{0,99}")


class _TriggerTime:
    """The type of `TriggerTime`."""

    __slots__ = ()

    def __repr__(self) -> str:
        return "flyte.TriggerTime"


TriggerTime: Final = _TriggerTime()
"""Among the inputs of a trigger: the time that the run was due. The input is a datetime."""


@dataclass(frozen=True, slots=True)
class Cron:
    """The times of a cron expression, on the wall clock of a time zone.

    A time that the clocks skip counts as the moment after the gap, and a time that comes twice counts once.
    Where the hour is `*` or `*/n` the schedule just goes on.

    :param expression: minute, hour, day of month, month, day of week; or an alias such as `@daily`.
    :param timezone: a name such as "Europe/Berlin".
    """

    expression: str
    timezone: str = "UTC"

    def __post_init__(self) -> None:
        if not isinstance(self.expression, str) or not isinstance(self.timezone, str) or not self.timezone:
            raise DeclarationError("A cron expression and its time zone are strings.")
        if self.expression.lower() not in ALIASES and len(self.expression.split()) != 5:
            raise DeclarationError(
                f"{self.expression!r} has not the five fields of a cron expression.",
                hint='Write minute, hour, day of month, month, day of week: "0 9 * * MON-FRI".',
            )


@dataclass(frozen=True, slots=True)
class FixedRate:
    """Every so many minutes.

    :param interval_minutes: a number of minutes, or a timedelta of whole minutes.
    :param start_time: the first time; without one it is an interval after the activation. One without a time
        zone is in UTC.
    """

    interval_minutes: int
    start_time: datetime | None = None

    def __init__(self, interval_minutes: int | timedelta, start_time: datetime | None = None) -> None:
        minutes: Any = interval_minutes
        if isinstance(interval_minutes, timedelta):
            minutes = interval_minutes / timedelta(minutes=1)
        if isinstance(minutes, bool) or not isinstance(minutes, (int, float)) or minutes != int(minutes):
            raise DeclarationError("The interval of a FixedRate is a number of whole minutes.")
        if minutes < 1:
            raise DeclarationError("The interval of a FixedRate is at least a minute.")
        if start_time is not None and not isinstance(start_time, datetime):
            raise DeclarationError("start_time of a FixedRate is a datetime.")
        if start_time is not None and start_time.tzinfo is None:
            start_time = start_time.replace(tzinfo=UTC)
        object.__setattr__(self, "interval_minutes", int(minutes))
        object.__setattr__(self, "start_time", start_time)


@dataclass(frozen=True)
class Trigger:
    """Runs a task on a schedule, as the person who activates it, in the version deployed with it.

    ::

        @env.task(triggers=flyte.Trigger("nightly", flyte.Cron("0 2 * * *", timezone="Europe/Berlin")))
        async def report(day: datetime) -> None: ...

    :param name: unique among the triggers of a task.
    :param automation: `Cron`, `FixedRate`, or None for one that is started by hand only.
    :param auto_activate: whether deploying it activates it, to run as who deploys.
    :param inputs: of the task; `TriggerTime` stands for the time that a run was due.
    :param env_vars: set in the runs that it starts.
    """

    name: str
    automation: Cron | FixedRate | None = None
    _: KW_ONLY
    description: str = ""
    auto_activate: bool = True
    inputs: Mapping[str, Any] = field(default_factory=dict)
    env_vars: Mapping[str, str] = field(default_factory=dict)
    labels: Mapping[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if not isinstance(self.name, str) or not _NAME.fullmatch(self.name):
            raise DeclarationError(
                f"{self.name!r} cannot be the name of a trigger.",
                hint="Use at most 100 letters, digits, '_', '.' and '-'.",
            )
        what = f"the trigger {self.name!r}"
        if self.automation is not None and not isinstance(self.automation, (Cron, FixedRate)):
            raise DeclarationError(f"The automation of {what} must be flyte.Cron or flyte.FixedRate.")
        inputs = dict(self.inputs or {})
        if sum(value is TriggerTime for value in inputs.values()) > 1:
            raise DeclarationError(f"At most one input of {what} is flyte.TriggerTime.")
        object.__setattr__(self, "inputs", inputs)
        object.__setattr__(self, "env_vars", check_variables(self.env_vars, what=what))
        object.__setattr__(self, "labels", dict(self.labels or {}))
        object.__setattr__(self, "description", check_description(self.description, what=what))

    @classmethod
    def minutely(
        cls, trigger_time_input_key: str | None = None, *, name: str = "minutely", **more: Any
    ) -> Trigger:
        """Every minute; the input of that name takes the time."""
        return cls._regular("* * * * *", trigger_time_input_key, name, more)

    @classmethod
    def hourly(
        cls, trigger_time_input_key: str | None = None, *, name: str = "hourly", **more: Any
    ) -> Trigger:
        """At every full hour."""
        return cls._regular("0 * * * *", trigger_time_input_key, name, more)

    @classmethod
    def daily(cls, trigger_time_input_key: str | None = None, *, name: str = "daily", **more: Any) -> Trigger:
        """At midnight, UTC."""
        return cls._regular("0 0 * * *", trigger_time_input_key, name, more)

    @classmethod
    def weekly(
        cls, trigger_time_input_key: str | None = None, *, name: str = "weekly", **more: Any
    ) -> Trigger:
        """On Sundays at midnight, UTC."""
        return cls._regular("0 0 * * 0", trigger_time_input_key, name, more)

    @classmethod
    def monthly(
        cls, trigger_time_input_key: str | None = None, *, name: str = "monthly", **more: Any
    ) -> Trigger:
        """On the first of the month at midnight, UTC."""
        return cls._regular("0 0 1 * *", trigger_time_input_key, name, more)

    @classmethod
    def _regular(cls, expression: str, key: str | None, name: str, more: dict[str, Any]) -> Trigger:
        inputs = dict(more.pop("inputs", None) or {})
        if key is not None:
            inputs[key] = TriggerTime
        return cls(name, Cron(expression), inputs=inputs, **more)


def as_triggers(value: object, *, what: str) -> tuple[Trigger, ...]:
    """A trigger or several as a tuple. Raises DeclarationError, also for two of one name."""
    triggers: tuple[object, ...] = (value,)
    if isinstance(value, Iterable):
        triggers = tuple(value)
    checked = tuple(each for each in triggers if isinstance(each, Trigger))
    if len(checked) != len(triggers):
        raise DeclarationError(f"triggers of {what} must be flyte.Trigger(...), or several of them.")
    names = [each.name for each in checked]
    if len(set(names)) != len(names):
        raise DeclarationError(f"Two triggers of {what} have the same name.")
    return checked
