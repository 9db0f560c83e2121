"""API keys: made, listed, rotated, disabled, ended, and recorded in the same transaction."""

from __future__ import annotations

import json
import re
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from tower.audit import Event
from tower.clock import Clock
from tower.control.access import Access, not_found
from tower.control.directory import Directory
from tower.control.identities import check_scope, user_resource
from tower.control.keymakers import KeyMakers
from tower.control.keyrows import actions_column, earliest, key_row
from tower.errors import AlreadyExists, Invalid, Precondition
from tower.identity.authenticators import MACHINE
from tower.identity.keys import ApiKey, digest, generate
from tower.identity.principal import Principal
from tower.policy.actions import Action, Resource, ResourceType
from tower.policy.engine import Decision
from tower.policy.rules import ANY, Role
from tower.store import identities as store
from tower.store.database import Database, Transaction
from tower.store.identities import KeyRow

__all__ = ["MAX_LIFE", "MAX_OVERLAP", "OVERLAP", "ApiKeys", "KeyRow", "NewKey"]

MAX_LIFE = 10 * 365 * 24 * 3600.0
OVERLAP = 3600.0
MAX_OVERLAP = 30 * 24 * 3600.0

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,62}")
_ORG = Resource(ResourceType.ORG)
_NOTHING: Mapping[str, Any] = {}


@dataclass(frozen=True, slots=True)
class NewKey:
    """A key just made. Its text is in no store and cannot be shown again."""

    row: KeyRow
    key: ApiKey = field(repr=False)


class ApiKeys:
    """The use-cases of `/api/v1/keys`."""

    def __init__(
        self,
        *,
        db: Database,
        access: Access,
        directory: Directory,
        clock: Clock,
        max_life: float | None = None,
    ) -> None:
        """`max_life`: no new key lives longer, in seconds; None lets keys live for ever."""
        self._db = db
        self._access = access
        self._directory = directory
        self._makers = KeyMakers(access=access, directory=directory)
        self._clock = clock
        self._max_life = max_life

    async def create(
        self,
        principal: Principal,
        *,
        name: str,
        subject: str | None = None,
        role: str | None = None,
        project: str = ANY,
        domain: str = ANY,
        actions: Collection[str] | None = None,
        expires_in: float | None = None,
        request_id: str = "",
    ) -> NewKey:
        """A key of the caller, or for another subject when the caller may manage all keys.

        `role`, `project`, `domain` and `actions` are its ceiling. It is never above what its owner may do at
        the time of use, nor above what the caller may do then, who makes it for somebody else (T35).
        `expires_in` in seconds; a key made with an expiring key ends no later than that one. A key
        that running work makes is for no action that the work may not do.
        """
        await self._makers.admit(principal, request_id=request_id)
        owner = principal.subject if subject is None else subject
        if owner == MACHINE.subject:
            raise Invalid("The field user names whose key it is to be.")
        decision = await self._access.require(
            principal,
            Action.KEY_MANAGE_OWN if owner == principal.subject else Action.KEY_MANAGE,
            Resource(ResourceType.KEY, name=name, owner=owner),
            request_id=request_id,
        )
        if not _NAME.fullmatch(name):
            raise Invalid("A key name has letters, digits and . _ - and starts with a letter or digit.")
        life = self._life(expires_in)
        actions_column(actions)  # a wrong name is said before whether the caller may
        bound, maker = await self._makers.bounds(
            principal, decision, actions, owner=owner, request_id=request_id
        )
        listed = actions_column(bound)
        made = generate()
        ends = await self._makers.end(principal)

        def write(tx: Transaction) -> NewKey:
            holder = store.user(tx, owner)
            if holder is None:
                raise not_found(user_resource(owner))
            if holder.disabled_at is not None:
                raise Precondition(f"The account {owner} is disabled.", hint="Enable it first.")
            if role is not None or (project, domain) != (ANY, ANY):
                check_scope(tx, Role.ADMIN if role is None else role, project, domain)
            row = key_row(
                made,
                name=name,
                subject=owner,
                role=role,
                project=project,
                domain=domain,
                actions=listed,
                expires_at=earliest(ends, None if life is None else tx.now + life),
                now=tx.now,
                by=principal.subject,
                maker=maker,
            )
            self.insert(tx, principal, decision, row, made, request_id=request_id)
            return NewKey(row, made)

        return await self._db.write(write)

    async def _listed(self, subject: str | None) -> list[KeyRow]:
        now = self._clock.now()
        rows = await self._db.read(lambda reader: store.live_keys(reader, subject=subject))
        return [row for row in rows if not row.replaced_by or (row.expires_at or now) > now]

    async def list(
        self, principal: Principal, *, subject: str | None = None, request_id: str = ""
    ) -> list[KeyRow]:
        """The live keys by name: all, or those of `subject`, for who manages keys; else the caller's own.

        A key that was rotated stands behind the one that has its name, until it ends.
        """
        everyone = await self._access.check(principal, Action.KEY_MANAGE, _ORG)
        if everyone.allowed:
            return await self._listed(subject)
        if subject not in {None, principal.subject}:
            await self._access.require(principal, Action.KEY_MANAGE, _ORG, request_id=request_id)
        own = Resource(ResourceType.KEY, owner=principal.subject)
        await self._access.require(principal, Action.KEY_MANAGE_OWN, own, request_id=request_id)
        return await self._listed(principal.subject)

    async def get(
        self, principal: Principal, name: str, *, subject: str | None = None, request_id: str = ""
    ) -> KeyRow:
        """One live key: the caller's own of this name, or that of somebody whose keys the caller manages.

        `subject` says whose. Raises NotFound also for keys that the caller does not manage, and Invalid where
        several people have one of this name.
        """
        row, _ = await self._own_or_managed(principal, name, subject, request_id)
        return row

    async def delete(
        self, principal: Principal, name: str, *, subject: str | None = None, request_id: str = ""
    ) -> KeyRow:
        """End a key, and those it was rotated from; `name` and `subject` as in `get`.

        The next call with one of them, or with a token made from it, is refused.
        """
        row, decision = await self._own_or_managed(principal, name, subject, request_id)

        def write(tx: Transaction) -> None:
            found = store.keys_of_name(tx, name, row.subject)
            if row.id not in {each.id for each in found}:
                raise not_found(Resource(ResourceType.KEY, name=name))
            for each in found:
                store.delete_key(tx, each.id, tx.now)
                self._record(tx, principal, decision, event=Event.KEY_DELETE, row=each, request_id=request_id)

        await self._db.write(write)
        return row

    async def set_disabled(
        self,
        principal: Principal,
        name: str,
        *,
        disabled: bool,
        subject: str | None = None,
        request_id: str = "",
    ) -> KeyRow:
        """Disable or enable a key, with those it was rotated from. Seen at the very next call.

        `name` and `subject` as in `get`.
        """
        row, decision = await self._own_or_managed(principal, name, subject, request_id)

        def write(tx: Transaction) -> KeyRow:
            event = Event.KEY_DISABLE if disabled else Event.KEY_ENABLE
            for each in store.keys_of_name(tx, name, row.subject):
                store.set_key_disabled(tx, each.id, tx.now if disabled else None)
                self._record(tx, principal, decision, event=event, row=each, request_id=request_id)
            changed = store.live_key(tx, name, row.subject)
            if changed is None or changed.id != row.id:
                raise not_found(Resource(ResourceType.KEY, name=name))
            return changed

        return await self._db.write(write)

    async def rotate(
        self,
        principal: Principal,
        name: str,
        *,
        subject: str | None = None,
        overlap: float = OVERLAP,
        expires_in: float | None = None,
        request_id: str = "",
    ) -> NewKey:
        """Make a new key under the same name, with the same owner and the same ceiling.

        `name` and `subject` as in `get`.

        The old one holds for `overlap` seconds more and no longer than it would have; runs that it asked for
        go on. The new one lives as long as the old one was made for, or `expires_in` seconds.
        """
        await self._makers.admit(principal, request_id=request_id)
        row, decision = await self._own_or_managed(principal, name, subject, request_id)
        if not 0 <= overlap <= MAX_OVERLAP:
            raise Invalid("The field overlap is not between 0 and 30 days.")
        maker = await self._makers.renewing(principal, decision, row, request_id=request_id)
        if expires_in is None and row.expires_at is not None:
            expires_in = max(1.0, row.expires_at - row.created_at)
        life = self._life(expires_in)
        made = generate()
        ends = await self._makers.end(principal)

        def write(tx: Transaction) -> NewKey:
            old = store.live_key(tx, name, row.subject)
            if old is None or old.id != row.id:
                raise Precondition(f"The key {name} was changed meanwhile.", hint="Look at it and try again.")
            if old.disabled_at is not None:
                raise Precondition(f"The key {name} is disabled.", hint="Enable it first.")
            holder = store.user(tx, old.subject)
            if holder is None or holder.disabled_at is not None:
                raise Precondition(f"The account {old.subject} is disabled.", hint="Enable it first.")
            until = tx.now + overlap
            store.replace_key(tx, old.id, by=made.id, ends=min(until, old.expires_at or until))
            new = key_row(
                made,
                name=name,
                subject=old.subject,
                role=old.role,
                project=old.project,
                domain=old.domain,
                actions=old.actions,
                expires_at=earliest(ends, None if life is None else tx.now + life),
                now=tx.now,
                by=principal.subject,
                maker=maker,
            )
            detail = {"replaces": old.id, "overlap": overlap}
            self.insert(
                tx, principal, decision, new, made, request_id=request_id, event=Event.KEY_ROTATE, more=detail
            )
            return NewKey(new, made)

        return await self._db.write(write)

    def _record(
        self,
        tx: Transaction,
        principal: Principal,
        decision: Decision,
        *,
        event: Event,
        row: KeyRow,
        request_id: str,
    ) -> None:
        detail = {"key": row.id, "user": row.subject}
        self._access.record(tx, principal, decision, event=event, request_id=request_id, detail=detail)
        tx.after_commit(self._directory.forget)

    def _life(self, expires_in: float | None) -> float | None:
        """How long a new key lives, in seconds. Raises Invalid for longer than it may."""
        longest = MAX_LIFE if self._max_life is None else self._max_life
        if expires_in is None:
            return self._max_life
        if not 1 <= expires_in <= MAX_LIFE:
            raise Invalid("The field expires_in is not between a second and ten years.")
        if expires_in > longest:
            raise Invalid(f"No key of this installation lives longer than {longest / 86400:g} days.")
        return expires_in

    async def _own_or_managed(
        self, principal: Principal, name: str, subject: str | None, request_id: str
    ) -> tuple[KeyRow, Decision]:
        """The key that is meant, among those that the caller may view; all others are as if they were not."""
        rows = await self._db.read(lambda reader: store.live_keys_named(reader, name))
        rows = [row for row in rows if subject in {None, row.subject}]
        for row in rows:
            if row.subject == principal.subject:
                own = Resource(ResourceType.KEY, name=name, owner=row.subject)
                return row, await self._access.require(
                    principal, Action.KEY_MANAGE_OWN, own, request_id=request_id
                )
        bare = Resource(ResourceType.KEY, name=name)
        managed = [
            (row, decision)
            for row in rows
            if (
                decision := await self._access.check(
                    principal, Action.KEY_MANAGE, replace(bare, owner=row.subject)
                )
            ).allowed
        ]
        if not managed:
            await self._access.require(
                principal, Action.KEY_MANAGE, bare, request_id=request_id, view=Action.KEY_MANAGE
            )
            raise not_found(bare)
        if len(managed) > 1:
            people = ", ".join(row.subject for row, _ in managed[:5])
            raise Invalid(
                f"Several people have a key {name}: {people}{', …' if len(managed) > 5 else ''}.",
                hint="Say whose with --user, or the field user.",
            )
        return managed[0]

    def insert(
        self,
        tx: Transaction,
        principal: Principal,
        decision: Decision,
        row: KeyRow,
        made: ApiKey,
        *,
        request_id: str = "",
        event: Event = Event.KEY_CREATE,
        more: Mapping[str, Any] = _NOTHING,
    ) -> None:
        """Inside a transaction whose caller was authorised."""
        if not store.add_key(tx, row, digest=digest(made.secret)):
            raise AlreadyExists(f"There is already a key {row.name}.", hint="Delete it or take another name.")
        detail = {
            "key": row.id,
            "user": row.subject,
            "role": row.role,
            "project": row.project,
            "domain": row.domain,
            "expires_at": row.expires_at,
            **({} if row.actions is None else {"actions": json.loads(row.actions)}),
            **({"maker": row.maker} if row.maker else {}),
            **more,
        }
        self._access.record(tx, principal, decision, event=event, request_id=request_id, detail=detail)
        tx.after_commit(self._directory.forget)
