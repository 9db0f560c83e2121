"""Triggers: who may set one up, whom it runs as, and which version of its task. Firing is in `firing`.

A trigger runs as who activated it, with the limits of what they showed then, and runs the version that it was
set to then. Deploying another version does not move it, unless its own person does so. Who else changes it
needs to manage its project, and it then runs as them: nobody is made to run what somebody else chose (T40).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from flyteidl2.task import common_pb2, run_pb2, task_definition_pb2
from flyteidl2.trigger import trigger_definition_pb2 as wire

from tower.audit import Event
from tower.clock import Clock
from tower.control import triggers
from tower.control.access import Access, not_found
from tower.control.definitions import Definitions
from tower.control.events import Events
from tower.control.inputs import Inputs
from tower.control.launches import Launch
from tower.control.projects import Projects
from tower.control.tasks import resource as task_resource
from tower.control.triggerchanges import CHANGED, Change, Changes, task_of
from tower.control.triggerrows import check_person, declared_row, identity, same
from tower.control.triggers import Checked, Declared
from tower.control.triggerviews import Shown, TriggerViews
from tower.errors import Denied, Precondition
from tower.identity.principal import Principal
from tower.policy.actions import Action
from tower.policy.engine import Decision
from tower.settings import Settings
from tower.store import schedules as store
from tower.store.database import Database
from tower.store.definitions import TaskKey
from tower.store.schedules import State, TriggerKey, TriggerRow

__all__ = ["CHANGED", "Declared", "Schedules", "TriggerKey", "TriggerRow"]


class Schedules:
    """The use-cases of the trigger service and of the triggers that come with a task."""

    def __init__(
        self,
        *,
        db: Database,
        clock: Clock,
        access: Access,
        events: Events,
        definitions: Definitions,
        inputs: Inputs,
        projects: Projects,
        settings: Settings,
    ) -> None:
        self._db = db
        self._clock = clock
        self._access = access
        self._changes = Changes(db=db, access=access, events=events, settings=settings)
        self._definitions = definitions
        self._inputs = inputs
        self._projects = projects
        self._settings = settings
        self.views = TriggerViews(db=db, access=access, projects=projects)

    async def check(
        self,
        principal: Principal,
        task: TaskKey,
        spec: task_definition_pb2.TaskSpec,
        declared: Sequence[Declared],
        *,
        request_id: str,
    ) -> list[Checked]:
        """The triggers that come with a task, each checked; nothing is stored. Raises Denied and Invalid."""
        await self._access.require(
            principal,
            Action.TASK_REGISTER,
            task_resource(task),
            request_id=request_id,
            view=Action.TASK_VIEW,
        )
        if len(declared) > self._settings.max_task_triggers:
            raise self._changes.too_many_of_task()
        return [await self._check(principal, task, spec, each) for each in declared]

    async def deploy_all(
        self,
        principal: Principal,
        task: TaskKey,
        version: str,
        checked: Sequence[Checked],
        *,
        request_id: str,
    ) -> None:
        """Set the triggers that came with a version that is deployed now.

        One that is somebody else's stays as it is, with a notice: a new version does not move it (T2).
        """
        for each in checked:
            key = TriggerKey(*task, each.name)
            old = self._db.read_now(lambda reader, key=key: store.get(reader, key))  # type: ignore[misc]
            if old is not None and not await self._owns(principal, old):
                await self._changes.leave(principal, old, version, request_id=request_id)
            else:
                await self._set(principal, key, version, each, old, request_id=request_id)

    async def deploy(
        self,
        principal: Principal,
        task: TaskKey,
        version: str,
        declared: Declared,
        *,
        request_id: str,
        revision: int = 0,
    ) -> Shown:
        """Set one trigger of a deployed version ("" is the latest); with `revision` only in place of that.

        Raises Denied for somebody else's, NotFound, Invalid, Precondition and Exhausted.
        """
        thing = task_resource(task)
        decision = await self._access.require(
            principal, Action.TASK_REGISTER, thing, request_id=request_id, view=Action.TASK_VIEW
        )
        definition = self._definitions.find(task, version)
        if definition is None:
            raise not_found(thing)
        self._projects.open_for_work(task[0])
        checked = await self._check(principal, task, definition.spec, declared)
        key = TriggerKey(*task, declared.name)
        old = self._db.read_now(lambda reader: store.get(reader, key))
        if old is not None:
            decision = decision.also(await self._may_change(principal, old, request_id=request_id))
        if revision and (old is None or old.revision != revision):
            raise Precondition("The trigger was changed meanwhile.", hint="Look at it again.")
        await self._set(
            principal, key, definition.row.version, checked, old, request_id=request_id, given=decision
        )
        return await self.views.get(principal, key, request_id=request_id)

    async def set_active(
        self, principal: Principal, keys: Sequence[TriggerKey], active: bool, *, request_id: str
    ) -> None:
        """Switch triggers on, to run as the caller from now on, or off; all of them or none.

        The version stays the one that they had. Switching off takes the right to register the task only.
        """
        decisions = await self._registering(principal, keys, request_id=request_id)
        changes = []
        for row in await self.views.rows(principal, keys, request_id=request_id):
            if active:
                made = await self._activated(principal, row, request_id=request_id)
            else:
                off = replace(row, state=State.INACTIVE, notice="", next_at=None)
                action, event = wire.TRIGGER_REVISION_ACTION_DEACTIVATE, Event.TRIGGER_DEACTIVATE
                made = Change(off, action, event, decisions[row.key[:3]])
            if not same(made.row, row):
                changes.append(made)
        await self._changes.write(principal, changes, request_id=request_id)

    async def delete(self, principal: Principal, keys: Sequence[TriggerKey], *, request_id: str) -> None:
        """Delete triggers, all of them or none. Their revisions and runs stay on record."""
        await self._registering(principal, keys, request_id=request_id)
        changes = [
            Change(
                replace(row, state=State.INACTIVE, next_at=None),
                wire.TRIGGER_REVISION_ACTION_DELETE,
                Event.TRIGGER_DELETE,
                await self._may_change(principal, row, request_id=request_id),
            )
            for row in await self.views.rows(principal, keys, request_id=request_id)
        ]
        await self._changes.write(principal, changes, request_id=request_id)

    async def by_hand(
        self, principal: Principal, key: TriggerKey, asked: Launch, *, given: bool, request_id: str
    ) -> Launch:
        """A run that the caller starts in place of the schedule, as themselves.

        The version is that of the trigger; so are the inputs unless they are `given` in `asked`. The time of
        the firing, if an input takes it, is now.
        """
        (row,) = await self.views.rows(principal, [key], request_id=request_id)
        project, domain = asked.project or row.project, asked.domain or row.domain
        inputs = common_pb2.Inputs.FromString(row.inputs)
        if given:
            inputs = asked.inputs or common_pb2.Inputs()
        if asked.inputs_uri:
            inputs = await self._inputs.uploaded(asked.inputs_uri, project=project, domain=domain)
        return replace(
            asked,
            project=project,
            domain=domain,
            task=key[:3],
            version=row.version,
            inputs=triggers.fill(row, inputs, self._clock.now()),
            inputs_uri="",
            run_spec=asked.run_spec
            if asked.run_spec.ByteSize()
            else run_pb2.RunSpec.FromString(row.run_spec),
        )

    async def _registering(
        self, principal: Principal, keys: Sequence[TriggerKey], *, request_id: str
    ) -> dict[TaskKey, Decision]:
        """Who changes anything about triggers may register the tasks that they start."""
        return {
            task: await self._access.require(
                principal,
                Action.TASK_REGISTER,
                task_resource(task),
                request_id=request_id,
                view=Action.TASK_VIEW,
            )
            for task in dict.fromkeys(key[:3] for key in keys)
        }

    async def _check(
        self,
        principal: Principal,
        task: TaskKey,
        spec: task_definition_pb2.TaskSpec,
        declared: Declared,
    ) -> Checked:
        return await triggers.check(
            declared,
            principal,
            spec=spec,
            place=task[:2],
            inputs=self._inputs,
            settings=self._settings,
            now=self._clock.now(),
        )

    async def _owns(self, principal: Principal, row: TriggerRow) -> bool:
        """Whether it is the caller's own, or in a project that they manage."""
        if row.owner == principal.subject:
            return True
        return (await self._access.check(principal, Action.PROJECT_MANAGE, task_of(row))).allowed

    async def _may_change(self, principal: Principal, row: TriggerRow, *, request_id: str) -> Decision:
        """Its own person with the right to register the task, or who manages the project (T40)."""
        action = Action.TASK_REGISTER if row.owner == principal.subject else Action.PROJECT_MANAGE
        return await self._access.require(
            principal,
            action,
            task_of(row),
            request_id=request_id,
            view=Action.TASK_VIEW,
            detail={"trigger": str(row.key), "owner": row.owner},
        )

    async def _activated(self, principal: Principal, row: TriggerRow, *, request_id: str) -> Change:
        """The trigger running as the caller. Raises Denied for who cannot stand for what runs later."""
        check_person(principal)
        self._projects.open_for_work(row.project)
        decision = await self._may_change(principal, row, request_id=request_id)
        right = await self._access.require(
            principal,
            Action.TASK_RUN,
            task_of(row),
            request_id=request_id,
            view=Action.TASK_VIEW,
            author=self._author(row),
        )
        now = self._clock.now()
        since = row.since if row.state is State.ACTIVE else now
        on = replace(row, since=since, state=State.ACTIVE, notice="", **identity(principal))
        if row.state is not State.ACTIVE:
            table = triggers.table(on)
            on = replace(on, next_at=None if table is None else table.after(now))
        return Change(on, wire.TRIGGER_REVISION_ACTION_ACTIVATE, Event.TRIGGER_ACTIVATE, decision.also(right))

    async def _set(
        self,
        principal: Principal,
        key: TriggerKey,
        version: str,
        checked: Checked,
        old: TriggerRow | None,
        *,
        request_id: str,
        given: Decision | None = None,
    ) -> None:
        """Make the trigger what was declared. What changes nothing makes no revision."""
        now = self._clock.now()
        decision = given or await self._access.require(
            principal, Action.TASK_REGISTER, task_resource(key[:3]), request_id=request_id
        )
        row = declared_row(key, version, checked, old, by=principal.subject, now=now)
        if checked.active:
            made = await self._activated_by_deployment(principal, row, request_id=request_id)
            row, decision = made[0], decision.also(made[1]) if made[1] is not None else decision
        if old is not None and same(row, old):
            return
        change = Change(row, wire.TRIGGER_REVISION_ACTION_DEPLOY, Event.TRIGGER_DEPLOY, decision)
        await self._changes.write(principal, [change], request_id=request_id, new=old is None)

    async def _activated_by_deployment(
        self, principal: Principal, row: TriggerRow, *, request_id: str
    ) -> tuple[TriggerRow, Decision | None]:
        """As `_activated`, but the deployment goes on without it when the caller cannot activate."""
        notice = ""
        try:
            check_person(principal)
        except Denied as fault:
            notice = f"Deployed inactive. {fault.message}"
        right = await self._access.check(principal, Action.TASK_RUN, task_of(row), author=self._author(row))
        if not notice and not right.allowed:
            notice = f"Deployed inactive: {principal.subject} may not run {row.task}."
        if notice:
            return replace(row, state=State.INACTIVE, notice=notice, next_at=None), None
        on = replace(row, state=State.ACTIVE, notice="", **identity(principal))
        if on.next_at is None:
            table = triggers.table(on)
            on = replace(on, next_at=None if table is None else table.after(self._clock.now()))
        return on, right

    def _author(self, row: TriggerRow) -> str:
        """Who registered the version that it runs."""
        definition = self._definitions.find((row.project, row.domain, row.task), row.version)
        return "" if definition is None else definition.row.deployed_by
