"""Changes of triggers: rows, revisions and records, all or nothing. Who may make them is asked before."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

from tower.audit import Event, Outcome
from tower.control.access import Access
from tower.control.events import Events
from tower.control.tasks import resource as task_resource
from tower.errors import Exhausted, Precondition
from tower.identity.principal import Principal
from tower.policy.actions import Action, Resource
from tower.policy.engine import Decision
from tower.settings import Settings
from tower.store import schedules as store
from tower.store.database import Database, Transaction
from tower.store.schedules import State, TriggerRow

CHANGED = ("schedules",)
"""The topic of whatever may change what is due next."""


@dataclass(frozen=True, slots=True)
class Change:
    """A trigger as it is to be, and what is to be recorded about it."""

    row: TriggerRow
    action: int
    event: Event
    decision: Decision


class Changes:
    """Writes them."""

    def __init__(self, *, db: Database, access: Access, events: Events, settings: Settings) -> None:
        self._db = db
        self._access = access
        self._events = events
        self._settings = settings

    async def leave(self, principal: Principal, row: TriggerRow, version: str, *, request_id: str) -> None:
        """Say that a deployment by somebody else did not move the trigger."""
        if version == row.version:
            return
        decision = await self._access.check(principal, Action.PROJECT_MANAGE, task_of(row))
        notice = (
            f"{principal.subject} deployed the version {version}. This trigger stays at {row.version} until "
            f"{row.owner}, or somebody who manages the project, deploys it."
        )

        def write(tx: Transaction) -> None:
            if row.state is not State.SUSPENDED:
                store.set_notice(tx, row.key, notice)
            self._access.record(
                tx,
                principal,
                decision,
                event=Event.TRIGGER_DEPLOY,
                outcome=Outcome.REFUSED,
                request_id=request_id,
                detail={
                    "trigger": str(row.key),
                    "version": row.version,
                    "asked": version,
                    "owner": row.owner,
                },
            )

        await self._db.write(write)

    async def write(
        self, principal: Principal, changes: Sequence[Change], *, request_id: str, new: bool = False
    ) -> None:
        """Store changes of triggers that are still as they were read. Raises Precondition."""
        if not changes:
            return

        def write(tx: Transaction) -> None:
            for change in changes:
                self._store(tx, principal, change, request_id=request_id, new=new)
            tx.after_commit(lambda: self._events.publish(CHANGED))

        await self._db.write(write)

    def _store(
        self, tx: Transaction, principal: Principal, change: Change, *, request_id: str, new: bool
    ) -> None:
        row = change.row
        there = store.get(tx, row.key)
        if (there is None) is not new or (there is not None and there.revision != row.revision):
            raise Precondition("The trigger was changed meanwhile.", hint="Look at it again.")
        if new:
            self._check_room(tx, row)
        elif there is not None and row.next_at is not None and there.last_at != row.last_at:
            # it fired meanwhile: it must not fire for that time again
            row = replace(row, next_at=there.next_at, last_at=there.last_at, last_run=there.last_run)
        row = replace(
            row,
            revision=store.next_revision(tx, row.key),
            updated_by=principal.subject,
            updated_at=tx.now,
        )
        put: Callable[..., None] = store.remove if change.event is Event.TRIGGER_DELETE else store.put
        put(tx, row, action=change.action, by=principal.subject)
        self._access.record(
            tx,
            principal,
            change.decision,
            event=change.event,
            request_id=request_id,
            detail={
                "trigger": str(row.key),
                "revision": row.revision,
                "version": row.version,
                "state": row.state.value,
                "run_as": row.run_as,
            },
        )

    def _check_room(self, tx: Transaction, row: TriggerRow) -> None:
        if store.count(tx, project=row.project, domain=row.domain) >= self._settings.max_triggers:
            raise Exhausted(f"There are at most {self._settings.max_triggers} triggers in a domain here.")
        of_task = store.count(tx, project=row.project, domain=row.domain, task=row.task)
        if of_task >= self._settings.max_task_triggers:
            raise self.too_many_of_task()

    def too_many_of_task(self) -> Exhausted:
        return Exhausted(f"A task has at most {self._settings.max_task_triggers} triggers here.")


def task_of(row: TriggerRow) -> Resource:
    """The task that a trigger starts, as policy sees it."""
    return task_resource((row.project, row.domain, row.task))
