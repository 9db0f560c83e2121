"""API keys: made, listed, ended, and recorded in the same transaction."""

from __future__ import annotations

import re
from dataclasses import dataclass, field

from tower.audit import Event
from tower.control.access import Access, not_found
from tower.control.directory import Directory
from tower.control.identities import check_scope, user_resource
from tower.errors import AlreadyExists, Denied, Invalid, Precondition
from tower.identity.authenticators import MACHINE
from tower.identity.keys import ApiKey, digest, generate
from tower.identity.principal import CredentialKind, Principal
from tower.policy.actions import Action, Resource, ResourceType
from tower.policy.engine import Decision
from tower.policy.rules import ANY, Role
from tower.store import identities as store
from tower.store.database import Database, Transaction
from tower.store.identities import KeyRow

__all__ = ["MAX_LIFE", "ApiKeys", "KeyRow", "NewKey", "key_row"]

MAX_LIFE = 10 * 365 * 24 * 3600.0

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,62}")
_ORG = Resource(ResourceType.ORG)


@dataclass(frozen=True, slots=True)
class NewKey:
    """A key just made. Its text is in no store and cannot be shown again."""

    row: KeyRow
    key: ApiKey = field(repr=False)


class ApiKeys:
    """The use-cases of `/api/v1/keys`."""

    def __init__(self, *, db: Database, access: Access, directory: Directory) -> None:
        self._db = db
        self._access = access
        self._directory = directory

    async def create(
        self,
        principal: Principal,
        *,
        name: str,
        subject: str | None = None,
        role: str | None = None,
        project: str = ANY,
        domain: str = ANY,
        expires_in: float | None = None,
        request_id: str = "",
    ) -> NewKey:
        """A key of the caller, or for another subject when the caller may manage all keys.

        `role`, `project` and `domain` are its ceiling: never above what its owner may do at the time of use.
        `expires_in` in seconds; a key made with an expiring key ends no later than that one (T35).
        """
        if principal.credential.kind in {CredentialKind.APP_TOKEN, CredentialKind.WORKLOAD}:
            decision = await self._access.check(principal, Action.KEY_MANAGE_OWN, Resource(ResourceType.KEY))
            await self._access.refuse(principal, decision, request_id=request_id)
            raise Denied("Tasks and apps make no keys.", hint="Make it with your own credential.")
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
        if expires_in is not None and not 1 <= expires_in <= MAX_LIFE:
            raise Invalid("The field expires_in is not between a second and ten years.")
        made = generate()
        ends = await self._end(principal)

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
                expires_at=_earliest(ends, None if expires_in is None else tx.now + expires_in),
                now=tx.now,
                by=principal.subject,
            )
            self.insert(tx, principal, decision, row, made, request_id=request_id)
            return NewKey(row, made)

        return await self._db.write(write)

    async def list(
        self, principal: Principal, *, subject: str | None = None, request_id: str = ""
    ) -> list[KeyRow]:
        """The live keys by name: all, or those of `subject`, for who manages keys; else the caller's own."""
        everyone = await self._access.check(principal, Action.KEY_MANAGE, _ORG)
        if everyone.allowed:
            return await self._db.read(lambda reader: store.live_keys(reader, subject=subject))
        if subject not in {None, principal.subject}:
            await self._access.require(principal, Action.KEY_MANAGE, _ORG, request_id=request_id)
        own = Resource(ResourceType.KEY, owner=principal.subject)
        await self._access.require(principal, Action.KEY_MANAGE_OWN, own, request_id=request_id)
        return await self._db.read(lambda reader: store.live_keys(reader, subject=principal.subject))

    async def get(self, principal: Principal, name: str, *, request_id: str = "") -> KeyRow:
        """One live key. Somebody else's looks like one that is not there."""
        row, _ = await self._own_or_managed(principal, name, request_id)
        return row

    async def delete(self, principal: Principal, name: str, *, request_id: str = "") -> KeyRow:
        """End a key. The next call with it, or with a token made from it, is refused."""
        row, decision = await self._own_or_managed(principal, name, request_id)

        def write(tx: Transaction) -> None:
            if not store.delete_key(tx, row.id, tx.now):
                raise not_found(Resource(ResourceType.KEY, name=name))
            detail = {"key": row.id, "user": row.subject}
            self._access.record(
                tx, principal, decision, event=Event.KEY_DELETE, request_id=request_id, detail=detail
            )
            tx.after_commit(self._directory.forget)

        await self._db.write(write)
        return row

    async def _end(self, principal: Principal) -> float | None:
        """When the key ends that the caller showed, or that the caller's access token lives from (T35)."""
        credential = principal.credential
        if credential.kind is CredentialKind.ACCESS_TOKEN:
            key = await self._directory.key(credential.parent)
            return None if key is None else key.expires_at
        return credential.expires_at if credential.kind is CredentialKind.API_KEY else None

    async def _own_or_managed(
        self, principal: Principal, name: str, request_id: str
    ) -> tuple[KeyRow, Decision]:
        row = await self._db.read(lambda reader: store.live_key(reader, name))
        if row is not None and row.subject == principal.subject:
            own = Resource(ResourceType.KEY, name=name, owner=principal.subject)
            return row, await self._access.require(
                principal, Action.KEY_MANAGE_OWN, own, request_id=request_id
            )
        resource = Resource(ResourceType.KEY, name=name)
        decision = await self._access.require(
            principal, Action.KEY_MANAGE, resource, request_id=request_id, view=Action.KEY_MANAGE
        )
        if row is None:
            raise not_found(resource)
        return row, decision

    def insert(
        self,
        tx: Transaction,
        principal: Principal,
        decision: Decision,
        row: KeyRow,
        made: ApiKey,
        *,
        request_id: str = "",
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
        }
        self._access.record(
            tx, principal, decision, event=Event.KEY_CREATE, request_id=request_id, detail=detail
        )
        tx.after_commit(self._directory.forget)


def key_row(
    made: ApiKey,
    *,
    name: str,
    subject: str,
    now: float,
    by: str,
    role: str | None = None,
    project: str = ANY,
    domain: str = ANY,
    expires_at: float | None = None,
) -> KeyRow:
    """The row of a key just made."""
    return KeyRow(
        id=made.id,
        name=name,
        subject=subject,
        role=role,
        project=project,
        domain=domain,
        created_at=now,
        created_by=by,
        expires_at=expires_at,
        last_used_at=None,
        deleted_at=None,
    )


def _earliest(*ends: float | None) -> float | None:
    return min((end for end in ends if end is not None), default=None)
