"""Asking for runs and stopping them; who did is recorded in the transaction of the effect."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from math import inf
from typing import NamedTuple, NoReturn

from flyteidl2.task import common_pb2, run_pb2, task_definition_pb2
from sqlalchemy.exc import IntegrityError

from tower.audit import Event
from tower.clock import Clock
from tower.control import endings, lineage, privileges, runspecs, specs
from tower.control.access import Access, not_found
from tower.control.definitions import Definition, Definitions, ready
from tower.control.events import Events
from tower.control.grants import actors_to_text, ceilings_to_text
from tower.control.inputs import Inputs, Kept
from tower.control.projects import Projects
from tower.control.quota import Quota
from tower.control.tasks import Tasks
from tower.control.tasks import resource as task_resource
from tower.errors import AlreadyExists, Denied, Unavailable
from tower.identity.principal import CredentialKind, Kind, Principal
from tower.policy.actions import Action, Resource, ResourceType
from tower.policy.engine import Decision
from tower.settings import Settings
from tower.states import Phase
from tower.store import family
from tower.store import runs as store
from tower.store.database import Database, Transaction
from tower.store.definitions import TaskKey, TaskRow
from tower.store.runs import ROOT, ActionKey, ActionRow, Person, Template

MAX_REASON = 500
_REMEMBERED = 16_384


@dataclass(slots=True)  # not frozen: for this many fields that would cost 2 µs on each new run
class Launch:
    """What a caller asks for. Either `task` with `version` ("" is the latest) or `spec` names what runs.

    `name` "" lets Tower name the run. Inputs come as a message or as the URI of an earlier upload. `grant` is
    how long the run may act for its person at most, in seconds; None takes as long as this Tower gives.
    """

    project: str
    domain: str
    run_spec: run_pb2.RunSpec
    name: str = ""
    task: TaskKey | None = None
    version: str = ""
    spec: task_definition_pb2.TaskSpec | None = None
    inputs: common_pb2.Inputs | None = None
    inputs_uri: str = ""
    grant: float | None = None


class _Usual(NamedTuple):
    """What the runs of one caller of one task have in common, as long as the decision about them stands.

    `Access` decides anew when anything changes that it looked at, and then it is another decision.
    """

    principal: Principal
    definition: Definition
    decision: Decision
    template: Template
    executor: Person


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
        self._clock = clock
        self._access = access
        self._events = events
        self._definitions = definitions
        self._tasks = tasks
        self._projects = projects
        self._inputs = inputs
        self._settings = settings
        self.quota = Quota(db=db, clock=clock, limit=settings.max_open_runs)
        """Shared with whatever else creates actions."""
        self._usual: dict[tuple[int, int], _Usual] = {}

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
        row, executor = await self._new(
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

    async def _new(
        self,
        principal: Principal,
        asked: Launch,
        *,
        definition: Definition,
        decision: Decision,
        kept: Kept,
        request_id: str,
    ) -> tuple[ActionRow, Person]:
        """The row of a new run, and whose it is."""
        run_spec = runspecs.clean(asked.run_spec, principal=principal, settings=self._settings)
        known = self._usual.get((id(principal), id(definition)))
        if (
            known is not None
            and known.principal is principal
            and known.definition is definition
            and known.decision is decision
            and run_spec is runspecs.NOTHING
        ):
            now = self._clock.now()
            row = known.template.fill(
                run=asked.name or self._clock.name("r"),
                inputs_uri=kept.uri,
                inputs_hash=kept.digest,
                request_id=request_id,
                now=now,
                grant_expires_at=self._grant_end(principal, now, asked.grant),
            )
            return row, known.executor
        row = self.row(
            principal,
            asked,
            definition=definition,
            decision=decision,
            kept=kept,
            run_spec=run_spec,
            request_id=request_id,
            warning=await self._access.warning(principal, definition.row.deployed_by),
        )
        executor = person(principal)
        # a key names the same principal each time; others are made anew at each call, and not found again
        again = principal.credential.kind is CredentialKind.API_KEY and not principal.actors
        if again and run_spec is runspecs.NOTHING and asked.task is not None:
            if len(self._usual) >= _REMEMBERED:
                self._usual.clear()
            usual = _Usual(principal, definition, decision, Template(row), executor)
            self._usual[id(principal), id(definition)] = usual
        return row, executor

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

    def _grant_end(self, principal: Principal, now: float, asked: float | None) -> float:
        """Until when a new run may act for its person: never longer than the run that asks for it."""
        ends = now + min(self._settings.max_grant, inf if asked is None else asked)
        if principal.credential.kind is CredentialKind.WORKLOAD:
            return min(ends, principal.credential.expires_at or ends)
        return ends

    def row(
        self,
        principal: Principal,
        asked: Launch,
        *,
        definition: Definition,
        decision: Decision,
        kept: Kept,
        run_spec: run_pb2.RunSpec,
        request_id: str,
        warning: str,
    ) -> ActionRow:
        """The row of a new run, as nothing knows it yet."""
        now = self._clock.now()
        task = definition.row
        spec = None if asked.task is not None else definition.spec.SerializeToString(deterministic=True)
        return ActionRow(
            project=asked.project,
            domain=asked.domain,
            run=asked.name or self._clock.name("r"),
            action=ROOT,
            parent=None,
            task_project=task.project,
            task_domain=task.domain,
            task_name=task.name,
            task_version=task.version,
            spec=spec,
            code_digest=task.code_digest,
            inputs_uri=kept.uri,
            inputs_hash=kept.digest,
            run_spec=run_spec.SerializeToString(deterministic=True),
            labels=json.dumps(dict(run_spec.labels.values), sort_keys=True)
            if run_spec.labels.values
            else "{}",
            executed_by=principal.subject,
            via_app=principal.via_app,
            credential_kind=principal.credential.kind.value,
            credential_id=principal.credential.root,
            actors=actors_to_text(principal.actors) if principal.actors else "[]",
            ceilings=ceilings_to_text(principal.ceilings) if principal.ceilings else "[]",
            decision=",".join(decision.policies),
            policy_revision=decision.revision,
            request_id=request_id,
            phase=Phase.QUEUED,
            attempts=0,
            max_attempts=definition.max_attempts,
            queue_timeout=min(definition.queue_timeout or inf, self._settings.queue_timeout),
            run_timeout=min(definition.run_timeout or inf, self._settings.run_timeout),
            created_at=now,
            queued_at=now,
            started_at=None,
            ended_at=None,
            outputs_uri="",
            error="",
            abort_reason="",
            aborted_by="",
            turn=-lineage.depth(principal),
            warning=warning,
            grant_expires_at=self._grant_end(principal, now, asked.grant),
        )


def created(row: ActionRow, definition: Definition) -> dict[str, str]:
    """What the audit says of a new action besides who and why: what runs, on what, and whose code it is."""
    detail = {
        "run": f"{row.project}/{row.domain}/{row.run}",
        "version": row.task_version,
        "code_digest": row.code_digest,
        "inputs": row.inputs_hash,
    }
    if row.parent is not None:
        detail |= {"action": row.action, "parent": row.parent}
    if definition.row.deployed_by != row.executed_by:
        detail["author"] = definition.row.deployed_by
    if row.warning:
        detail["warning"] = row.warning
    given = privileges.from_text(definition.row.privileges)
    if given is not None and row.spec is None:
        detail |= {"privileges": " ".join(sorted(given.actions)), "given_by": given.by}
    return detail


def person(principal: Principal) -> Person:
    """The caller as a row names them."""
    return Person(principal.subject, principal.kind.value, principal.name, principal.email)
