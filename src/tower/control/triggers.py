"""What a trigger declares: read from the wire, checked against the task that it is to start.

A trigger keeps the inputs as they were given; the time of the firing is put in when it fires.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

from flyteidl2.core import literals_pb2
from flyteidl2.task import common_pb2, run_pb2, task_definition_pb2

from tower.control import runspecs, specs, timetable
from tower.control.inputs import Inputs
from tower.control.interface import Interface
from tower.errors import Exhausted, Invalid
from tower.identity.principal import Principal
from tower.settings import Settings
from tower.store.schedules import TriggerRow

MAX_INPUTS = 256 * 1024
MAX_DESCRIPTION = 1000
NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]{0,99}")

_FIRING_TIME = "_u_kickoff_time_input_arg"
"""Where the official SDK names the input that takes the time of the firing, beside the schedule itself."""


@dataclass(frozen=True, slots=True)
class Declared:
    """A trigger as it came: its inputs as a message, or as the URI of an earlier upload."""

    name: str
    automation: common_pb2.TriggerAutomationSpec
    inputs: common_pb2.Inputs
    run_spec: run_pb2.RunSpec
    active: bool
    inputs_uri: str = ""
    description: str = ""


@dataclass(frozen=True, slots=True)
class Checked:
    """A trigger that fits its task, serialised."""

    name: str
    automation: bytes
    inputs: bytes
    run_spec: bytes
    active: bool
    description: str


async def check(
    declared: Declared,
    principal: Principal,
    *,
    spec: task_definition_pb2.TaskSpec,
    place: tuple[str, str],
    inputs: Inputs,
    settings: Settings,
    now: float,
) -> Checked:
    """Raise Invalid, naming what, for a trigger that could not start a run of this specification."""
    if not NAME.fullmatch(declared.name):
        raise Invalid(
            "The name of a trigger is missing or not one that a trigger can have.",
            hint="It has at most 100 letters, digits and '_.-'.",
        )
    table = timetable.read(declared.automation, since=now)
    if table is not None:
        timetable.check_pace(table, shortest=settings.shortest_interval, now=now)
    specs.check_identity(declared.run_spec.security_context)
    given = declared.inputs
    if declared.inputs_uri:
        given = await inputs.uploaded(declared.inputs_uri, project=place[0], domain=place[1])
    moment = declared.automation.schedule.kickoff_time_input_arg
    kept = common_pb2.Inputs(
        literals=[each for each in given.literals if each.name != moment],
        context=given.context,
    )
    if kept.ByteSize() > MAX_INPUTS:
        raise Exhausted(f"The inputs of a trigger are larger than {MAX_INPUTS} bytes.")
    data = kept.SerializeToString(deterministic=True)
    await inputs.keep(*place, data, by=principal)  # for what it refuses
    Interface(spec).bind(at(kept, moment, now))
    run_spec = runspecs.clean(declared.run_spec, principal=principal, settings=settings)
    bare = run_pb2.RunSpec()
    bare.CopyFrom(run_spec)
    bare.ClearField("relation")
    return Checked(
        name=declared.name,
        automation=declared.automation.SerializeToString(deterministic=True),
        inputs=data,
        run_spec=bare.SerializeToString(deterministic=True),
        active=declared.active,
        description=declared.description[:MAX_DESCRIPTION],
    )


def automation(row: TriggerRow) -> common_pb2.TriggerAutomationSpec:
    """What starts the trigger."""
    made: common_pb2.TriggerAutomationSpec = common_pb2.TriggerAutomationSpec.FromString(row.automation)
    return made


def table(row: TriggerRow) -> timetable.Timetable | None:
    """When the trigger is due; None when no time starts it."""
    return timetable.read(automation(row), since=row.since)


def fill(row: TriggerRow, inputs: common_pb2.Inputs, time: float) -> common_pb2.Inputs:
    """The inputs with the time of the firing, where an input takes it and was not given a value.

    The official SDK marks inputs in which it was not: there a value is the default of the task.
    """
    moment = automation(row).schedule.kickoff_time_input_arg
    marked = any(each.key == _FIRING_TIME for each in inputs.context)
    if not marked and any(each.name == moment for each in inputs.literals):
        return inputs
    bare = common_pb2.Inputs(
        literals=[each for each in inputs.literals if each.name != moment],
        context=[each for each in inputs.context if each.key != _FIRING_TIME],
    )
    return at(bare, moment, time)


def at(inputs: common_pb2.Inputs, name: str, time: float) -> common_pb2.Inputs:
    """The inputs with the time of the firing under `name`, if there is one."""
    if not name:
        return inputs
    made = common_pb2.Inputs()
    made.CopyFrom(inputs)
    literal = literals_pb2.Literal()
    literal.scalar.primitive.datetime.FromMicroseconds(round(time * 1e6))
    made.literals.add(name=name).value.CopyFrom(literal)
    return made
