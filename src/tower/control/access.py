"""The one place that decides what a caller may do, and that records what was decided.

    what the person may do now ∩ every ceiling on the way: credential, app, run

The limits that an app has now are looked up at each call, besides those in its tokens and runs.

An allowed call records itself inside the transaction of its effect (`record`); a refusal has a transaction of
its own that the caller cannot cancel. What may not be viewed is answered as if it did not exist (T43).
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from tower.audit import Entry, Event, Outcome, Record
from tower.control.denials import Denials
from tower.control.directory import Directory
from tower.control.givers import Givers
from tower.control.refusals import Refusals
from tower.control.repeats import Due, Repeats, Sighting
from tower.control.wording import not_found, remedy, spoken
from tower.errors import Denied
from tower.identity.offers import Presented
from tower.identity.principal import ActorKind, Ceiling, Kind, Principal
from tower.policy.actions import Action, Resource, ResourceType
from tower.policy.engine import Call, Decision, Engine, Explanation
from tower.policy.rules import NOTHING, Binding
from tower.store import audit as store
from tower.store.database import Database, Transaction

__all__ = ["CHECKPOINT_EVERY", "FOREIGN_CODE", "VIEWS", "Access", "not_found"]

VIEWS = frozenset(
    {Action.PROJECT_VIEW, Action.TASK_VIEW, Action.RUN_VIEW, Action.APP_VIEW, Action.SECRET_LIST}
)
"""Refusing one of these is answered as NotFound."""

CHECKPOINT_EVERY = 1000
"""So many records at most are written before the end of the chain is signed."""

FOREIGN_CODE = "foreign-code"
"""A privileged person ran code that somebody else registered (T1)."""

_DECISIONS = 16384
_NOTHING: Mapping[str, Any] = {}


class Access:
    """One per process, shared by every use-case."""

    def __init__(
        self,
        *,
        db: Database,
        engine: Engine,
        directory: Directory,
        refusals: Refusals | None = None,
        denials: Denials | None = None,
    ) -> None:
        """Without `refusals` credentials that do not hold are not recorded.

        Without `denials` each refusal of a known caller is a record, however many there are.
        """
        self._db = db
        self._engine = engine
        self._directory = directory
        self._givers = Givers(directory)
        self._decided: dict[tuple[int, Action, Resource, str, bool], tuple[Principal, Decision]] = {}
        self._refusals = refusals
        self._denials = denials
        self.settling: list[Repeats] = [] if denials is None else [denials.repeats]
        """What else `settle` has to write: things that are counted and not each recorded."""
        self._decided_under: tuple[int, Engine] = (directory.epoch, engine)
        self.due = asyncio.Event()
        """Set when so many records were written that the chain is to be signed again (`control.auditing`)."""

    @property
    def revision(self) -> str:
        """The revision of the policy set in force."""
        return self._engine.revision

    @property
    def engine(self) -> Engine:
        """What decides now."""
        return self._engine

    def adopt(self, engine: Engine) -> None:
        """Decide by another rule book from the next call on. Call it after the commit of a change."""
        self._engine = engine

    def forget(self) -> None:
        """Read people, keys and the limits of apps again. Call it after the commit of a change of any."""
        self._directory.forget()

    async def check(
        self,
        principal: Principal,
        action: Action,
        resource: Resource,
        *,
        author: str = "",
        latest: bool = False,
    ) -> Decision:
        """Whether the caller may do this now. Records nothing, raises nothing.

        `author` is the subject that registered the code which is to run, "" where none is; `latest` says that
        no version of it was named.
        """
        if principal.actors:  # the limits of the apps on the way change by themselves
            return await self.check_under(
                self._engine, principal, action, resource, author=author, latest=latest
            )
        # as good as asked again: the facts of people and keys (the epoch) and the rules are the same
        state = (self._directory.epoch, self._engine)
        if state != self._decided_under:
            self._decided_under = state
            self._decided.clear()
        key = (id(principal), action, resource, author, latest)
        known = self._decided.get(key)
        if known is not None and known[0] is principal:
            return known[1]
        decision = await self.check_under(
            self._engine, principal, action, resource, author=author, latest=latest
        )
        if state == (self._directory.epoch, self._engine):
            if len(self._decided) >= _DECISIONS:
                self._decided.clear()
            self._decided[key] = principal, decision
        return decision

    async def check_under(
        self,
        engine: Engine,
        principal: Principal,
        action: Action,
        resource: Resource,
        *,
        author: str = "",
        latest: bool = False,
        audience: str = "",
    ) -> Decision:
        """What `check` would say under this rule book. `audience` is that of a token that is asked for."""
        bindings = NOTHING
        if principal.kind is not Kind.MACHINE:
            facts = await self._directory.subject(principal.subject)
            if facts is None or facts.disabled:
                return Decision(False, ("account-disabled",), engine.revision, action.value, str(resource))
            bindings = await self._directory.bindings(principal.subject)
        ceilings = self._ceilings(principal)
        foreign = author not in {"", principal.subject}
        decision = engine.decide(
            subject=principal.subject,
            kind=principal.kind,
            bindings=bindings,
            ceilings=ceilings,
            action=action,
            resource=resource,
            call=_call(
                principal,
                foreign=foreign,
                privileged=foreign and engine.privileged(bindings),
                latest=latest,
                audience=audience,
            ),
        )
        for ceiling in ceilings if decision.allowed else ():
            if not await self._givers.may(engine, ceiling, action, resource, to=principal.subject):
                return replace(decision, allowed=False, policies=(f"below {ceiling.source}",))
        return decision

    async def gives(self, ceiling: Ceiling, action: Action, resource: Resource, *, to: str) -> bool:
        """Whether the person that a limit is may do this now, as `givers` says. Records nothing."""
        return await self._givers.may(self._engine, ceiling, action, resource, to=to)

    async def warning(self, principal: Principal, author: str) -> str:
        """What people are to be warned of when the caller runs code of `author`: "foreign-code", or ""."""
        if author in {"", principal.subject} or principal.kind is Kind.MACHINE:
            return ""
        privileged = self._engine.privileged(await self._directory.bindings(principal.subject))
        return FOREIGN_CODE if privileged else ""

    async def looks_at_names(self, principal: Principal, type_: ResourceType) -> bool:
        """Whether the caller can get different answers about two things of this sort in one scope."""
        if principal.kind is Kind.MACHINE:
            return False
        if any(ceiling.tasks is not None for ceiling in self._ceilings(principal)):
            return True
        bindings = await self._directory.bindings(principal.subject)
        return self._engine.looks_at_names(bindings, type_)

    async def tasks_in(self, principal: Principal, project: str, domain: str) -> list[str]:
        """The tasks of a place that the caller has a role for alone."""
        if principal.kind is Kind.MACHINE:
            return []
        return sorted((await self._directory.bindings(principal.subject)).tasks_in(project, domain))

    async def explain(
        self,
        principal: Principal,
        action: Action,
        resource: Resource,
        *,
        author: str = "",
        latest: bool = False,
    ) -> Explanation:
        """The decision with what led to it. Records nothing. `author` and `latest` as in `check`."""
        decision = await self.check(principal, action, resource, author=author, latest=latest)
        if decision.policies == ("account-disabled",):
            return Explanation(decision, (), ())
        machine = principal.kind is Kind.MACHINE
        bindings = NOTHING if machine else await self._directory.bindings(principal.subject)
        foreign = author not in {"", principal.subject}
        found = self._engine.explain(
            subject=principal.subject,
            kind=principal.kind,
            bindings=bindings,
            ceilings=self._ceilings(principal),
            action=action,
            resource=resource,
            call=_call(
                principal,
                foreign=foreign,
                privileged=foreign and self._engine.privileged(bindings),
                latest=latest,
            ),
        )
        limits = [
            (
                ceiling,
                allows
                and await self._givers.may(self._engine, ceiling, action, resource, to=principal.subject),
            )
            for ceiling, allows in found.ceilings
        ]
        return replace(found, decision=decision, ceilings=tuple(limits))

    def _ceilings(self, principal: Principal) -> tuple[Ceiling, ...]:
        """Those of the principal, and those that the apps on the way have now."""
        if not principal.actors:
            return principal.ceilings
        live = [
            ceiling
            for actor in principal.actors
            if actor.kind is ActorKind.APP
            for ceiling in self._directory.app_ceilings(actor.id)
        ]
        return tuple(dict.fromkeys((*principal.ceilings, *live)))

    async def roles(self, principal: Principal) -> list[Binding]:
        """The roles of the caller, of their groups included, before any limit."""
        given = await self._directory.bindings(principal.subject)
        return sorted(given.items, key=str)

    async def require(
        self,
        principal: Principal,
        action: Action,
        resource: Resource,
        *,
        request_id: str = "",
        view: Action | None = None,
        author: str = "",
        latest: bool = False,
        detail: Mapping[str, Any] = _NOTHING,
    ) -> Decision:
        """The decision, when it allows.

        Otherwise the refusal is recorded and raised: NotFound when the caller may not even view the thing
        (`view` names the action that tells, or `action` is one itself), else Denied. `author` and `latest` as
        in `check`.
        """
        decision = await self.check(principal, action, resource, author=author, latest=latest)
        if decision.allowed:
            return decision
        await self.refuse(principal, decision, request_id=request_id, detail=detail)
        viewing = action if view is None and action in VIEWS else view
        if viewing is not None and not (await self.check(principal, viewing, resource)).allowed:
            raise not_found(resource)
        raise Denied(f"You may not do {action} on {spoken(resource)}.", hint=remedy(decision))

    async def refuse(
        self,
        principal: Principal,
        decision: Decision,
        *,
        event: Event = Event.ACCESS_REFUSE,
        outcome: Outcome = Outcome.REFUSED,
        request_id: str = "",
        detail: Mapping[str, Any] = _NOTHING,
    ) -> None:
        """Record a refusal in a transaction of its own; a caller that hangs up does not undo it.

        The same refusal of the same caller is a record once in a while, and a number besides.
        """
        sighting = Sighting(principal, decision, event, outcome, request_id, detail)
        if self._denials is None:
            await asyncio.shield(self._db.write(lambda tx: self._sighted(tx, sighting)))
        else:
            await self.write(self._denials.repeats, self._denials.note(sighting))

    async def write(self, repeats: Repeats, due: Sequence[Due]) -> None:
        """Write what is due of things that are counted; it is not undone by a caller that hangs up."""
        if due:
            await asyncio.shield(self._write(repeats, due))

    async def _write(self, repeats: Repeats, due: Sequence[Due]) -> None:
        def write(tx: Transaction) -> None:
            for each in due:
                self._sighted(tx, each.sighting)

        try:
            await self._db.write(write)
        except BaseException:
            repeats.failed(due)
            raise

    def _sighted(self, tx: Transaction, sighting: Sighting) -> None:
        self.record(
            tx,
            sighting.principal,
            sighting.decision,
            event=sighting.event,
            outcome=sighting.outcome,
            request_id=sighting.request_id,
            detail=sighting.detail,
        )

    def record(
        self,
        tx: Transaction,
        principal: Principal,
        decision: Decision,
        *,
        event: str,
        outcome: str = Outcome.ALLOWED,
        request_id: str = "",
        detail: Mapping[str, Any] = _NOTHING,
    ) -> None:
        """Add the audit record of an effect to the transaction of that effect."""
        self.append(
            tx,
            Record(
                at=tx.now,
                event=event if isinstance(event, Event) else Event(event),
                outcome=outcome if isinstance(outcome, Outcome) else Outcome(outcome),
                subject=principal.subject,
                credential_kind=principal.credential.kind.value,
                credential_id=principal.credential.root,
                actors=tuple(map(str, principal.actors)) if principal.actors else (),
                action=decision.action,
                resource=decision.resource,
                request_id=request_id,
                decision=",".join(decision.policies),
                policy_revision=decision.revision,
                detail=detail,
            ),
        )

    def append(self, tx: Transaction, record: Record) -> None:
        """Add a record that says itself whom and what it is about: the end of somebody's run."""
        if store.append(tx, record) % CHECKPOINT_EVERY == 0:
            tx.after_commit(self.due.set)

    async def gave_up(
        self,
        principal: Principal,
        action: Action | None,
        *,
        resource: Resource | None = None,
        request_id: str = "",
        detail: Mapping[str, Any] = _NOTHING,
    ) -> None:
        """Record a call that a known caller gave up: before all of it had arrived, or before it was answered.

        `resource` is named where the call was let through to it. The record has a transaction of its own,
        which the end of the call does not undo.
        """
        thing = Resource(ResourceType.ORG) if resource is None else resource
        decision = Decision(False, (), self.revision, "" if action is None else action.value, str(thing))
        await self.refuse(
            principal,
            decision,
            event=Event.CALL_CANCEL,
            outcome=Outcome.CANCELLED,
            request_id=request_id,
            detail=detail,
        )

    def refused(self, *, source: str, door: str, keys: tuple[str, ...], throttled: bool) -> None:
        """Count a credential that did not hold. For the chain; `settle` writes what was counted."""
        if self._refusals is not None:
            self._refusals.note(source=source, door=door, keys=keys, throttled=throttled)
            if self._refusals.due:
                self.due.set()

    async def settle(self, *, everything: bool = False) -> None:
        """Write what was counted: of credentials that did not hold one record for each source.

        Of what is counted for a time, what is over; with `everything`, at the end, all of it.
        """
        for repeats in self.settling:
            await self.write(repeats, repeats.settle(everything=everything))
        records = [] if self._refusals is None else self._refusals.take(self.revision)

        def write(tx: Transaction) -> None:
            for record in records:
                self.append(tx, record)

        if records:
            await asyncio.shield(self._db.write(write))

    async def report_conflict(self, principals: Sequence[Principal], presented: Presented) -> None:
        """Record that the credentials of one request named different callers. For the chain."""
        first = principals[0]
        decision = Decision(
            False, ("two-callers",), self.revision, Action.SELF_VIEW.value, str(Resource(ResourceType.ORG))
        )
        shown = [f"{each.credential.kind}:{each.credential.root}={each.subject}" for each in principals]
        await self.refuse(
            first,
            decision,
            event=Event.AUTH_REFUSE,
            detail={"credentials": shown, "door": presented.audience},
        )

    async def audit_page(
        self,
        principal: Principal,
        *,
        request_id: str = "",
        subject: str | None = None,
        app: str | None = None,
        run: str | None = None,
        action: str | None = None,
        resource: str | None = None,
        event: str | None = None,
        outcome: str | None = None,
        since: float | None = None,
        until: float | None = None,
        before: int | None = None,
        limit: int = 50,
    ) -> list[Entry]:
        """The newest audit entries first, at most 500. Needs `audit:view` on the whole installation."""
        await self.require(principal, Action.AUDIT_VIEW, Resource(ResourceType.ORG), request_id=request_id)
        await self.settle()
        return await self._db.read(
            lambda reader: store.page(
                reader,
                subject=subject,
                app=app,
                run=run,
                action=action,
                resource=resource,
                event=event,
                outcome=outcome,
                since=since,
                until=until,
                before=before,
                limit=max(1, min(limit, 500)),
            )
        )


def _call(
    principal: Principal,
    *,
    foreign: bool = False,
    privileged: bool = False,
    latest: bool = False,
    audience: str = "",
) -> Call:
    credential = principal.credential
    return Call(
        credential=credential.kind.value,
        attested=credential.attested,
        app=principal.via_app,
        in_run=any(actor.kind is ActorKind.RUN for actor in principal.actors),
        foreign_code=foreign,
        privileged=privileged,
        latest=latest,
        audience=audience,
    )
