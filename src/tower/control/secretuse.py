"""Giving secrets to running work: what it declared, of what its deployer and its executor may both use.

A task's names are looked up as of its own project and domain, the nearest first: the executor's own secret,
that of the domain, of the project, of the installation. What the deployer could use is noted at deployment,
so that nobody gets at a secret by having somebody stronger run their code (T1); the executor's right is asked
at the start of each attempt. An app runs as nobody: it gets what its deployer could use with the credential
that they showed, and may use when it starts.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field

from flyteidl2.app import app_definition_pb2
from flyteidl2.core import security_pb2
from flyteidl2.task import task_definition_pb2

from tower.audit import Event
from tower.clock import Clock
from tower.control import secrets
from tower.control.access import Access
from tower.control.definitions import Definitions, read_spec
from tower.control.pace import Pace
from tower.control.redaction import Redaction
from tower.control.secrets import SecretPlace, SecretRow
from tower.control.starting import Starting
from tower.control.waiting import attempt_of
from tower.errors import Denied, NotFound, Precondition
from tower.identity.principal import CredentialKind, Principal
from tower.identity.sealing import SealingKeys
from tower.policy.actions import Action, Resource, ResourceType
from tower.policy.engine import Decision
from tower.store import runs
from tower.store import secrets as store
from tower.store.apps import AppRow
from tower.store.database import Database, Transaction
from tower.store.runs import ActionRow

LEVELS = ("domain", "project", "org")
BURST = 20
SECONDS_EACH = 10.0
_FILE = security_pb2.Secret.MountType.FILE


@dataclass(frozen=True, slots=True)
class Given:
    """A secret on its way into a process: its value, or with `file` the path of it, goes into `variable`."""

    name: str
    variable: str
    file: bool
    value: bytes = field(repr=False)


@dataclass(frozen=True, slots=True)
class _Work:
    """What asks: where its names are looked up, what it declared, what it may be given at most."""

    id: str
    project: str
    domain: str
    declared: Sequence[security_pb2.Secret]
    levels: Mapping[str, Sequence[str]]
    owner: str
    run: str
    author: str


class SecretUse:
    """What deployments and starting processes ask of secrets."""

    def __init__(
        self,
        *,
        db: Database,
        access: Access,
        definitions: Definitions,
        keys: SealingKeys,
        redaction: Redaction,
        starting: Starting,
        clock: Clock,
    ) -> None:
        self._pace = Pace(clock, burst=BURST, seconds=SECONDS_EACH)
        self._starting = starting
        self._db = db
        self._access = access
        self._definitions = definitions
        self._keys = keys
        self._redaction = redaction

    async def grantable(
        self,
        principal: Principal,
        declared: Iterable[security_pb2.Secret],
        *,
        project: str,
        domain: str,
        request_id: str,
    ) -> dict[str, list[str]]:
        """The levels at which the caller may use each declared secret: what their code can be given.

        Raises Denied or NotFound when it is none for one of them. Running work declares no secrets for other
        work: else code could have its executor deploy more code, and give that what its author may not use.
        """
        found: dict[str, list[str]] = {}
        for secret in declared:
            if principal.actors:
                raise Denied(
                    "Work that asks for secrets is deployed by a person, not by a task or an app.",
                    hint="Deploy it from a terminal; then it can be run from here.",
                )
            places = [
                SecretPlace(secret.key, *place) for place in ((project, domain), (project, ""), ("", ""))
            ]
            await self._access.require(
                principal,
                Action.SECRET_USE,
                secrets.resource(places[0]),
                request_id=request_id,
                view=Action.SECRET_LIST,
            )
            found[secret.key] = [
                level
                for level, place in zip(LEVELS, places, strict=True)
                if (await self._access.check(principal, Action.SECRET_USE, secrets.resource(place))).allowed
            ]
        return found

    async def deliver(self, principal: Principal, *, ticket: str = "", request_id: str = "") -> list[Given]:
        """What the calling attempt or app declared. Raises NotFound naming the first that it does not get.

        An app shows the ticket of its start: an older process of it is given nothing.
        """
        work = await self._work(principal, ticket, request_id=request_id)
        self._pace.take(work.id, what="its secrets")
        chosen = [
            await self._choose(principal, work, secret.key, request_id=request_id) for secret in work.declared
        ]

        def write(tx: Transaction) -> list[bytes]:
            values = []
            for chosen_row, decision in chosen:
                row = store.at(tx, chosen_row.place)  # its key may have been changed since
                if row is None:
                    raise _missing(chosen_row.name)
                values.append(self._keys.open(secrets.sealed(row), context=secrets.context(row)))
                self._access.record(
                    tx,
                    principal,
                    decision,
                    event=Event.SECRET_READ,
                    request_id=request_id,
                    detail={**secrets.told(row), **({"run": work.run} if work.run else {"app": work.id})},
                )
            return values

        values = await self._db.write(write)
        self._redaction.add(work.id, values)
        return [
            Given(
                name=secret.key,
                variable=secret.env_var,
                file=secret.mount_requirement == _FILE,
                value=value,
            )
            for secret, value in zip(work.declared, values, strict=True)
        ]

    async def _choose(
        self, principal: Principal, work: _Work, name: str, *, request_id: str
    ) -> tuple[SecretRow, Decision]:
        rows = self._db.read_now(
            lambda reader: store.named(
                reader, name, project=work.project, domain=work.domain, owner=work.owner
            )
        )
        refused: Decision | None = None
        for row in rows:
            if not row.owner and secrets.level(row) not in work.levels.get(name, ()):
                continue
            thing = secrets.resource(row.place)
            decision = await self._access.check(principal, Action.SECRET_USE, thing, author=work.author)
            if decision.allowed:
                return row, decision
            refused = refused or decision
        if refused is None:
            place = SecretPlace(name, work.project, work.domain)
            refused = Decision(
                False,
                ("no-such-secret",),
                self._access.revision,
                Action.SECRET_USE.value,
                str(secrets.resource(place)),
            )
        await self._access.refuse(
            principal, refused, request_id=request_id, detail={"secret": name, "run": work.run}
        )
        raise _missing(name)

    async def _work(self, principal: Principal, ticket: str, *, request_id: str) -> _Work:
        if principal.credential.kind is CredentialKind.WORKLOAD and not principal.actors:
            return self._app(principal, ticket)
        caller = attempt_of(principal)
        if caller is None:
            org = str(Resource(ResourceType.ORG))
            refused = Decision(
                False, ("no-running-task",), self._access.revision, Action.SECRET_USE.value, org
            )
            await self._access.refuse(principal, refused, request_id=request_id)
            raise Denied("Secrets are given to running tasks and apps alone.", hint="Declare them there.")
        key, attempt = caller
        row = self._db.read_now(lambda reader: runs.get(reader, key))
        if row is None or row.phase.terminal:
            raise Precondition("The action that asks has ended.")
        return self._attempt(row, attempt)

    def _attempt(self, row: ActionRow, attempt_id: str) -> _Work:
        task = (row.task_project, row.task_domain, row.task_name)
        levels: Mapping[str, Sequence[str]]
        if row.spec is not None:
            # whoever sent it along is whom it runs as, and nothing that runs may send secrets along
            declared = declared_by(read_spec(row.spec))
            levels = {secret.key: LEVELS for secret in declared}
            author = row.executed_by
        else:
            definition = self._definitions.find(task, row.task_version)
            if definition is None:
                raise NotFound(f"The task {row.task_name} at version {row.task_version} is gone.")
            declared = declared_by(definition.spec)
            author = definition.row.deployed_by
            levels = self._db.read_now(lambda reader: store.granted(reader, task, row.task_version))
        return _Work(
            id=attempt_id,
            project=row.task_project,
            domain=row.task_domain,
            declared=declared,
            levels=levels,
            owner=row.executed_by,
            run="/".join(row.key[:3]),
            author=author,
        )

    def _app(self, principal: Principal, ticket: str) -> _Work:
        app = principal.credential.id
        row = self._starting.take(app, ticket)
        if row is None or row.deployed_by != principal.subject:
            raise Precondition("This app is not being started.", hint="Secrets are given at the start alone.")
        declared = list(app_definition_pb2.App.FromString(row.spec).spec.security_context.secrets)
        return _Work(
            id=app,
            project=row.project,
            domain=row.domain,
            declared=declared,
            levels=self._db.read_now(lambda reader: store.granted(reader, _app_key(row), str(row.revision))),
            owner="",  # an app serves everyone: what is one person's own is not for it
            run="",
            author="",
        )


def grant_app(tx: Transaction, row: AppRow, levels: Mapping[str, Sequence[str]]) -> None:
    """Note what a revision of an app may be given."""
    if levels:
        store.grant(tx, _app_key(row), str(row.revision), levels, by=row.deployed_by)


def _app_key(row: AppRow) -> tuple[str, str, str]:
    """Where it is noted: no task has a blank in its name."""
    return row.project, row.domain, f"app {row.name}"


def declared_by(spec: task_definition_pb2.TaskSpec) -> list[security_pb2.Secret]:
    """The secrets that a task declares."""
    return list(spec.task_template.security_context.secrets)


def _missing(name: str) -> NotFound:
    """The same whether it is absent, or there and not for this task or person."""
    return NotFound(f"There is no secret {name} here.", hint="Or whom this runs as may not use it.")
