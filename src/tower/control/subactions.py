"""What a running task asks for: actions of its own run, under the identity that it runs as itself.

Parent, run and executor come from the credential of the attempt that calls, never from the message (T38).
"""

from __future__ import annotations

import asyncio
import base64
import re
from collections import OrderedDict, defaultdict
from collections.abc import AsyncGenerator, Iterator
from contextlib import aclosing, contextmanager
from dataclasses import dataclass, replace
from typing import NoReturn

from flyteidl2.task import common_pb2, run_pb2, task_definition_pb2
from google.protobuf.message import DecodeError
from sqlalchemy.exc import IntegrityError

from tower.audit import Event
from tower.control import lineage, officialspecs, specs
from tower.control.access import Access
from tower.control.definitions import Definition, Definitions, read_spec
from tower.control.events import Events
from tower.control.follow import Follower, Update
from tower.control.handovers import Handovers
from tower.control.inputs import Inputs, Kept, digest
from tower.control.interface import Interface
from tower.control.launches import Launch, created
from tower.control.rawdata import RawData
from tower.control.runs import Runs, run_resource
from tower.control.tasks import resource as task_resource
from tower.control.traces import Traced, Traces
from tower.control.waiting import Waiting, attempt_of
from tower.errors import AlreadyExists, Denied, Exhausted, Invalid, Precondition, Unsupported
from tower.identity.principal import Principal
from tower.policy.actions import Action
from tower.policy.engine import Decision
from tower.settings import Settings
from tower.store import attempts, family, runs
from tower.store.database import Database, Transaction
from tower.store.definitions import TaskKey
from tower.store.runs import ROOT, ActionKey, ActionRow

DATA = "data:application/x-protobuf;base64,"
"""How inputs that travel in the message itself begin (RFC 2397): a serialised flyteidl2.task.Inputs."""

_NAME = re.compile(r"[a-z0-9][a-z0-9-]{0,29}")
_REMEMBERED = 4096


@dataclass(frozen=True, slots=True)
class Ask:
    """A child that a task asks for. `key` and `parent` are what the message says; "" says nothing.

    The task is a deployed one, `version` "" being the latest, unless `spec` is another than that version's.
    A task without project and domain is one beside the parent's, of the same version.
    """

    key: ActionKey
    parent: str
    task: TaskKey
    version: str
    spec: task_definition_pb2.TaskSpec | None
    inputs_uri: str


@dataclass(slots=True)
class _Sizes:
    """How many actions a run has, and how many children each of its actions."""

    total: int
    children: dict[str, int]


class SubActions:
    """Children of running actions: ask for one, follow all, end one."""

    def __init__(
        self,
        *,
        db: Database,
        access: Access,
        events: Events,
        definitions: Definitions,
        inputs: Inputs,
        runs: Runs,
        waiting: Waiting,
        handovers: Handovers,
        rawdata: RawData,
        settings: Settings,
    ) -> None:
        self._db = db
        self._access = access
        self._events = events
        self._definitions = definitions
        self._inputs = inputs
        self._runs = runs
        self._waiting = waiting
        self._handovers = handovers
        self._rawdata = rawdata
        self._traces = Traces(limit=settings.max_children)
        self._settings = settings
        self._sizes: OrderedDict[ActionKey, _Sizes] = OrderedDict()
        self._followers: defaultdict[ActionKey, set[Follower]] = defaultdict(set)

    async def enqueue(self, principal: Principal, asked: Ask, *, request_id: str) -> ActionKey:
        """Accept a child: it is durable, audited and queued when this returns.

        One that is there under its name already stays as it is, finished or not, if it is the same: a parent
        that is tried again finds what its former attempt asked for. Raises Denied, NotFound, Invalid,
        Precondition for a loop, Exhausted for too deep, too many or too large.
        """
        parent = await self._parent(principal, asked.key, asked.parent, request_id=request_id)
        asked = self._settled(parent, _beside(parent, asked))
        key = parent.key._replace(action=asked.key.action)
        if key.action == ROOT or not _NAME.fullmatch(key.action):
            raise Invalid("That is no name for an action.")
        given = await self._given(principal, asked, key)
        known = self._db.read_now(lambda reader: runs.get(reader, key))
        if known is not None:
            self._same(known, parent, asked, given)
            return key
        with self._room(key, parent.key):
            return await self._accept(principal, parent, key, asked, given, request_id=request_id)

    async def _accept(
        self,
        principal: Principal,
        parent: ActionRow,
        key: ActionKey,
        asked: Ask,
        given: common_pb2.Inputs,
        *,
        request_id: str,
    ) -> ActionKey:
        launch, decision, definition = await self._decide(principal, parent, asked, request_id=request_id)
        behind = lineage.depth(principal)
        bound = definition.interface.bind(given).SerializeToString(deterministic=True)
        kept = await self._inputs.keep(key.project, key.domain, bound, by=principal)
        lineage.refuse_loop(
            self._db,
            principal,
            task=definition.row.key,
            version=definition.row.version,
            inputs_hash=kept.digest,
        )
        await self._runs.quota.take(principal.subject)
        row = self._runs.launches.make(
            principal,
            launch,
            definition=definition,
            decision=decision,
            kept=kept,
            run_spec=run_pb2.RunSpec.FromString(parent.run_spec),
            request_id="",
            warning=parent.warning or await self._access.warning(principal, definition.row.deployed_by),
        )
        row = replace(
            row,
            run=key.run,
            action=key.action,
            parent=parent.action,
            labels="{}",
            request_id=None,
            turn=-behind,
        )
        try:
            await self._insert(principal, row, definition, decision, kept=kept, request_id=request_id)
        except IntegrityError:
            known = self._db.read_now(lambda reader: runs.get(reader, key))
            if known is None:
                raise
            self._same(known, parent, asked, given)
        return key

    async def follow(
        self, principal: Principal, named: ActionKey, *, request_id: str
    ) -> AsyncGenerator[Update | Traced | None, None]:
        """The children of the calling action as they are, then None, then each change. It does not end.

        While one of them has not ended, the caller counts as waiting.
        """
        parent = (await self._parent(principal, named, named.action, request_id=request_id)).key
        follower = Follower(parent, db=self._db, events=self._events, waiting=self._waiting)
        self._followers[parent].add(follower)
        for step in self._traces.of(_attempt(principal)):
            follower.echo(step)
        try:
            async with aclosing(follower.updates()) as updates:
                async for update in updates:
                    yield update
        finally:
            follower.close()
            self._followers[parent].discard(follower)
            if not self._followers[parent]:
                del self._followers[parent]

    async def trace(self, principal: Principal, named: ActionKey, parent: str, *, step: Traced) -> None:
        """Keep a step that the calling task of the official SDK recorded, and tell it so. Raises Fault."""
        above = await self._parent(principal, named, parent, request_id="")
        if not self.hosted(principal) or not _NAME.fullmatch(step.action):
            raise Unsupported("Traces are offered to tasks of the official SDK.")
        self._traces.record(_attempt(principal), step)
        for follower in self._followers.get(above.key, ()):
            follower.echo(step)

    async def abort(self, principal: Principal, named: ActionKey, *, reason: str, request_id: str) -> None:
        """End a child of the calling action and all below it. One that is not there is left alone."""
        parent = await self._parent(principal, named, "", request_id=request_id)
        key = parent.key._replace(action=named.action)
        row = self._db.read_now(lambda reader: runs.get(reader, key))
        if row is None:
            return
        if row.parent != parent.action:
            await self._forged(principal, key, request_id=request_id)
        await self._runs.abort(principal, key, reason=reason, whole_run=False, request_id=request_id)

    async def _parent(
        self, principal: Principal, named: ActionKey, parent: str, *, request_id: str
    ) -> ActionRow:
        """The action that calls. Raises Denied when none does, or when the message names another one."""
        caller = attempt_of(principal)
        if caller is None:
            await self._refuse(principal, named, "no-running-task", request_id=request_id)
            raise Denied("Only a running task asks for actions of its run.", hint="Create a run instead.")
        key, _ = caller
        if named[:3] != key[:3] or parent not in {"", key.action}:
            await self._forged(principal, named, request_id=request_id)
        row = self._db.read_now(lambda reader: runs.get(reader, key))
        if row is None or row.phase.terminal:
            raise Precondition("The action that asks has ended.")
        return row

    async def _forged(self, principal: Principal, named: ActionKey, *, request_id: str) -> NoReturn:
        await self._refuse(principal, named, "not-its-own-run", request_id=request_id)
        raise Denied("A task acts on the actions that it asked for itself, and on no others.")

    async def _refuse(self, principal: Principal, named: ActionKey, why: str, *, request_id: str) -> None:
        decision = Decision(
            False, (why,), self._access.revision, Action.TASK_RUN.value, str(run_resource(named))
        )
        await self._access.refuse(principal, decision, request_id=request_id)

    def hosted(self, principal: Principal) -> bool:
        """Whether the caller is a running task of the official SDK."""
        caller = attempt_of(principal)
        return caller is not None and self._handovers.hosts(caller[1])

    async def hand_over(self, principal: Principal, row: ActionRow) -> str:
        """Where a task of the official SDK finds the outputs of its child: a folder. Raises Fault."""
        caller = attempt_of(principal)
        assert caller is not None
        attempt, folder = caller[1], self._handovers.folder(caller[1])

        async def with_files(data: bytes) -> bytes:
            outputs = common_pb2.Outputs.FromString(data)
            await self._rawdata.given(outputs, folder=folder, attempt=attempt)
            changed: bytes = outputs.SerializeToString(deterministic=True)
            return changed

        return await self._handovers.outputs(attempt, row, change=with_files)

    async def _given(self, principal: Principal, asked: Ask, key: ActionKey) -> common_pb2.Inputs:
        if not asked.inputs_uri:
            return common_pb2.Inputs()
        caller = attempt_of(principal)
        if caller is not None and self._handovers.hosts(caller[1]):
            limit = self._settings.max_inputs
            given = _parse(self._handovers.inputs(caller[1], key.action, asked.inputs_uri, limit=limit))
            await self._rawdata.taken(given, folder=self._handovers.folder(caller[1]).parent, run=key)
            return given
        if not asked.inputs_uri.startswith(DATA):
            uri = asked.inputs_uri.removesuffix("/inputs.pb")
            return await self._inputs.uploaded(uri, project=key.project, domain=key.domain)
        if len(asked.inputs_uri) > len(DATA) + self._settings.max_inputs * 4 // 3 + 4:
            raise Exhausted(f"The inputs are larger than {self._settings.max_inputs} bytes.")
        try:
            return _parse(base64.b64decode(asked.inputs_uri.removeprefix(DATA), validate=True))
        except ValueError as error:
            raise Invalid("The inputs in the message cannot be read.") from error

    def _same(self, known: ActionRow, parent: ActionRow, asked: Ask, given: common_pb2.Inputs) -> None:
        """Raise AlreadyExists when the name belongs to another child than the one that is asked for."""
        spec = self._spec_of(known)
        same = (
            known.parent == parent.action
            and (known.task_project, known.task_domain, known.task_name) == asked.task
            and asked.version in {"", known.task_version}
            and spec is not None
            and known.inputs_hash == digest(Interface(spec).bind(given))
        )
        if not same:
            raise AlreadyExists(f"The run has another action of the name {known.action}.")

    def _spec_of(self, row: ActionRow) -> task_definition_pb2.TaskSpec | None:
        if row.spec is not None:
            return read_spec(row.spec)
        found = self._definitions.find((row.task_project, row.task_domain, row.task_name), row.task_version)
        return None if found is None else found.spec

    async def _decide(
        self, principal: Principal, parent: ActionRow, asked: Ask, *, request_id: str
    ) -> tuple[Launch, Decision, Definition]:
        """What is to run, and that the caller may run it there, and register it if it is one of its own."""
        launch = Launch(
            project=parent.project,
            domain=parent.domain,
            run_spec=run_pb2.RunSpec(),
            task=asked.task,
            version=asked.version,
        )
        if asked.spec is not None and not self._deployed(asked):
            spec = self._completed(asked, parent)
            launch = replace(launch, task=None, version="", spec=spec)
            place = (parent.project, parent.domain, specs.name(asked.task[2]))
            decision = await self._access.require(
                principal, Action.TASK_RUN, task_resource(place), request_id=request_id, view=Action.TASK_VIEW
            )
            definition, more = await self._runs.decide(principal, launch, request_id=request_id)
            return launch, decision.also(more), definition
        definition, decision = await self._runs.decide(principal, launch, request_id=request_id)
        return launch, decision, definition

    def _deployed(self, asked: Ask) -> bool:
        """Whether the specification that came along is that of the deployed version."""
        found = self._definitions.find(asked.task, asked.version) if asked.version else None
        if found is None or asked.spec is None:
            return False
        if officialspecs.hosts(asked.spec):
            return officialspecs.same(asked.spec, found.spec)
        spec = task_definition_pb2.TaskSpec()
        spec.CopyFrom(asked.spec)
        spec.task_template.id.CopyFrom(found.spec.task_template.id)
        return bool(spec == found.spec)

    def _settled(self, parent: ActionRow, asked: Ask) -> Ask:
        """What a task of the official SDK asks for, in the words of its deployment."""
        if asked.spec is None or not officialspecs.hosts(asked.spec):
            return asked
        above = self._spec_of(parent)
        return asked if above is None else replace(asked, spec=officialspecs.settled(asked.spec, above))

    def _completed(self, asked: Ask, parent: ActionRow) -> task_definition_pb2.TaskSpec:
        """The specification by its name; without a code bundle of its own it has that of the parent."""
        spec = task_definition_pb2.TaskSpec()
        spec.CopyFrom(asked.spec or spec)
        template = spec.task_template
        template.id.name, template.id.version = asked.task[2], asked.version
        if not template.metadata.code_bundle_uri:
            above = self._spec_of(parent)
            if above is not None:
                template.metadata.code_bundle_uri = above.task_template.metadata.code_bundle_uri
        return spec

    @contextmanager
    def _room(self, key: ActionKey, parent: ActionKey) -> Iterator[None]:
        """Count one more during the block, and for good unless that raises. Raises Exhausted over a limit."""
        sizes = self._sizes_of(key)
        if parent.action not in sizes.children:
            sizes.children[parent.action] = self._db.read_now(
                lambda reader: family.count_children(reader, parent)
            )
        if sizes.children[parent.action] >= self._settings.max_children:
            raise Exhausted(f"A task asks for at most {self._settings.max_children} other tasks.")
        if sizes.total >= self._settings.max_actions:
            raise Exhausted(f"A run has at most {self._settings.max_actions} actions.")
        sizes.total += 1
        sizes.children[parent.action] += 1
        try:
            yield
        except BaseException:
            sizes.total -= 1
            sizes.children[parent.action] -= 1
            raise

    def _sizes_of(self, key: ActionKey) -> _Sizes:
        run = key._replace(action=ROOT)
        sizes = self._sizes.get(run)
        if sizes is None:
            sizes = _Sizes(self._db.read_now(lambda reader: family.count(reader, run)), {})
            self._sizes[run] = sizes
            if len(self._sizes) > _REMEMBERED:
                self._sizes.popitem(last=False)
        self._sizes.move_to_end(run)
        return sizes

    async def _insert(
        self,
        principal: Principal,
        row: ActionRow,
        definition: Definition,
        decision: Decision,
        *,
        kept: Kept,
        request_id: str,
    ) -> None:
        parent = row.key._replace(action=row.parent or ROOT)
        place = self._waiting.take(row.key)

        def write(tx: Transaction) -> None:
            self._inputs.store(tx, kept)
            if place is None:
                runs.insert(tx, row)
            else:
                leased = attempts.insert(tx, row)
                tx.after_commit(lambda: place.begin(leased))
            self._access.record(
                tx,
                principal,
                decision,
                event=Event.RUN_CREATE,
                request_id=request_id,
                detail=created(row, definition),
            )
            tx.after_commit(lambda: self._accepted(row.key, parent))

        if place is None:
            await self._db.write(write, simple=True)
            return

        def written(task: asyncio.Task[None]) -> None:
            if task.cancelled() or task.exception() is not None:
                place.give_back()

        # also when the caller hangs up it is written, as a rule, and then the attempt starts
        writing = asyncio.create_task(self._db.write(write, simple=True))
        writing.add_done_callback(written)
        await asyncio.shield(writing)

    def _accepted(self, key: ActionKey, parent: ActionKey) -> None:
        for follower in self._followers.get(parent, ()):
            follower.tell(key)
        self._events.publish(("queue",), ("runs", key.project, key.domain))


def _attempt(principal: Principal) -> str:
    caller = attempt_of(principal)
    return "" if caller is None else caller[1]


def _parse(data: bytes) -> common_pb2.Inputs:
    """Inputs as a task sent them. Raises Invalid."""
    try:
        inputs: common_pb2.Inputs = common_pb2.Inputs.FromString(data)
    except DecodeError as error:
        raise Invalid("The inputs in the message cannot be read.") from error
    return inputs


def _beside(parent: ActionRow, asked: Ask) -> Ask:
    """What is asked for, with the place and version of the parent's own task where the message names none."""
    project, domain, name = asked.task
    if project or domain:
        return asked
    return replace(
        asked,
        task=(parent.task_project, parent.task_domain, name),
        version=asked.version or parent.task_version,
    )
