"""The standing grants of runs: seen by their person and by administrators, and ended by either."""

from __future__ import annotations

from dataclasses import dataclass

from tower.audit import Event
from tower.clock import Clock
from tower.control.access import Access, not_found
from tower.control.events import Events
from tower.control.runs import run_resource
from tower.control.standing import ended, expiry
from tower.identity.principal import Principal
from tower.policy.actions import Action, Resource, ResourceType
from tower.settings import Settings
from tower.store import grants as store
from tower.store.database import Database, Transaction
from tower.store.grants import GrantRow
from tower.store.runs import ActionKey

PAGE = 1000
Run = ActionKey
"""Project, domain and name of a run."""

_ORG = Resource(ResourceType.ORG)


@dataclass(frozen=True, slots=True)
class Seen:
    """A grant as it is now: when it ends by itself, and why it holds no more ("" while it holds)."""

    row: GrantRow
    expires_at: float
    ended: str


class StandingGrants:
    """A grant is a credential of its person: who may manage keys may manage grants, the own or all."""

    def __init__(
        self, *, db: Database, clock: Clock, access: Access, events: Events, settings: Settings
    ) -> None:
        self._db = db
        self._clock = clock
        self._access = access
        self._events = events
        self._longest = settings.max_grant

    async def list(
        self,
        principal: Principal,
        *,
        subject: str | None = None,
        after: ActionKey | None = None,
        request_id: str = "",
    ) -> list[Seen]:
        """At most PAGE grants of runs that have not ended, by their place.

        All, or those of `subject`, for who manages keys; else the caller's own.
        """
        everyone = await self._access.check(principal, Action.KEY_MANAGE, _ORG)
        if not everyone.allowed:
            if subject not in {None, principal.subject}:
                await self._access.require(principal, Action.KEY_MANAGE, _ORG, request_id=request_id)
            own = Resource(ResourceType.KEY, owner=principal.subject)
            await self._access.require(principal, Action.KEY_MANAGE_OWN, own, request_id=request_id)
            subject = principal.subject
        rows = await self._db.read(
            lambda reader: store.page(reader, subject=subject, after=after, limit=PAGE)
        )
        return [self._seen(row) for row in rows]

    async def revoke(self, principal: Principal, key: ActionKey, *, request_id: str = "") -> Seen:
        """End the grant of a run: it and all that it asked for act for nobody from their next call on.

        What runs is stopped, and what is queued does not start. Somebody else's grant looks like one that is
        not there. Raises NotFound.
        """
        found = self._db.read_now(lambda reader: store.get(reader, key))
        own = found is not None and found.executed_by == principal.subject
        decision = await self._access.require(
            principal,
            Action.KEY_MANAGE_OWN if own else Action.KEY_MANAGE,
            _thing(principal, own=own),
            request_id=request_id,
            detail={"run": "/".join(key[:3])},
        )
        if found is None:
            raise not_found(run_resource(key))

        def write(tx: Transaction) -> GrantRow:
            if store.revoke(tx, key, by=principal.subject):
                self._access.record(
                    tx,
                    principal,
                    decision,
                    event=Event.GRANT_REVOKE,
                    request_id=request_id,
                    detail={"run": "/".join(key[:3]), "user": found.executed_by},
                )
                tx.after_commit(lambda: self._events.publish(("queue",), ("people",), ("action", *key)))
            row = store.get(tx, key)
            assert row is not None
            return row

        return self._seen(await self._db.write(write))

    async def revocable(self, principal: Principal, seen: Seen) -> bool:
        """Whether to offer the caller to revoke it; asking for it is decided anew."""
        if seen.ended:
            return False
        own = seen.row.executed_by == principal.subject
        action = Action.KEY_MANAGE_OWN if own else Action.KEY_MANAGE
        return (await self._access.check(principal, action, _thing(principal, own=own))).allowed

    def of(self, key: ActionKey) -> Seen | None:
        """The grant that an action stands on, for who may view its run: ask that first."""
        row = self._db.read_now(lambda reader: store.get(reader, ActionKey(*key[:3])))
        return None if row is None else self._seen(row)

    def _seen(self, row: GrantRow) -> Seen:
        return Seen(
            row,
            expiry(row, longest=self._longest),
            ended(row, now=self._clock.now(), longest=self._longest),
        )


def _thing(principal: Principal, *, own: bool) -> Resource:
    """What a grant is to policy: a credential of its person."""
    return Resource(ResourceType.KEY, owner=principal.subject) if own else _ORG
