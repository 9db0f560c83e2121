"""Does the identity of a running task still stand? Asked at every call of it, and before it starts.

A run acts for its person under a grant made at submission: it outlives the person's session, login or token,
and ends when it expires or is revoked, when the account is off, the key is deleted, the right to run the task
is gone, or the run is aborted. Whatever the run asked for stands on the same grant: each link of the chain of
actors must hold, so one broken link ends everything behind it at its next call.
"""

from __future__ import annotations

from collections import OrderedDict
from dataclasses import dataclass, replace

from tower.clock import Clock, utc
from tower.control.access import Access
from tower.control.directory import Directory, principal_of_run
from tower.errors import Unauthenticated
from tower.identity.directory import SubjectFacts
from tower.identity.principal import ActorKind, Credential, CredentialKind, Principal
from tower.identity.webhooks import ID_PREFIX as WEBHOOK_PREFIX
from tower.policy.actions import Action, Resource, ResourceType
from tower.policy.engine import Engine
from tower.states import Phase
from tower.store import agents, identities
from tower.store import grants as store
from tower.store.database import Database, Reader
from tower.store.grants import GrantRow
from tower.store.identities import AttemptRow
from tower.store.runs import ROOT, ActionKey

LONGEST = 7 * 24 * 3600.0
"""How long a grant lasts at most where the operator says nothing else (seconds)."""

_REMEMBERED = 4096
_HINT = "The task goes on without an identity; start a new run."


_Facts = tuple[AttemptRow, tuple[GrantRow | None, ...]]


@dataclass(slots=True)
class _Known:
    """An answer with what it was made of: as long as none of that changes, it is the answer."""

    version: int
    people: tuple[int, Engine]
    facts: _Facts | None
    principal: Principal


class Standing:
    """The `Attempts` and `Parents` of the authenticators."""

    def __init__(
        self,
        *,
        db: Database,
        clock: Clock,
        access: Access,
        directory: Directory,
        longest: float = LONGEST,
    ) -> None:
        """`longest` bounds grants that an earlier version did not record."""
        self._db = db
        self._clock = clock
        self._access = access
        self._directory = directory
        self._longest = longest
        self._known: OrderedDict[str, _Known] = OrderedDict()
        self._held: OrderedDict[str, tuple[int, bytes]] = OrderedDict()

    async def subject(self, subject: str) -> SubjectFacts | None:
        """The subject as of the last commit, or None."""
        return await self._directory.subject(subject)

    async def alive(self, kind: CredentialKind, public_id: str, subject: str) -> bool:
        """Whether the credential behind an exchanged token still holds for this subject."""
        if kind is not CredentialKind.WORKLOAD:
            return await self._directory.alive(kind, public_id, subject)
        try:
            principal = await self.attempt(public_id)
        except Unauthenticated:
            return False
        return principal is not None and principal.subject == subject

    async def attempt(self, attempt_id: str) -> Principal | None:
        """Whom a running attempt acts for; None once it is over, or the account or the key is off.

        Raises Unauthenticated, saying why, when the attempt runs on but its grant or its right has ended.
        The principal's credential ends with the grant.
        """
        people = self._directory.epoch, self._access.engine
        version = self._db.version()
        known = self._known.get(attempt_id)
        if (
            known is not None
            and known.people == people
            and (known.principal.credential.expires_at or 0.0) > self._clock.now()
            # nothing was committed since, or nothing that the answer was made of
            and (known.version == version or self._unchanged(known))
        ):
            self._known.move_to_end(attempt_id)
            known.version = version
            return known.principal
        principal = await self._ask(attempt_id)
        if principal is not None:
            self._remember(attempt_id, version, people, principal)
        return principal

    def _unchanged(self, known: _Known) -> bool:
        return known.facts is not None and self._facts(known.principal) == known.facts

    def _remember(
        self, attempt_id: str, version: int, people: tuple[int, Engine], principal: Principal
    ) -> None:
        facts: _Facts | None = self._facts(principal)
        if self._db.version() != version:
            facts = None  # they may be younger than the answer
        self._known[attempt_id] = _Known(version, people, facts, principal)
        if len(self._known) > _REMEMBERED:
            self._known.popitem(last=False)

    def _facts(self, principal: Principal) -> _Facts | None:
        """What the store says of an attempt and of each link of its chain; None where that is not all.

        People, keys, webhooks and rules are no part of it: the epoch of the directory and the engine stand
        for them.
        """
        chain = [actor.id for actor in principal.actors if actor.kind is ActorKind.RUN]
        project, domain, run, action, number = chain[-1].split("/")

        def read(reader: Reader) -> _Facts | None:
            row = identities.attempt(
                reader, project=project, domain=domain, run=run, action=action, attempt=int(number)
            )
            if row is None:
                return None
            return row, tuple(store.get(reader, ActionKey(*each.split("/")[:4])) for each in chain)

        return self._db.read_now(read)

    async def _ask(self, attempt_id: str) -> Principal | None:
        principal = await self._directory.attempt(attempt_id)
        if principal is None:
            return None
        ends = float("inf")
        for actor in principal.actors:
            if actor.kind is ActorKind.RUN:
                ends = min(ends, await self._link(principal, actor.id))
        return replace(principal, credential=replace(principal.credential, expires_at=ends))

    async def gone(self, attempt_id: str) -> str:
        """Why nobody is left for whom a running attempt could act, as a sentence, or "".

        That is what somebody did on purpose, to the person, the key, the webhook or a grant of the chain:
        then it is stopped. A right that is lost is none of it: it may come back, and ends each call until
        then.
        """
        project, domain, run, action, number = attempt_id.split("/")
        row = self._db.read_now(
            lambda reader: identities.attempt(
                reader, project=project, domain=domain, run=run, action=action, attempt=int(number)
            )
        )
        if row is None:
            return ""  # over, or not begun
        principal = await self._directory.attempt(attempt_id)
        if principal is None:
            hook = row.credential_id
            if hook.startswith(WEBHOOK_PREFIX) and self._directory.webhook_off(hook, row.executed_by):
                return "The webhook that this run was asked for by was deleted or replaced."
            return "The account or the key that this run was asked for with does not hold any more."
        for actor in principal.actors:
            if actor.kind is ActorKind.RUN:
                key = ActionKey(*actor.id.split("/")[:4])
                link = self._db.read_now(lambda reader, key=key: store.get(reader, key))  # type: ignore[misc]
                if link is not None and link.revoked_at is not None:
                    return ended(link, now=self._clock.now(), longest=self._longest)
        return ""

    def held(self, attempt_id: str, agent: bytes) -> bool:
        """Whether this is the key of the one agent that may hold tokens of the attempt."""
        version = self._db.version()
        if self._held.get(attempt_id) == (version, agent):
            return True
        project, domain, run, action, number = attempt_id.split("/")
        place = project, domain, run, action, int(number)
        row = self._db.read_now(lambda reader: agents.get(reader, place))
        if row is None or row.ended_at is not None or row.key != agent:
            return False
        self._held[attempt_id] = version, agent
        if len(self._held) > _REMEMBERED:
            self._held.popitem(last=False)
        return True

    async def _link(self, principal: Principal, attempt_id: str) -> float:
        """When the grant of one action of the chain ends. Raises Unauthenticated where it holds no more."""
        *place, number = attempt_id.split("/")
        key = ActionKey(*place)
        row = self._db.read_now(lambda reader: store.get(reader, key))
        if row is None:
            raise Unauthenticated("The run that this one stands on is gone.", hint=_HINT)
        if row.phase is Phase.ABORTED:
            raise Unauthenticated(f"The run {row.run} was aborted, and its identity with it.", hint=_HINT)
        ends = self._ends(row) if row.action == ROOT else float("inf")
        await self._right(principal, row, int(number))
        return ends

    def _ends(self, row: GrantRow) -> float:
        why = ended(row, now=self._clock.now(), longest=self._longest)
        if why:
            raise Unauthenticated(why, hint=_HINT)
        return expiry(row, longest=self._longest)

    async def _right(self, principal: Principal, row: GrantRow, number: int) -> None:
        """The person may still run this task there, under the limits that this link of the chain had."""
        person = await self._directory.subject(principal.subject)
        assert (
            person is not None
        )  # `Directory.attempt` found them, and nothing was awaited that could change it
        run = principal_of_run(_attempt(row, number), person)
        kind = CredentialKind(row.credential_kind)
        # policies see the question as it was asked: with what, through what, and not by the run itself
        as_then = replace(
            run,
            actors=run.actors[:-1],
            credential=Credential(
                kind,
                row.credential_id,
                attested=kind is CredentialKind.WORKLOAD or bool(row.via_app),
                parent=row.credential_id,
            ),
        )
        task = Resource(ResourceType.TASK, row.task_project, row.task_domain, row.task_name)
        things = [task]
        if (row.project, row.domain) != (row.task_project, row.task_domain):
            things.append(Resource(ResourceType.DOMAIN, row.project, row.domain))
        engine = self._access.engine
        for thing in things:
            if not (await self._access.check_under(engine, as_then, Action.TASK_RUN, thing)).allowed:
                raise Unauthenticated(f"{row.executed_by} may not run {row.task_name} any more.", hint=_HINT)


def expiry(row: GrantRow, *, longest: float = LONGEST) -> float:
    """When a grant ends by itself (seconds since the epoch)."""
    return row.created_at + longest if row.expires_at is None else row.expires_at


def ended(row: GrantRow, *, now: float, longest: float = LONGEST) -> str:
    """Why a grant holds no more, as a sentence, or ""."""
    if row.revoked_at is not None:
        return f"The grant of the run {row.run} was revoked by {row.revoked_by}."
    ends = expiry(row, longest=longest)
    if ends <= now:
        return f"The grant of the run {row.run} ended at {utc(ends).isoformat(timespec='seconds')}."
    return ""


def _attempt(row: GrantRow, number: int) -> AttemptRow:
    return AttemptRow(
        project=row.project,
        domain=row.domain,
        run=row.run,
        action=row.action,
        attempt=number,
        executed_by=row.executed_by,
        credential_kind=row.credential_kind,
        credential_id=row.credential_id,
        actors=row.actors,
        ceilings=row.ceilings,
    )
