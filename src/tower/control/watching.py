"""Looking at runs: one, a page of them, or each change as it happens."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass

from flyteidl2.task import task_definition_pb2

from tower.control.access import Access, not_found
from tower.control.definitions import Definitions, read_spec
from tower.control.events import Events
from tower.control.listing import Query, prepare
from tower.control.projects import Projects
from tower.control.runs import run_resource
from tower.control.waiting import Waiting
from tower.identity.principal import Principal
from tower.policy.actions import Action, Resource
from tower.store import runs as store
from tower.store import schedules
from tower.store.database import Database, Reader
from tower.store.definitions import TaskKey
from tower.store.runs import ActionKey, ActionRow, AttemptRow, Person
from tower.store.schedules import TriggerKey

__all__ = ["ActionKey", "ActionRow", "AttemptRow", "Person", "Seen", "Watching"]


@dataclass(frozen=True, slots=True)
class Seen:
    """An action with the people it names; `attempts` and `spec` only where one action was asked for."""

    row: ActionRow
    executor: Person
    aborter: Person | None = None
    attempts: tuple[AttemptRow, ...] = ()
    spec: task_definition_pb2.TaskSpec | None = None


class Watching:
    """The use-cases of runs that change nothing. What the caller may not view is not there (T43)."""

    def __init__(
        self,
        *,
        db: Database,
        access: Access,
        events: Events,
        definitions: Definitions,
        projects: Projects,
        waiting: Waiting | None = None,
    ) -> None:
        self._db = db
        self._access = access
        self._events = events
        self._definitions = definitions
        self._projects = projects
        self._waiting = waiting or Waiting(events=events)

    async def get(self, principal: Principal, key: ActionKey, *, request_id: str) -> Seen:
        """One action. Raises NotFound when it is absent or hidden."""
        seen = self._db.read_now(lambda reader: self._read(reader, key))  # by primary keys only
        place = run_resource(key) if seen is None else self.place(seen.row)
        await self._access.require(principal, Action.RUN_VIEW, place, request_id=request_id)
        if seen is None:
            raise not_found(place)
        return self._with_spec(seen)

    def place(self, row: ActionRow) -> Resource:
        """The run of an action as policy sees it: of which task it is, its first action says."""
        root: ActionRow | None = row
        if row.parent is not None:
            root = self._db.read_now(lambda reader: store.get(reader, row.key._replace(action=store.ROOT)))
        return run_resource(row.key, row=root)

    async def page(
        self,
        principal: Principal,
        query: Query,
        *,
        project: str = "",
        domain: str = "",
        task: TaskKey | None = None,
        version: str = "",
        trigger: TriggerKey | None = None,
    ) -> tuple[list[Seen], str]:
        """One page of the runs that the caller may view, and the token of the next one."""
        asked = prepare(query, sorts=store.SORTS, fields=store.FIELDS, special=store.special)
        scopes = await self._projects.with_runs(principal, project=project, domain=domain)
        if not scopes:
            return [], ""

        def read(reader: Reader) -> tuple[list[Seen], str]:
            among = None if trigger is None else schedules.runs_of(trigger)
            rows = store.page_runs(reader, asked, scopes=scopes, task=task, version=version, among=among)
            rows, token = asked.cut(rows, ties=store.TIES)
            return _people(reader, rows), token

        return await self._db.read(read)

    async def actions(
        self, principal: Principal, key: ActionKey, query: Query, *, request_id: str
    ) -> tuple[list[Seen], str]:
        """One page of the actions of a run. Raises NotFound."""
        asked = prepare(query, sorts=store.ACTION_SORTS, fields=store.FIELDS, special=store.special)
        await self.get(principal, key, request_id=request_id)

        def read(reader: Reader) -> tuple[list[Seen], str]:
            rows, token = asked.cut(store.page_actions(reader, asked, key=key), ties=store.TIES)
            return _people(reader, rows), token

        return await self._db.read(read)

    async def watch(self, principal: Principal, key: ActionKey, *, request_id: str) -> AsyncIterator[Seen]:
        """The action now and after each change; the terminal state is the last. Raises NotFound.

        The right to view is asked for again with each change. A task that follows what it asked for itself
        counts as waiting.
        """
        before: Seen | None = None
        with self._events.subscribe(("action", *key)) as changed:
            while True:
                changed.clear()
                seen = await self.get(principal, key, request_id=request_id)
                if seen != before:
                    yield seen
                    before = seen
                if seen.row.phase.terminal:
                    return
                with self._waiting.for_own(principal, seen.row):
                    await changed.wait()

    async def watch_scope(
        self, principal: Principal, *, project: str, domain: str, task: TaskKey | None = None
    ) -> AsyncIterator[list[Seen]]:
        """The newest runs of a domain, and after each change those that are new or different. Never ends."""
        known: dict[str, ActionRow] = {}
        with self._events.subscribe(("runs", project, domain)) as changed:
            while True:
                changed.clear()
                rows, _ = await self.page(principal, Query(), project=project, domain=domain, task=task)
                fresh = [seen for seen in rows if known.get(seen.row.run) != seen.row]
                known = {seen.row.run: seen.row for seen in rows}
                if fresh:
                    yield fresh
                await changed.wait()

    async def watch_actions(
        self, principal: Principal, key: ActionKey, *, request_id: str
    ) -> AsyncIterator[list[Seen]]:
        """The actions of a run now and after each change; it ends with the run."""
        known: dict[str, ActionRow] = {}
        with self._events.subscribe(("action", *key), ("runs", key.project, key.domain)) as changed:
            while True:
                changed.clear()
                rows, _ = await self.actions(principal, key, Query(descending=False), request_id=request_id)
                fresh = [seen for seen in rows if known.get(seen.row.action) != seen.row]
                known = {seen.row.action: seen.row for seen in rows}
                if fresh:
                    yield fresh
                root = known.get(key.action)
                if root is None or root.phase.terminal:
                    return
                await changed.wait()

    @staticmethod
    def _read(reader: Reader, key: ActionKey) -> Seen | None:
        row = store.get(reader, key)
        if row is None:
            return None
        known = store.people(reader, [row.executed_by, row.aborted_by])
        return Seen(
            row=row,
            executor=known.get(row.executed_by, _unknown(row.executed_by)),
            aborter=known.get(row.aborted_by, _unknown(row.aborted_by)) if row.aborted_by else None,
            attempts=tuple(store.attempts_of(reader, key)),
        )

    def _with_spec(self, seen: Seen) -> Seen:
        row = seen.row
        if row.spec is not None:
            spec = read_spec(row.spec)
        else:
            task = (row.task_project, row.task_domain, row.task_name)
            definition = self._definitions.find(task, row.task_version)
            if definition is None:
                return seen
            spec = definition.spec
        return Seen(row, seen.executor, seen.aborter, seen.attempts, spec)


def _people(reader: Reader, rows: Sequence[ActionRow]) -> list[Seen]:
    known = store.people(reader, [row.executed_by for row in rows])
    return [Seen(row, known.get(row.executed_by, _unknown(row.executed_by))) for row in rows]


def _unknown(subject: str) -> Person:
    return Person(subject, "user", "", "")
