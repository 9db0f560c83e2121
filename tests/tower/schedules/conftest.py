"""A house with the trigger service, people and a task to start; the clock is the test's."""

from __future__ import annotations

from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from flyteidl2.common import identifier_pb2
from flyteidl2.task import common_pb2, task_definition_pb2, task_service_pb2
from flyteidl2.trigger import trigger_definition_pb2, trigger_service_pb2
from sqlalchemy import select
from tests.rpc_world import DOMAIN, PROJECT, SIMPLE, Caller, RpcWorld, named, task_id, task_spec

from tower.control.schedules import Declared
from tower.store import runs
from tower.store.schedules import TriggerKey, TriggerRow, get
from tower.store.schema import actions

__all__ = ["START", "Clockwork", "Declared", "clockwork", "cron", "every", "name_of"]

START = datetime(2026, 3, 2, 8, 0, tzinfo=UTC).timestamp()
"""A Monday, eight in the morning."""


def cron(expression: str = "0 9 * * *", zone: str = "UTC", *, moment: str = "") -> Any:
    """The automation of a cron expression."""
    return common_pb2.TriggerAutomationSpec(
        type=common_pb2.TYPE_SCHEDULE,
        schedule=common_pb2.Schedule(
            cron=common_pb2.Cron(expression=expression, timezone=zone), kickoff_time_input_arg=moment
        ),
    )


def every(minutes: int, **more: Any) -> Any:
    """The automation of an interval."""
    rate = common_pb2.FixedRate(value=minutes, unit=common_pb2.FIXED_RATE_UNIT_MINUTE, **more)
    return common_pb2.TriggerAutomationSpec(
        type=common_pb2.TYPE_SCHEDULE, schedule=common_pb2.Schedule(rate=rate)
    )


def name_of(name: str = "daily", task: str = "env.main") -> identifier_pb2.TriggerName:
    """A trigger's name on the wire."""
    return identifier_pb2.TriggerName(org="127", project=PROJECT, domain=DOMAIN, name=name, task_name=task)


@dataclass
class Clockwork:
    """The world with short ways to set triggers up and to let time pass."""

    rpc: RpcWorld
    people: dict[str, Caller] = field(default_factory=dict)

    @property
    def now(self) -> float:
        return self.rpc.world.clock.time

    async def person(self, name: str, role: str | None = "contributor", **more: Any) -> Caller:
        """Somebody with a key."""
        self.people[name] = self.rpc.caller(await self.rpc.world.person(name, role, **more))
        return self.people[name]

    async def deploy(
        self,
        who: str,
        version: str = "v1",
        *,
        automation: Any = None,
        name: str = "daily",
        inputs: dict[str, Any] | None = None,
        active: bool = True,
        moment: bool = False,
        **more: Any,
    ) -> None:
        """Deploy the task with one trigger."""
        spec = task_spec(extra={"at": SIMPLE.DATETIME} if moment else None)
        trigger = task_definition_pb2.TaskTrigger(
            name=name,
            automation_spec=automation or cron(moment="at" if moment else ""),
            spec=task_definition_pb2.TaskTriggerSpec(
                active=active, inputs=named({"x": 1} if inputs is None else inputs), **more
            ),
        )
        caller = self.people[who]
        await caller.tasks.deploy_task(
            task_service_pb2.DeployTaskRequest(
                task_id=task_id("env.main", version), spec=spec, triggers=[trigger]
            ),
            headers=caller.headers,
        )

    async def switch(self, who: str, active: bool, *names: str) -> None:
        """UpdateTriggers."""
        caller = self.people[who]
        request = trigger_service_pb2.UpdateTriggersRequest(
            names=[name_of(each) for each in names or ("daily",)], active=active
        )
        await caller.triggers.update_triggers(request, headers=caller.headers)

    async def delete(self, who: str, name: str = "daily") -> None:
        """DeleteTriggers."""
        caller = self.people[who]
        request = trigger_service_pb2.DeleteTriggersRequest(names=[name_of(name)])
        await caller.triggers.delete_triggers(request, headers=caller.headers)

    async def set(self, who: str, *, version: str = "", name: str = "daily", revision: int = 0) -> Any:
        """DeployTrigger."""
        caller = self.people[who]
        spec = trigger_definition_pb2.TriggerSpec(inputs=named({"x": 1}), active=True, task_version=version)
        request = trigger_service_pb2.DeployTriggerRequest(
            name=name_of(name), revision=revision, spec=spec, automation_spec=cron()
        )
        return (await caller.triggers.deploy_trigger(request, headers=caller.headers)).trigger

    async def details(self, who: str, name: str = "daily") -> trigger_definition_pb2.TriggerDetails:
        """GetTriggerDetails."""
        caller = self.people[who]
        request = trigger_service_pb2.GetTriggerDetailsRequest(name=name_of(name))
        return (await caller.triggers.get_trigger_details(request, headers=caller.headers)).trigger

    def row(self, name: str = "daily") -> TriggerRow:
        """The trigger as stored."""
        key = TriggerKey(PROJECT, DOMAIN, "env.main", name)
        found = self.rpc.world.db.read_now(lambda reader: get(reader, key))
        assert found is not None
        return found

    async def pass_until(self, *date: int) -> int:
        """Move the clock to a time of 2026, and fire what is due then; how many triggers were."""
        self.rpc.world.clock.time = datetime(2026, *date, tzinfo=UTC).timestamp()
        return await self.rpc.firing.fire_due()

    async def wait(self, seconds: float) -> int:
        """Move the clock, and fire what is due then."""
        self.rpc.world.clock.time += seconds
        return await self.rpc.firing.fire_due()

    def inputs(self) -> common_pb2.Inputs:
        """What the task takes."""
        return named({"x": 1})

    async def given(self, run: Any) -> dict[str, Any]:
        """The inputs of a run, by name."""
        inputs = common_pb2.Inputs.FromString(await self.rpc.inputs.read(run))
        return {each.name: each.value.scalar.primitive for each in inputs.literals}

    def runs(self) -> list[Any]:
        """All runs, oldest first."""
        order = (actions.c.created_at, actions.c.run)
        statement = select(actions.c.project, actions.c.domain, actions.c.run).order_by(*order)

        def read(reader: Any) -> list[Any]:
            keys = [runs.ActionKey(*row) for row in reader.execute(statement)]
            return [runs.get(reader, key) for key in keys]

        return self.rpc.world.db.read_now(read)


@pytest.fixture
async def clockwork(tmp_path: Path) -> AsyncIterator[Clockwork]:
    async with RpcWorld.opened(tmp_path) as rpc:
        rpc.world.clock.time = START
        made = Clockwork(rpc)
        await made.person("alice")
        await made.person("bob")
        yield made
