"""Projects: the scopes that everything else stands in. Each has the same domains."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace

from sqlalchemy.exc import IntegrityError

from tower.audit import Event
from tower.control import specs
from tower.control.access import Access, not_found
from tower.errors import AlreadyExists, Exhausted, Invalid, Precondition
from tower.identity.authenticators import MACHINE
from tower.identity.principal import Principal
from tower.policy.actions import Action, Resource, ResourceType
from tower.settings import DOMAINS
from tower.store import definitions as store
from tower.store.database import Database, Reader, Transaction
from tower.store.definitions import ProjectRow
from tower.store.listing import Seen

__all__ = ["ProjectRow", "Projects"]

MAX_DESCRIPTION = 300
MAX_PROJECTS = 1000
_LISTED = {
    Action.TASK_VIEW: ResourceType.TASK,
    Action.RUN_VIEW: ResourceType.RUN,
    Action.APP_VIEW: ResourceType.APP,
}
RESERVED = frozenset({"system"})


class Projects:
    """The use-cases. All projects are kept in memory and read again after each change."""

    def __init__(self, *, db: Database, access: Access) -> None:
        self._db = db
        self._access = access
        self._known: Mapping[str, ProjectRow] | None = None

    async def bootstrap(self, name: str) -> None:
        """Make the first project of a fresh installation; nothing happens where there is any."""
        if self._projects():
            return
        decision = await self._access.check(MACHINE, Action.PROJECT_MANAGE, Resource(ResourceType.ORG))

        def write(tx: Transaction) -> None:
            if store.all_projects(tx):
                return
            store.insert_project(tx, name=name, description="", created_by=MACHINE.subject)
            self._access.record(tx, MACHINE, decision, event=Event.PROJECT_CREATE, detail={"project": name})
            tx.after_commit(self._forget)

        await self._db.write(write)

    async def create(
        self, principal: Principal, name: str, *, description: str, request_id: str
    ) -> ProjectRow:
        """Make a project. Raises Denied, Invalid, AlreadyExists and Exhausted."""
        decision = await self._access.require(
            principal, Action.PROJECT_MANAGE, Resource(ResourceType.ORG), request_id=request_id
        )
        if not specs.PROJECT.fullmatch(name) or name in RESERVED:
            raise Invalid(
                "That is no name for a project.", hint="Use lower-case letters, digits and '-', at most 63."
            )
        _check_description(description)
        if len(self._projects()) >= MAX_PROJECTS:
            raise Exhausted(f"There may be at most {MAX_PROJECTS} projects.")

        def write(tx: Transaction) -> None:
            store.insert_project(tx, name=name, description=description, created_by=principal.subject)
            self._access.record(
                tx,
                principal,
                decision,
                event=Event.PROJECT_CREATE,
                request_id=request_id,
                detail={"project": name},
            )
            tx.after_commit(self._forget)

        try:
            await self._db.write(write)
        except IntegrityError as error:
            raise AlreadyExists(f"There is a project {name} already.", hint="Take another name.") from error
        return self._projects()[name]

    async def update(
        self, principal: Principal, name: str, *, description: str, archived: bool, request_id: str
    ) -> ProjectRow:
        """Describe, archive or reopen a project. Raises Denied, NotFound and Invalid."""
        decision = await self._access.require(
            principal, Action.PROJECT_MANAGE, _resource(name), request_id=request_id, view=Action.PROJECT_VIEW
        )
        _check_description(description)

        def write(tx: Transaction) -> None:
            if not store.update_project(tx, name, description=description, archived=archived):
                raise not_found(_resource(name))
            self._access.record(
                tx,
                principal,
                decision,
                event=Event.PROJECT_UPDATE,
                request_id=request_id,
                detail={"project": name, "archived": archived},
            )
            tx.after_commit(self._forget)

        await self._db.write(write)
        return self._projects()[name]

    async def get(self, principal: Principal, name: str, *, request_id: str) -> ProjectRow:
        """One project. Raises NotFound when it is absent or hidden."""
        await self._access.require(principal, Action.PROJECT_VIEW, _resource(name), request_id=request_id)
        found = self._projects().get(name)
        if found is None:
            raise not_found(_resource(name))
        return found

    async def page(
        self, principal: Principal, *, archived: bool, after: str = "", limit: int = 0
    ) -> tuple[list[ProjectRow], str]:
        """One page of the projects that the caller may view, by name, and the name to go on from."""
        limit = min(limit or 100, 1000)
        rows: list[ProjectRow] = []
        for name, row in sorted(self._projects().items()):
            if name <= after or (row.archived_at is not None) is not archived:
                continue
            if not (await self._access.check(principal, Action.PROJECT_VIEW, _resource(name))).allowed:
                continue
            if len(rows) == limit:
                return rows, rows[-1].name
            rows.append(row)
        return rows, ""

    async def viewable(
        self, principal: Principal, action: Action, *, project: str = "", domain: str = ""
    ) -> list[tuple[str, str]]:
        """The (project, domain) pairs, within those asked for, where the caller may do what a list shows."""
        allowed = []
        for name, each in self._pairs(project, domain):
            place = Resource(_LISTED.get(action, ResourceType.DOMAIN), project=name, domain=each)
            if (await self._access.check(principal, action, place)).allowed:
                allowed.append((name, each))
        return allowed

    async def with_runs(self, principal: Principal, *, project: str = "", domain: str = "") -> list[Seen]:
        """Where the caller sees runs, within the scopes asked for: all of them, or those of some tasks."""
        found = []
        for pair in self._pairs(project, domain):
            runs = Resource(ResourceType.RUN, *pair)
            if (await self._access.check(principal, Action.RUN_VIEW, runs)).allowed:
                found.append(Seen(*pair))
                continue
            tasks = [
                task
                for task in await self._access.tasks_in(principal, *pair)
                if (await self._access.check(principal, Action.RUN_VIEW, replace(runs, task=task))).allowed
            ]
            if tasks:
                found.append(Seen(*pair, tuple(tasks)))
        return found

    async def listable(
        self,
        principal: Principal,
        action: Action,
        names: Callable[[Reader, str, str], list[str]],
        *,
        project: str = "",
        domain: str = "",
    ) -> list[Seen]:
        """What a list shows the caller, within the scopes asked for.

        Where a role, a policy or a limit is about single things, each of the `names` there is decided on: the
        list must not tell more than looking at the thing does.
        """
        if not await self._access.looks_at_names(principal, _LISTED[action]):
            pairs = await self.viewable(principal, action, project=project, domain=domain)
            return [Seen(*pair) for pair in pairs]
        found = []
        for pair in self._pairs(project, domain):
            there = await self._db.read(lambda reader, pair=pair: names(reader, *pair))  # type: ignore[misc]
            seen = [
                name
                for name in there
                if (
                    await self._access.check(principal, action, Resource(_LISTED[action], *pair, name))
                ).allowed
            ]
            if seen:
                found.append(Seen(*pair, tuple(seen)))
        return found

    def _pairs(self, project: str, domain: str) -> list[tuple[str, str]]:
        known = self._projects()
        names = [project] if project else sorted(known)
        return [(name, each) for name in names if name in known for each in ([domain] if domain else DOMAINS)]

    def open_for_work(self, project: str) -> None:
        """Raise unless the project takes work: NotFound when there is none, Precondition when archived."""
        found = self._projects().get(project)
        if found is None:
            raise not_found(_resource(project))
        if found.archived_at is not None:
            raise Precondition(f"The project {project} is archived.", hint="Reopen it first.")

    def _projects(self) -> Mapping[str, ProjectRow]:
        if self._known is None:
            rows = self._db.read_now(store.all_projects)
            self._known = {row.name: row for row in rows}
        return self._known

    def _forget(self) -> None:
        self._known = None


def _resource(name: str) -> Resource:
    return Resource(ResourceType.PROJECT, project=name)


def _check_description(text: str) -> None:
    if len(text) > MAX_DESCRIPTION:
        raise Invalid(f"A description has at most {MAX_DESCRIPTION} characters.")
