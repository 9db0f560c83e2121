"""Deploying tasks and finding them: versions never change, and the latest is the one deployed last."""

from __future__ import annotations

import hashlib
import re
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import Any

from flyteidl2.core import identifier_pb2
from flyteidl2.task import task_definition_pb2
from sqlalchemy.exc import IntegrityError

from tower.audit import Event
from tower.control import builtins, privileges, specs
from tower.control.access import Access, not_found
from tower.control.definitions import Definition, Definitions
from tower.control.listing import Query, prepare
from tower.control.projects import Projects
from tower.control.secretuse import SecretUse
from tower.errors import AlreadyExists, Denied, Exhausted, Invalid, Unsupported
from tower.identity.principal import Kind, Principal
from tower.policy.actions import Action, Resource, ResourceType
from tower.settings import Settings
from tower.store import definitions as store
from tower.store import secrets as granting
from tower.store.blobs import Blobs
from tower.store.database import Database, Reader, Transaction
from tower.store.definitions import TaskKey, TaskRow
from tower.store.listing import Page, Seen

__all__ = ["TaskPage", "TaskRow", "Tasks", "resource"]

MAX_VERSIONS = 10_000
_SHA256_NAME = re.compile(r"([0-9a-f]{64})\.tar\.gz")


@lru_cache(maxsize=2048)
def resource(key: TaskKey) -> Resource:
    """A task as policy sees it."""
    project, domain, name = key
    return Resource(ResourceType.TASK, project=project, domain=domain, name=name)


@dataclass(frozen=True, slots=True)
class TaskPage:
    """Tasks of a list, the token of its next page, and how long it is: in all, and what the filters leave."""

    rows: list[TaskRow]
    token: str
    total: int
    left: int


class Tasks:
    """The use-cases of the task service."""

    def __init__(
        self,
        *,
        db: Database,
        access: Access,
        blobs: Blobs,
        projects: Projects,
        definitions: Definitions,
        settings: Settings,
        secrets: SecretUse | None = None,
    ) -> None:
        """Without `secrets` no task may declare any."""
        self._secrets = secrets
        self._db = db
        self._access = access
        self._blobs = blobs
        self._projects = projects
        self._definitions = definitions
        self._settings = settings

    async def deploy(
        self,
        principal: Principal,
        key: TaskKey,
        version: str,
        *,
        spec: task_definition_pb2.TaskSpec,
        request_id: str,
    ) -> TaskRow:
        """Add a version. The same content again changes nothing, another content is refused (AlreadyExists).

        Raises Denied, NotFound for a project that is not there, Invalid, Unsupported and Exhausted.
        """
        project, domain = specs.scope(key[0], key[1])
        specs.name(key[2])
        specs.version(version)
        decision = await self._access.require(
            principal, Action.TASK_REGISTER, resource(key), request_id=request_id, view=Action.TASK_VIEW
        )
        self._projects.open_for_work(project)
        kept = specs.check(spec, project=project, domain=domain, settings=self._settings)
        levels = await self.secrets(principal, kept, project=project, domain=domain, request_id=request_id)
        given = await self._privileges(principal, kept, key=key, request_id=request_id)
        kept.task_template.id.CopyFrom(
            identifier_pb2.Identifier(
                resource_type=identifier_pb2.TASK,
                project=project,
                domain=domain,
                name=key[2],
                version=version,
            )
        )
        data = kept.SerializeToString(deterministic=True)
        bundle = kept.task_template.metadata.code_bundle_uri
        row = TaskRow(
            project=project,
            domain=domain,
            name=key[2],
            version=version,
            digest=hashlib.sha256(data).hexdigest(),
            code_digest=await self.code_digest(bundle, project=project, domain=domain),
            short_name=kept.short_name or key[2].rpartition(".")[2],
            environment=kept.environment.name or key[2].rpartition(".")[0],
            description=kept.documentation.short_description[:1000],
            deployed_by=principal.subject,
            deployed_at=0.0,
            serial=0,
            privileges="" if given is None else privileges.to_text(given),
        )
        renewed = given is not None and not await self._still_given(key, version)
        detail: dict[str, Any] = {
            "version": version,
            "digest": row.digest,
            "code_digest": row.code_digest,
            **({} if given is None else {"privileges": sorted(given.actions)}),
        }

        def note(tx: Transaction) -> None:
            self._access.record(
                tx, principal, decision, event=Event.TASK_DEPLOY, request_id=request_id, detail=detail
            )
            tx.after_commit(lambda: self._definitions.deployed(key, version))

        def insert(tx: Transaction) -> TaskRow:
            existing = store.get(tx, key, version)
            if existing is not None:
                if existing[0].digest != row.digest:
                    raise AlreadyExists(
                        f"The version {version} of {key[2]} is deployed with other content.",
                        hint="A version never changes: deploy under another one.",
                    )
                if not renewed:
                    return existing[0]
                store.give(tx, key, version, row.privileges)
                note(tx)
                return replace(existing[0], privileges=row.privileges)
            if store.count_versions(tx, key) >= MAX_VERSIONS:
                raise Exhausted(f"A task has at most {MAX_VERSIONS} versions.")
            added = replace(row, deployed_at=tx.now, serial=store.next_serial(tx, project, domain))
            store.insert(tx, added, data)
            if levels:
                granting.grant(tx, key, version, levels, by=principal.subject)
            note(tx)
            return added

        try:
            return await self._db.write(insert)
        except IntegrityError:  # two writers on one database server: the other was first
            return await self._db.write(insert)

    async def _privileges(
        self,
        principal: Principal,
        spec: task_definition_pb2.TaskSpec,
        *,
        key: TaskKey,
        request_id: str,
    ) -> privileges.Given | None:
        """What this caller gives the version that they deploy; None where it declares nothing.

        Raises Denied, naming it, for a privilege that they do not have there themselves. What an app
        or a task may not do for them, it cannot give either.
        """
        declared = sorted(privileges.declared(spec))
        if not declared:
            return None
        project, domain, name = key
        for action in declared:
            place = privileges.thing(action, project=project, domain=domain, owner=principal.subject)
            decision = await self._access.require(
                principal, Action(action), place, request_id=request_id, detail={"task": name}
            )
            if principal.actors or principal.kind is Kind.MACHINE:
                refused = replace(decision, allowed=False, policies=("given-by-people-alone",))
                await self._access.refuse(principal, refused, request_id=request_id, detail={"task": name})
                raise Denied(
                    f"The privilege {action} is given by a person, not by a task or an app.",
                    hint="Deploy it from a terminal, with your own credential.",
                )
        return privileges.given(principal, declared, task=f"task:{project}/{domain}/{name}")

    async def _still_given(self, key: TaskKey, version: str) -> bool:
        """Whether who gave the privileges of a version could give them now. False where there are none."""
        there = self._definitions.find(key, version)
        known = None if there is None else privileges.from_text(there.row.privileges)
        if known is None:
            return False
        for action in known.actions:
            place = privileges.thing(action, project=key[0], domain=key[1], owner=known.by)
            if not await self._access.gives(known.giver, Action(action), place, to=known.by):
                return False
        return True

    async def secrets(
        self,
        principal: Principal,
        spec: task_definition_pb2.TaskSpec,
        *,
        project: str,
        domain: str,
        request_id: str,
    ) -> dict[str, list[str]]:
        """What a task that this caller brings may be given of the secrets that it declares.

        Raises Denied and NotFound for one that the caller may not use, Unsupported where there are none.
        """
        declared = spec.task_template.security_context.secrets
        if not declared:
            return {}
        if self._secrets is None:
            raise Unsupported("Secrets are not offered by this Tower.", hint="Leave them out.")
        return await self._secrets.grantable(
            principal, declared, project=project, domain=domain, request_id=request_id
        )

    async def code_digest(self, bundle: str, *, project: str, domain: str) -> str:
        """The SHA-256 of an uploaded bundle, "" for none. Raises Invalid when it was not uploaded."""
        if not bundle:
            return ""
        key = specs.bundle_key(bundle, project=project, domain=domain)
        size = await self._blobs.size(key)
        if size is None:
            raise Invalid("The code bundle is not there.", hint="Upload it, then deploy.")
        named = _SHA256_NAME.fullmatch(key.rpartition("/")[2])
        if named is not None:  # checked against the content when it was uploaded
            return named[1]
        digest = hashlib.sha256()
        async for chunk in self._blobs.stream(key):
            digest.update(chunk)
        return digest.hexdigest()

    async def details(
        self, principal: Principal, key: TaskKey, version: str, *, request_id: str
    ) -> Definition:
        """One version, or with "" the latest. Raises NotFound when it is absent or hidden."""
        own = builtins.find(key, version)
        if own is not None:
            return own
        await self._access.require(principal, Action.TASK_VIEW, resource(key), request_id=request_id)
        definition = self._definitions.find(key, version)
        if definition is None:
            raise not_found(resource(key))
        return definition

    async def page(
        self, principal: Principal, query: Query, *, project: str = "", domain: str = ""
    ) -> TaskPage:
        """One page of the tasks that the caller may view, each in its latest version.

        With a filter on `version` every version counts, in the numbers too.
        """
        if (project, domain) == builtins.PLACE:
            own = [each.row for each in builtins.every()]
            return TaskPage(own, "", total=len(own), left=len(own))
        asked = prepare(query, sorts=store.SORTS, fields=store.FIELDS)
        scopes = await self._viewable(principal, project, domain)
        if not scopes:
            return TaskPage([], "", total=0, left=0)
        every = _every_version(query)

        def found(reader: Reader) -> TaskPage:
            def count(page: Page) -> int:
                return store.count_tasks(reader, page, scopes=scopes, latest_only=not every)

            rows, token = asked.cut(
                store.page_tasks(reader, asked, scopes=scopes, latest_only=not every), ties=store.TIES
            )
            left = count(asked) if token or asked.after is not None else len(rows)
            total = count(replace(asked, conditions=())) if asked.conditions else left
            return TaskPage(rows, token, total=total, left=left)

        return await self._db.read(found)

    async def _viewable(self, principal: Principal, project: str, domain: str) -> list[Seen]:
        return await self._projects.listable(
            principal, Action.TASK_VIEW, store.task_names, project=project, domain=domain
        )

    async def versions(
        self, principal: Principal, key: TaskKey, query: Query, *, request_id: str
    ) -> tuple[list[TaskRow], str]:
        """One page of the versions of a task, and the next token. Raises NotFound."""
        asked = prepare(query, sorts=store.SORTS, fields=store.FIELDS)
        await self.details(principal, key, "", request_id=request_id)
        rows = await self._db.read(lambda reader: store.page_versions(reader, asked, key=key))
        return asked.cut(rows, ties=store.TIES)


def _every_version(query: Query) -> bool:
    return any(condition.field == "version" for condition in query.filters)
