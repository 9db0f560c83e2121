"""Triggers as messages."""

from __future__ import annotations

from flyteidl2.core import literals_pb2
from flyteidl2.task import common_pb2, run_pb2, task_definition_pb2

from flyte._interface import Interface
from flyte._requirements import Cron, FixedRate, Trigger, TriggerTime
from flyte.errors import DeclarationError


def trigger_message(trigger: Trigger, *, interface: Interface, task: str) -> task_definition_pb2.TaskTrigger:
    """The message of a trigger of a task with this interface. Raises DeclarationError naming an input."""
    what = f"the trigger {trigger.name!r} of {task}"
    unknown = [name for name in trigger.inputs if name not in interface.by_name]
    if unknown:
        known = ", ".join(interface.by_name) or "none"
        raise DeclarationError(f"The task has no input {unknown[0]!r} ({what}); it takes: {known}.")
    missing = [each.name for each in interface.inputs if each.required and each.name not in trigger.inputs]
    if missing:
        raise DeclarationError(
            f"The input {missing[0]!r} has no value in {what}.",
            hint="Nobody is there to give one: put it into inputs.",
        )
    inputs, moment = common_pb2.Inputs(), ""
    for name, value in trigger.inputs.items():
        if value is TriggerTime:
            moment = name
        else:
            literal = interface.by_name[name].codec.encode(value, f"the input {name!r} of {what}")
            inputs.literals.add(name=name).value.CopyFrom(literal)
    run_spec = run_pb2.RunSpec()
    if trigger.env_vars:
        run_spec.envs.values.extend(
            literals_pb2.KeyValuePair(key=name, value=value)
            for name, value in sorted(trigger.env_vars.items())
        )
    run_spec.labels.values.update(trigger.labels)
    if not trigger.labels:
        run_spec.ClearField("labels")
    return task_definition_pb2.TaskTrigger(
        name=trigger.name,
        spec=task_definition_pb2.TaskTriggerSpec(
            active=trigger.auto_activate,
            inputs=inputs,
            run_spec=run_spec,
            description=trigger.description,
        ),
        automation_spec=_automation(trigger.automation, moment),
    )


def _automation(automation: Cron | FixedRate | None, moment: str) -> common_pb2.TriggerAutomationSpec:
    if automation is None:
        return common_pb2.TriggerAutomationSpec(type=common_pb2.TYPE_NONE)
    schedule = common_pb2.Schedule(kickoff_time_input_arg=moment)
    if isinstance(automation, Cron):
        schedule.cron.expression, schedule.cron.timezone = automation.expression, automation.timezone
    else:
        schedule.rate.value = automation.interval_minutes
        schedule.rate.unit = common_pb2.FIXED_RATE_UNIT_MINUTE
        if automation.start_time is not None:
            schedule.rate.start_time.FromDatetime(automation.start_time)
    return common_pb2.TriggerAutomationSpec(type=common_pb2.TYPE_SCHEDULE, schedule=schedule)
