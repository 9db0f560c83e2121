"""What a trigger declares, and the message that it becomes."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta, timezone
from typing import Any

import pytest
from flyteidl2.task import common_pb2

import flyte
from flyte._deploy.triggers import trigger_message
from flyte.errors import DeclarationError


def task_with(*triggers: flyte.Trigger) -> Any:
    env = flyte.TaskEnvironment(name="clock")

    @env.task(triggers=triggers)
    async def tick(at: datetime, count: int, text: str = "x") -> None: ...

    return tick


def message(trigger: flyte.Trigger) -> Any:
    task = task_with(trigger)
    return trigger_message(task.triggers[0], interface=task.interface, task=task.name)


def test_a_cron_trigger_on_the_wire() -> None:
    made = message(
        flyte.Trigger(
            "daily",
            flyte.Cron("0 9 * * *", timezone="Europe/Berlin"),
            inputs={"at": flyte.TriggerTime, "count": 3},
            env_vars={"A": "b"},
            labels={"team": "x"},
            description="every morning",
        )
    )
    assert made.name == "daily"
    assert made.spec.active
    assert made.spec.description == "every morning"
    assert [(each.name, each.value.scalar.primitive.integer) for each in made.spec.inputs.literals] == [
        ("count", 3)
    ]
    assert [(pair.key, pair.value) for pair in made.spec.run_spec.envs.values] == [("A", "b")]
    assert dict(made.spec.run_spec.labels.values) == {"team": "x"}
    automation = made.automation_spec
    assert automation.type == common_pb2.TYPE_SCHEDULE
    assert automation.schedule.kickoff_time_input_arg == "at"
    assert automation.schedule.cron == common_pb2.Cron(expression="0 9 * * *", timezone="Europe/Berlin")


@pytest.mark.parametrize(
    ("interval", "minutes"), [(5, 5), (timedelta(hours=2), 120), (timedelta(minutes=1), 1)]
)
def test_an_interval_on_the_wire(interval: int | timedelta, minutes: int) -> None:
    east = timezone(timedelta(hours=2))
    rate = flyte.FixedRate(interval, start_time=datetime(2026, 1, 1, 2, tzinfo=east))
    made = message(
        flyte.Trigger("t", rate, inputs={"at": flyte.TriggerTime, "count": 1}, auto_activate=False)
    )
    assert not made.spec.active
    found = made.automation_spec.schedule.rate
    assert (found.value, found.unit) == (minutes, common_pb2.FIXED_RATE_UNIT_MINUTE)
    assert found.start_time.ToDatetime(tzinfo=UTC) == datetime(2026, 1, 1, tzinfo=UTC)
    assert flyte.FixedRate(1, start_time=datetime(2026, 1, 1)).start_time == datetime(2026, 1, 1, tzinfo=UTC)  # noqa: DTZ001


def test_one_that_is_started_by_hand_and_the_regular_ones() -> None:
    inputs = {"at": flyte.TriggerTime, "count": 1}
    assert message(flyte.Trigger("t", inputs=inputs)).automation_spec.type == common_pb2.TYPE_NONE
    for name in ("minutely", "hourly", "daily", "weekly", "monthly"):
        made = message(getattr(flyte.Trigger, name)("at", inputs={"count": 1}))
        assert made.name == name
        assert made.automation_spec.schedule.kickoff_time_input_arg == "at"
        assert len(made.automation_spec.schedule.cron.expression.split()) == 5


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda: flyte.Cron("* * * *"), "five fields"),
        (lambda: flyte.Cron("0 9 * * *", timezone=""), "strings"),
        (lambda: flyte.FixedRate(0), "at least a minute"),
        (lambda: flyte.FixedRate(timedelta(seconds=90)), "whole minutes"),
        (lambda: flyte.FixedRate(True), "whole minutes"),
        (lambda: flyte.FixedRate(5, start_time="now"), "datetime"),  # type: ignore[arg-type]
        (lambda: flyte.Trigger("a/b"), "name of a trigger"),
        (lambda: flyte.Trigger("t", "0 9 * * *"), "flyte.Cron or flyte.FixedRate"),  # type: ignore[arg-type]
        (
            lambda: flyte.Trigger("t", inputs={"a": flyte.TriggerTime, "b": flyte.TriggerTime}),
            "At most one input",
        ),
        (lambda: flyte.Trigger("t", env_vars={"_U_X": "1"}), "set by the platform"),
        (lambda: task_with(flyte.Trigger("t"), flyte.Trigger("t")), "same name"),
        (lambda: task_with("daily"), "must be flyte.Trigger"),  # type: ignore[arg-type]
        (lambda: message(flyte.Trigger("t", inputs={"nothing": 1})), "no input 'nothing'"),
        (lambda: message(flyte.Trigger("t", inputs={"count": 1})), "'at' has no value"),
    ],
)
def test_what_cannot_be_declared(make: Any, words: str) -> None:
    with pytest.raises(DeclarationError, match=words):
        make()


def test_an_input_of_another_type_is_refused_when_it_is_deployed() -> None:
    with pytest.raises(flyte.errors.FlyteError, match="count"):
        message(flyte.Trigger("t", inputs={"at": flyte.TriggerTime, "count": "three"}))
