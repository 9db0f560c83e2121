"""Asking for runs and stopping them; who did is recorded in the transaction of the effect."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple, NoReturn

from flyteidl2.task import common_pb2, task_definition_pb2
from sqlalchemy.exc import IntegrityError

from tower.audit import Event
from tower.clock import Clock
from tower.control import endings, lineage, runspecs, specs
from tower.control.access import Access, not_found
from tower.control.definitions import Definition, Definitions, ready
from tower.control.events import Events
from tower.control.fanout import Fanout
from tower.control.inputs import Inputs, Kept
from tower.control.launches import Launch, Launches, created
from tower.control.projects import Projects
from tower.control.quota import Quota
from tower.control.tasks import Tasks
from tower.control.tasks import resource as task_resource
from tower.errors import AlreadyExists, Denied, Unavailable
from tower.identity.principal import Kind, Principal
from tower.policy.actions import Action, Resource, ResourceType
from tower.policy.engine import Decision
from tower.settings import Settings
from tower.store import family
from tower.store import runs as store
from tower.store.database import Database, Transaction
from tower.store.definitions import TaskRow
from tower.store.runs import ROOT, ActionKey, ActionRow, Person

MAX_REASON = 500


class Launched(NamedTuple):
    """A run that was accepted, with the facts of who asked for it."""

    row: ActionRow
    executor: Person
    definition: Definition


def run_resource(key: ActionKey, *, row: ActionRow | None = None, owner: str = "") -> Resource:
    """A run as policy sees it. Give the row, or name the owner, only where it was read from the store."""
    task = ""
    if row is not None and (row.task_project, row.task_domain) == (key.project, key.domain):
        task = row.task_name
    return Resource(ResourceType.RUN, key.project, key.domain, key.run, owner, task)


class Runs:
    """The use-cases that change runs. `Watching` has those that look."""

    def __init__(
        self,
        *,
        db: Database,
        clock: Clock,
        access: Access,
        events: Events,
        definitions: Definitions,
        tasks: Tasks,
        projects: Projects,
        inputs: Inputs,
        settings: Settings,
    ) -> None:
        self._db = db
        self._access = access
        self._events = events
        self._definitions = definitions
        self._tasks = tasks
        self._projects = projects
        self._inputs = inputs
        self._settings = settings
        self.quota = Quota(db=db, clock=clock, limit=settings.max_open_runs)
        """Shared with whatever else creates actions."""
        self._fanout = Fanout(settings.max_started)
        self.launches = Launches(clock=clock, access=access, settings=settings)
        """Shared with whatever else creates actions."""

    async def launch(
        self,
        principal: Principal,
        asked: Launch,
        *,
        request_id: str,
        also: Callable[[Transaction, ActionRow], None] | None = None,
    ) -> Launched:
        """Accept a run: it is durable, audited and queued when this returns; `also` is in its transaction.

        The same request id of the same caller again answers the run that it made the first time; with another
        content it is AlreadyExists. Raises Denied, NotFound, Invalid naming an input, and Exhausted.
        """
        project, domain = specs.scope(asked.project, asked.domain)
        if principal.kind is Kind.MACHINE:
            await self._no_person(principal, asked, request_id=request_id)
        if asked.name:
            runspecs.run_name(asked.name)
        definition, decision = await self.decide(principal, asked, request_id=request_id)
        self._projects.open_for_work(project)
        inside = lineage.depth(principal) > 0
        await self.quota.take(principal.subject)
        kept = await self._keep(asked, definition, by=principal)
        if inside:
            lineage.refuse_loop(
                self._db,
                principal,
                task=definition.row.key,
                version=definition.row.version,
                inputs_hash=kept.digest,
            )
            self._fanout.take(principal)
        row, executor = await self.launches.new(
            principal, asked, definition=definition, decision=decision, kept=kept, request_id=request_id
        )

        def insert(tx: Transaction) -> None:
            self._inputs.store(tx, kept)
            store.insert(tx, row)
            self._access.record(
                tx,
                principal,
                decision,
                event=Event.RUN_CREATE,
                request_id=request_id,
                detail=created(row, definition),
            )
            if also is not None:
                also(tx, row)
            tx.after_commit(lambda: self._events.publish(("queue",), ("runs", project, domain)))

        try:
            await self._db.write(insert, simple=also is None)
        except IntegrityError:
            row = await self._earlier(asked, definition, row)
        return Launched(row, executor, definition)

    async def abort(
        self, principal: Principal, key: ActionKey, *, reason: str, whole_run: bool, request_id: str
    ) -> None:
        """End an action, or all of a run, as aborted. One that has ended already stays as it is."""
        found = self._db.read_now(lambda reader: store.get(reader, key))
        root = found if found is None or found.parent is None else self._root(key)
        place = run_resource(key, row=root, owner="" if found is None else found.executed_by)
        decision = await self._access.require(
            principal, Action.RUN_ABORT, place, request_id=request_id, view=Action.RUN_VIEW
        )
        if found is None:
            raise not_found(place)
        reason = reason[:MAX_REASON]

        def write(tx: Transaction) -> None:
            keys = store.open_actions(tx, key) if whole_run else [key, *family.open_below(tx, key)]
            ended = [each for each in keys if store.abort(tx, each, reason=reason, by=principal.subject)]
            if not ended:
                return
            self._access.record(
                tx,
                principal,
                decision,
                event=Event.RUN_ABORT,
                request_id=request_id,
                detail={
                    "reason": reason,
                    "executed_by": found.executed_by,
                    "actions": [each.action for each in ended][:100],
                },
            )
            first = store.get(tx, key if key in ended else ended[0])
            assert first is not None  # it was there a moment ago, and nothing removes actions
            self._access.append(
                tx, endings.cancelled(first, at=tx.now, by=principal.subject, reason=reason, ended=ended)
            )
            tx.after_commit(lambda: self._ended(ended))

        await self._db.write(write)

    def _root(self, key: ActionKey) -> ActionRow | None:
        """The action that a run began with: whose task it is decides about all of the run."""
        return self._db.read_now(lambda reader: store.get(reader, key._replace(action=ROOT)))

    def _ended(self, keys: list[ActionKey]) -> None:
        scopes = {("runs", key.project, key.domain) for key in keys}
        self._events.publish(("queue",), *(("action", *key) for key in keys), *scopes)

    async def decide(
        self, principal: Principal, asked: Launch, *, request_id: str
    ) -> tuple[Definition, Decision]:
        """Authorise on the task's scope and on the run's, and find what is to run."""
        if asked.task is None:
            return await self._one_off(principal, asked, request_id=request_id)
        thing = task_resource(asked.task)
        definition = self._definitions.find(asked.task, asked.version)
        decision = await self._access.require(
            principal,
            Action.TASK_RUN,
            thing,
            request_id=request_id,
            view=Action.TASK_VIEW,
            author="" if definition is None else definition.row.deployed_by,
            latest=not asked.version,
        )
        if definition is None:
            raise not_found(thing)
        if asked.task[:2] != (asked.project, asked.domain):
            decision = decision.also(await self._place(principal, asked, request_id=request_id))
        return definition, decision

    async def _one_off(
        self, principal: Principal, asked: Launch, *, request_id: str
    ) -> tuple[Definition, Decision]:
        """A specification sent along: whoever sends it must be allowed to register it there as well."""
        spec = specs.check(
            asked.spec or task_definition_pb2.TaskSpec(),
            project=asked.project,
            domain=asked.domain,
            settings=self._settings,
        )
        identity = spec.task_template.id
        key = (asked.project, asked.domain, specs.name(identity.name))
        decision = await self._place(principal, asked, request_id=request_id)
        register = await self._access.require(
            principal, Action.TASK_REGISTER, task_resource(key), request_id=request_id
        )
        await self._tasks.secrets(
            principal, spec, project=asked.project, domain=asked.domain, request_id=request_id
        )
        identity.project, identity.domain, identity.org = asked.project, asked.domain, ""
        code = await self._tasks.code_digest(
            spec.task_template.metadata.code_bundle_uri, project=asked.project, domain=asked.domain
        )
        row = TaskRow(
            project=key[0],
            domain=key[1],
            name=key[2],
            version=identity.version or "one-off",
            digest="",
            code_digest=code,
            short_name=spec.short_name,
            environment=spec.environment.name,
            description="",
            deployed_by=principal.subject,
            deployed_at=0.0,
            serial=0,
        )
        return ready(row, spec), decision.also(register)

    async def _no_person(self, principal: Principal, asked: Launch, *, request_id: str) -> NoReturn:
        """Record and raise that this caller is nobody whom a run could act for."""
        place = Resource(ResourceType.DOMAIN, project=asked.project, domain=asked.domain)
        thing = str(place if asked.task is None else task_resource(asked.task))
        decision = Decision(False, ("no-person",), self._access.revision, Action.TASK_RUN.value, thing)
        await self._access.refuse(principal, decision, request_id=request_id)
        raise Denied("The operator of the machine runs no tasks.", hint="Use the key of a user.")

    async def _place(self, principal: Principal, asked: Launch, *, request_id: str) -> Decision:
        place = Resource(ResourceType.DOMAIN, project=asked.project, domain=asked.domain)
        return await self._access.require(
            principal, Action.TASK_RUN, place, request_id=request_id, view=Action.RUN_VIEW
        )

    async def _keep(self, asked: Launch, definition: Definition, *, by: Principal | None = None) -> Kept:
        if asked.inputs_uri:
            given = await self._inputs.uploaded(asked.inputs_uri, project=asked.project, domain=asked.domain)
        else:
            given = asked.inputs or common_pb2.Inputs()
        bound = definition.interface.bind(given).SerializeToString(deterministic=True)
        return await self._inputs.keep(asked.project, asked.domain, bound, by=by)

    async def _earlier(self, asked: Launch, definition: Definition, row: ActionRow) -> ActionRow:
        """The run that this request made before. Raises AlreadyExists when it asks for something else."""
        before = self._db.read_now(
            lambda reader: store.by_request(
                reader, executed_by=row.executed_by, request_id=row.request_id or ""
            )
        )
        if before is None:
            if asked.name:
                raise AlreadyExists(f"There is a run {asked.name} already.", hint="Leave the name to Tower.")
            raise Unavailable("The run was not accepted.", hint="Try again.")
        same = (
            (before.project, before.domain) == (asked.project, asked.domain)
            and asked.name in {"", before.run}
            and (before.task_project, before.task_domain, before.task_name) == definition.row.key
            and asked.version in {"", before.task_version}
            and (before.spec, before.run_spec) == (row.spec, row.run_spec)
            and before.inputs_hash == await self._digest_then(asked, row, before)
        )
        if not same:
            raise AlreadyExists(
                "This request id was used for another run.", hint="Send a fresh x-request-id with each call."
            )
        return before

    async def _digest_then(self, asked: Launch, row: ActionRow, before: ActionRow) -> str:
        """The digest of the inputs as the version of that time completes them."""
        if before.task_version == row.task_version:
            return row.inputs_hash
        key = (before.task_project, before.task_domain, before.task_name)
        then = self._definitions.find(key, before.task_version)
        if then is None:
            return ""
        return (await self._keep(asked, then)).digest
