"""The one place that decides what a caller may do, and that records what was decided.

An allowed call records itself inside the transaction of its effect (`record`); a refusal has a transaction of
its own that the caller cannot cancel. What may not be viewed is answered as if it did not exist (T43).
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from typing import Any

from tower.audit import Entry, Event, Outcome, Record
from tower.control.deciding import FOREIGN_CODE, Deciding
from tower.control.denials import Denials
from tower.control.directory import Directory
from tower.control.refusals import Refusals
from tower.control.repeats import Due, Repeats, Sighting
from tower.control.wording import not_found, remedy, spoken
from tower.errors import Denied
from tower.identity.offers import Presented
from tower.identity.principal import Principal
from tower.policy.actions import Action, Resource, ResourceType
from tower.policy.engine import Decision, Engine
from tower.store import audit as store
from tower.store.database import Database, Transaction

__all__ = ["CHECKPOINT_EVERY", "FOREIGN_CODE", "VIEWS", "Access", "not_found"]

VIEWS = frozenset(
    {Action.PROJECT_VIEW, Action.TASK_VIEW, Action.RUN_VIEW, Action.APP_VIEW, Action.SECRET_LIST}
)
"""Refusing one of these is answered as NotFound."""

CHECKPOINT_EVERY = 1000
"""So many records at most are written before the end of the chain is signed."""

_NOTHING: Mapping[str, Any] = {}


class Access(Deciding):
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
        super().__init__(engine=engine, directory=directory)
        self._db = db
        self._refusals = refusals
        self._denials = denials
        self.settling: list[Repeats] = [] if denials is None else [denials.repeats]
        """What else `settle` has to write: things that are counted and not each recorded."""
        self.due = asyncio.Event()
        """Set when so many records were written that the chain is to be signed again (`control.auditing`)."""

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
