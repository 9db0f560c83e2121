"""Apps: deploy, look at, start, stop and delete them; where they answer and where they stand."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Protocol

from flyteidl2.app import app_definition_pb2 as pb

from tower.audit import Event
from tower.control import approws, appspecs, secretuse
from tower.control.access import Access, not_found
from tower.control.appspecs import Declared
from tower.control.events import Events
from tower.control.listing import Query, prepare
from tower.control.places import Places
from tower.control.projects import Projects
from tower.control.secretuse import SecretUse
from tower.control.tailing import Line
from tower.control.tailing import Read as ReadLog
from tower.errors import AlreadyExists, Precondition, Unsupported
from tower.identity.principal import Principal
from tower.policy.actions import Action, Resource, ResourceType
from tower.policy.engine import Decision
from tower.settings import Settings
from tower.states import AppStatus, Desired
from tower.store import apps as store
from tower.store import policies as limits
from tower.store import webhooks
from tower.store.apps import AppRow, Revision
from tower.store.database import Database, Transaction

__all__ = ["AppRow", "Apps", "CodeDigest", "Processes", "Revision"]


class Processes(Protocol):
    """The running side of apps, as the gateway needs it; `control.reconcile` has it."""

    async def wake(self, project: str, domain: str, name: str, seconds: float, /) -> Path:
        """The unix socket of a ready process, started if need be. Raises Unavailable after that long."""

    def serving(self, project: str, domain: str, name: str) -> AbstractContextManager[None]:
        """Count one request in flight for as long as the block lasts: such an app is not idle."""


class CodeDigest(Protocol):
    """Looks at an uploaded code bundle."""

    async def __call__(self, bundle: str, /, *, project: str, domain: str) -> str:
        """The SHA-256 of the bundle, "" for none. Raises Invalid when it was not uploaded for this place."""


class Apps:
    """The use-cases. Every method names its caller first and decides before it reads or writes."""

    def __init__(
        self,
        *,
        db: Database,
        access: Access,
        events: Events,
        projects: Projects,
        code_digest: CodeDigest,
        read_log: ReadLog,
        settings: Settings,
        secrets: SecretUse | None = None,
    ) -> None:
        """`code_digest` (that of `Tasks`) looks at an uploaded bundle, `read_log` reads an app's output."""
        self._secrets = secrets
        self._db = db
        self._projects = projects
        self._digests = code_digest
        self._read_log = read_log
        self._access = access
        self._events = events
        self._settings = settings
        self.places = Places(settings)

    async def open(self) -> None:
        """Read where every app answers. Call it once before the gateway opens."""
        self.places.load(await self._db.read(store.everything))

    async def create(self, principal: Principal, app: pb.App, *, request_id: str) -> AppRow:
        """Deploy a new app as revision 1. Raises AlreadyExists when there is one of this name."""
        declared = appspecs.read(app, self._settings)
        decision, levels = await self._may_deploy(principal, declared, request_id=request_id)
        self._projects.open_for_work(declared.project)
        code = await self._digests(declared.bundle, project=declared.project, domain=declared.domain)

        def write(tx: Transaction) -> AppRow:
            if store.get(tx, declared.project, declared.domain, declared.name) is not None:
                raise AlreadyExists(f"There is an app {declared.name} already.", hint="Update it instead.")
            revision = store.next_revision(tx, declared.project, declared.domain, declared.name)
            row = approws.row(tx, declared, code=code, principal=principal, revision=revision, before=None)
            store.insert(tx, row)
            secretuse.grant_app(tx, row, levels)
            approws.limit(tx, declared, by=principal.subject)
            tx.after_commit(self._access.forget)
            self._record(tx, principal, decision, Event.APP_DEPLOY, row, request_id=request_id)
            tx.after_commit(lambda: self._changed(row))
            return row

        return await self._db.write(write)

    async def update(self, principal: Principal, app: pb.App, *, request_id: str, reason: str = "") -> AppRow:
        """Deploy another specification or want the app started or stopped.

        The same specification makes no new revision. A revision in the message must be the current one:
        Precondition says that somebody else was faster.
        """
        declared = appspecs.read(app, self._settings)
        before = await self._find(principal, declared.project, declared.domain, declared.name, request_id)
        deploys = declared.digest != before.digest
        moves = declared.desired is not before.desired
        decisions: list[Decision] = []
        code, levels = before.code_digest, dict[str, list[str]]()
        if deploys or not moves:
            decision, levels = await self._may_deploy(principal, declared, request_id=request_id)
            decisions.append(decision)
        if deploys:
            code = await self._digests(declared.bundle, project=declared.project, domain=declared.domain)
        if moves:
            resource = _resource(before.project, before.domain, before.name)
            decisions.append(
                await self._require(principal, Action.APP_MANAGE, resource, request_id=request_id)
            )

        def write(tx: Transaction) -> AppRow:
            current = store.get(tx, before.project, before.domain, before.name)
            if current is None:
                raise not_found(_resource(before.project, before.domain, before.name))
            if (current.revision, current.desired) != (before.revision, before.desired) or (
                declared.revision not in {0, current.revision}
            ):
                raise Precondition(
                    f"The app {current.name} is at revision {current.revision} by now.",
                    hint="Fetch it and apply your change again.",
                )
            row = current
            if deploys:
                revision = store.next_revision(tx, current.project, current.domain, current.name)
                row = approws.row(
                    tx, declared, code=code, principal=principal, revision=revision, before=current
                )
                store.replace(tx, row)
                secretuse.grant_app(tx, row, levels)
                approws.limit(tx, declared, by=principal.subject)
                tx.after_commit(self._access.forget)
                self._record(tx, principal, decisions[0], Event.APP_DEPLOY, row, request_id=request_id)
            if moves:
                row = approws.move(tx, row, declared.desired, written=deploys)
                event = Event.APP_STOP if declared.desired is Desired.STOPPED else Event.APP_START
                self._record(
                    tx, principal, decisions[-1], event, row, request_id=request_id, reason=reason[:500]
                )
            if deploys or moves:
                tx.after_commit(lambda: self._changed(row))
            return row

        return await self._db.write(write)

    async def want(
        self, principal: Principal, project: str, domain: str, name: str, *, desired: Desired, request_id: str
    ) -> AppRow:
        """Want the app started, stopped or active (it sleeps when idle)."""
        row = await self._find(principal, project, domain, name, request_id)
        return await self.update(
            principal,
            pb.App.FromString(appspecs.with_desired(row, desired)),
            request_id=request_id,
        )

    async def delete(
        self, principal: Principal, project: str, domain: str, name: str, *, request_id: str
    ) -> None:
        """Delete the app; its process ends, its host name is free, its history stays."""
        row = await self._find(principal, project, domain, name, request_id)
        decision = await self._require(
            principal, Action.APP_MANAGE, _resource(project, domain, name), request_id=request_id
        )

        def write(tx: Transaction) -> None:
            if not store.remove(tx, project, domain, name):
                raise not_found(_resource(project, domain, name))
            limits.remove_ceiling(tx, project, domain, name, source="deploy")
            webhooks.remove_all(tx, project, domain, name)
            self._record(tx, principal, decision, Event.APP_DELETE, row, request_id=request_id)
            tx.after_commit(self._access.forget)
            tx.after_commit(lambda: self._gone(row))

        await self._db.write(write)

    async def get(
        self, principal: Principal, project: str, domain: str, name: str, *, request_id: str
    ) -> AppRow:
        """One app. Raises NotFound when it is absent or not viewable."""
        return await self._find(principal, project, domain, name, request_id)

    async def page(
        self, principal: Principal, query: Query, *, project: str = "", domain: str = ""
    ) -> tuple[list[AppRow], str]:
        """One page of the apps that the caller may view, and the token of the next one."""
        asked = prepare(query, sorts=store.SORTS, fields=store.FIELDS, special=store.status_filter)
        scopes = await self._projects.listable(
            principal, Action.APP_VIEW, store.app_names, project=project, domain=domain
        )
        if not scopes:
            return [], ""
        rows = await self._db.read(lambda reader: store.page_apps(reader, asked, scopes=scopes))
        return asked.cut(rows, ties=store.TIES)

    async def count(self, principal: Principal, query: Query, *, project: str = "", domain: str = "") -> int:
        """How many apps all pages of this query have together, for this caller."""
        asked = prepare(query, sorts=store.SORTS, fields=store.FIELDS, special=store.status_filter)
        scopes = await self._projects.listable(
            principal, Action.APP_VIEW, store.app_names, project=project, domain=domain
        )
        if not scopes:
            return 0
        return await self._db.read(lambda reader: store.count_apps(reader, asked, scopes=scopes))

    async def revisions(
        self, principal: Principal, project: str, domain: str, name: str, *, request_id: str
    ) -> list[Revision]:
        """The app's history, newest first."""
        await self._find(principal, project, domain, name, request_id)
        return await self._db.read(lambda connection: store.revisions(connection, project, domain, name))

    async def watch(
        self, principal: Principal, project: str, domain: str, name: str, *, request_id: str
    ) -> AsyncIterator[AppRow]:
        """The app as it is now and after each change, until it is deleted or out of the caller's view."""
        await self._find(principal, project, domain, name, request_id)
        last: AppRow | None = None
        with self._events.subscribe(("app", project, domain, name)) as changed:
            while True:
                changed.clear()
                row = await self._read(project, domain, name)
                view = await self._access.check(principal, Action.APP_VIEW, _resource(project, domain, name))
                if row is None or not view.allowed:
                    return
                if row != last:
                    last = row
                    yield row
                await changed.wait()

    async def tail(
        self,
        principal: Principal,
        project: str,
        domain: str,
        name: str,
        *,
        request_id: str,
        mark: bool = False,
    ) -> AsyncIterator[Sequence[Line]]:
        """The app's output from its beginning, as it is written, until the app is stopped or deleted.

        With `mark` there is one time without lines: behind what was there already, where the app goes on.
        """
        key = (project, domain, name)
        log_id = "/".join(key)
        offset = 0
        await self._find(principal, *key, request_id)
        with self._events.subscribe(("log", log_id), ("app", *key)) as changed:
            while True:
                changed.clear()
                view = await self._access.check(principal, Action.APP_VIEW, _resource(*key))
                row = await self._read(*key)
                while view.allowed:
                    lines, offset = await self._read_log(log_id, offset)
                    if not lines:
                        break
                    yield lines
                if row is None or not view.allowed or row.status is AppStatus.STOPPED:
                    return
                if mark:
                    mark = False
                    yield []
                await changed.wait()

    async def report(
        self,
        project: str,
        domain: str,
        name: str,
        *,
        revision: int,
        status: AppStatus,
        message: str = "",
        started_at: float | None = None,
    ) -> bool:
        """Record where the process of a revision stands; for the loop that runs the processes.

        False when the app has another revision by now or is gone: then the report is of no use to anyone.
        """

        def write(tx: Transaction) -> bool:
            done = store.set_status(
                tx,
                project,
                domain,
                name,
                revision=revision,
                status=status,
                message=message,
                started_at=started_at,
            )
            if done:
                tx.after_commit(lambda: self._events.publish(("app", project, domain, name)))
            return done

        return await self._db.write(write)

    def render(self, row: AppRow, *, base_url: str) -> pb.App:
        """The message that clients get; `base_url` is how this caller reached Tower."""
        return appspecs.render(row, base_url=base_url, apps_domain=self._settings.apps_domain)

    async def _may_deploy(
        self, principal: Principal, declared: Declared, *, request_id: str
    ) -> tuple[Decision, dict[str, list[str]]]:
        """The decision, and what the app may be given of the secrets that it declares."""
        levels: dict[str, list[str]] = {}
        resource = _resource(declared.project, declared.domain, declared.name)
        decision = await self._require(principal, Action.APP_DEPLOY, resource, request_id=request_id)
        secrets = declared.message.spec.security_context.secrets
        if secrets:
            if self._secrets is None:
                raise Unsupported("Secrets are not offered by this Tower.", hint="Leave them out.")
            place = {"project": declared.project, "domain": declared.domain}
            levels = await self._secrets.grantable(principal, secrets, **place, request_id=request_id)
        if declared.raw:
            raw = await self._require(principal, Action.APP_RAW, resource, request_id=request_id)
            decision = decision.also(raw)
        return decision, levels

    async def _require(
        self, principal: Principal, action: Action, resource: Resource, *, request_id: str
    ) -> Decision:
        return await self._access.require(
            principal, action, resource, request_id=request_id, view=Action.APP_VIEW
        )

    async def _find(
        self, principal: Principal, project: str, domain: str, name: str, request_id: str
    ) -> AppRow:
        resource = _resource(project, domain, name)
        await self._require(principal, Action.APP_VIEW, resource, request_id=request_id)
        row = await self._read(project, domain, name)
        if row is None:
            raise not_found(resource)
        return row

    async def _read(self, project: str, domain: str, name: str) -> AppRow | None:
        return await self._db.read(lambda connection: store.get(connection, project, domain, name))

    def _record(
        self,
        tx: Transaction,
        principal: Principal,
        decision: Decision,
        event: Event,
        row: AppRow,
        *,
        request_id: str,
        reason: str = "",
    ) -> None:
        detail: dict[str, object] = {"revision": row.revision, "code_digest": row.code_digest}
        if reason:
            detail["reason"] = reason
        self._access.record(tx, principal, decision, event=event, request_id=request_id, detail=detail)

    def _changed(self, row: AppRow) -> None:
        self.places.put(row)
        self._events.publish(("apps",), ("app", row.project, row.domain, row.name))

    def _gone(self, row: AppRow) -> None:
        self.places.drop(row.id)
        self._events.publish(("apps",), ("app", row.project, row.domain, row.name))


def _resource(project: str, domain: str, name: str) -> Resource:
    return Resource(ResourceType.APP, project=project, domain=domain, name=name)
