"""Looking at triggers: one, a page of them, and what was changed. What one may not view is not there."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass

from tower.control import triggers
from tower.control.access import Access, not_found
from tower.control.listing import Query, prepare
from tower.control.projects import Projects
from tower.control.tasks import resource as task_resource
from tower.errors import Exhausted, Invalid, NotFound
from tower.identity.principal import Principal
from tower.policy.actions import Action
from tower.store import schedules as store
from tower.store.database import Database
from tower.store.schedules import FiringRow, Outcome, RevisionRow, State, TriggerKey, TriggerRow

__all__ = [
    "FiringRow",
    "Outcome",
    "RevisionRow",
    "Shown",
    "State",
    "TriggerKey",
    "TriggerRow",
    "TriggerViews",
    "spoken",
    "started_by",
]

MOST_AT_ONCE = 100
SHOWN_FIRINGS = 50


@dataclass(frozen=True, slots=True)
class Shown:
    """A trigger with what came of its latest due times."""

    row: TriggerRow
    firings: tuple[FiringRow, ...] = ()


class TriggerViews:
    """The use-cases of triggers that change nothing. Who may view a task may view its triggers."""

    def __init__(self, *, db: Database, access: Access, projects: Projects) -> None:
        self._db = db
        self._access = access
        self._projects = projects

    async def get(self, principal: Principal, key: TriggerKey, *, request_id: str) -> Shown:
        """One trigger. Raises NotFound."""
        (row,) = await self.rows(principal, [key], request_id=request_id)
        firings = await self._db.read(lambda reader: store.firings(reader, key, limit=SHOWN_FIRINGS))
        return Shown(row, tuple(firings))

    async def page(
        self,
        principal: Principal,
        query: Query,
        *,
        project: str = "",
        domain: str = "",
        task: str = "",
        version: str = "",
    ) -> tuple[list[TriggerRow], str]:
        """One page of the triggers of tasks that the caller may view, and the token of the next one."""
        asked = prepare(query, sorts=store.SORTS, fields=store.FIELDS)
        scopes = await self._projects.listable(
            principal, Action.TASK_VIEW, store.task_names, project=project, domain=domain
        )
        if not scopes:
            return [], ""
        rows = await self._db.read(
            lambda reader: store.page(reader, asked, scopes=scopes, task=task, version=version)
        )
        return asked.cut(rows, ties=store.TIES)

    async def revision(
        self, principal: Principal, key: TriggerKey, number: int, *, request_id: str
    ) -> RevisionRow:
        """A trigger as one change made it, also one that is deleted. Raises NotFound."""
        task = task_resource(key[:3])
        await self._access.require(principal, Action.TASK_VIEW, task, request_id=request_id)
        found = await self._db.read(lambda reader: store.revision(reader, key, number))
        if found is None:
            raise not_found(task)
        return found

    async def revisions(
        self, principal: Principal, key: TriggerKey, query: Query, *, request_id: str
    ) -> tuple[list[RevisionRow], str]:
        """One page of the changes of a trigger, and the token of the next one."""
        asked = prepare(query, sorts=store.REVISION_SORTS, fields={})
        await self._access.require(principal, Action.TASK_VIEW, task_resource(key[:3]), request_id=request_id)
        rows = await self._db.read(lambda reader: store.revisions(reader, asked, key))
        return asked.cut(rows, ties=store.REVISION_TIES)

    async def rows(
        self, principal: Principal, keys: Sequence[TriggerKey], *, request_id: str
    ) -> list[TriggerRow]:
        """Triggers by their names. Raises NotFound for one that is absent or hidden."""
        if len(keys) > MOST_AT_ONCE:
            raise Exhausted(f"At most {MOST_AT_ONCE} triggers are changed at once.")
        found = []
        for key in dict.fromkeys(keys):
            task = task_resource(key[:3])
            await self._access.require(principal, Action.TASK_VIEW, task, request_id=request_id)
            row = self._db.read_now(lambda reader, key=key: store.get(reader, key))  # type: ignore[misc]
            if row is None:
                raise NotFound(f"There is no trigger {key.name[:100]} of {key.task}.")
            found.append(row)
        return found


def spoken(row: TriggerRow) -> str:
    """When it is due, in words."""
    try:
        table = triggers.table(row)
    except Invalid as fault:  # a time zone that was known once
        return fault.message
    return "by hand only" if table is None else table.spoken()


def started_by(actors: str) -> tuple[TriggerKey, int] | None:
    """The trigger, and its revision, that started the run with these actors; None where somebody asked."""
    if "schedule:" not in actors:
        return None
    kind, _, name = json.loads(actors)[-1].partition(":")
    parts = name.split("/")
    return (TriggerKey(*parts[:4]), int(parts[4])) if kind == "schedule" and len(parts) == 5 else None
