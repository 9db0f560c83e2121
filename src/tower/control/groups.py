"""Groups of people and services: kept by administrators, or filled by the claims of an identity provider."""

from __future__ import annotations

from collections.abc import Iterable

from tower.audit import Event
from tower.control.access import Access, not_found
from tower.control.directory import Directory
from tower.control.identities import user_resource
from tower.errors import AlreadyExists, Invalid
from tower.identity.principal import Principal
from tower.policy.actions import Action, Resource, ResourceType
from tower.policy.rulebook import NAME
from tower.store import identities
from tower.store import policies as store
from tower.store.database import Database, Transaction
from tower.store.policies import GroupRow

__all__ = ["GroupRow", "Groups"]

_ORG = Resource(ResourceType.ORG)


class Groups:
    """The use-cases of `/api/v1/groups`. All need `user:manage`, as giving roles does."""

    def __init__(self, *, db: Database, access: Access, directory: Directory) -> None:
        self._db = db
        self._access = access
        self._directory = directory

    async def groups(self, principal: Principal, *, request_id: str = "") -> list[GroupRow]:
        """The groups by name, with their members."""
        await self._access.require(principal, Action.USER_MANAGE, _ORG, request_id=request_id)
        return await self._db.read(store.all_groups)

    async def group(self, principal: Principal, name: str, *, request_id: str = "") -> GroupRow:
        """One group."""
        await self._access.require(principal, Action.USER_MANAGE, _resource(name), request_id=request_id)
        row = await self._db.read(lambda reader: store.group(reader, name))
        if row is None:
            raise not_found(_resource(name))
        return row

    async def create(
        self,
        principal: Principal,
        name: str,
        *,
        members: Iterable[str] = (),
        external: str = "",
        description: str = "",
        request_id: str = "",
    ) -> GroupRow:
        """A new group. `external` is the name that identity providers give it in their claim of groups."""
        decision = await self._access.require(
            principal, Action.USER_MANAGE, _resource(name), request_id=request_id
        )
        if not NAME.fullmatch(name):
            raise Invalid(
                "The name of a group has lower-case letters, digits and . _ - and starts with no mark."
            )
        _check_words(external, description)
        wanted = tuple(sorted(set(members)))

        def write(tx: Transaction) -> GroupRow:
            _check_members(tx, wanted)
            row = GroupRow(name, external, description, tx.now, principal.subject, wanted)
            if not store.add_group(tx, row):
                raise AlreadyExists(f"There is already a group {name}.", hint="Update it instead.")
            self._access.record(
                tx,
                principal,
                decision,
                event=Event.GROUP_CREATE,
                request_id=request_id,
                detail={"group": name, "members": list(wanted), "external": external},
            )
            tx.after_commit(self._directory.forget)
            return row

        return await self._db.write(write)

    async def update(
        self,
        principal: Principal,
        name: str,
        *,
        add: Iterable[str] = (),
        remove: Iterable[str] = (),
        external: str | None = None,
        description: str | None = None,
        request_id: str = "",
    ) -> GroupRow:
        """Add and remove members, change what the group says of itself; None leaves it."""
        decision = await self._access.require(
            principal, Action.USER_MANAGE, _resource(name), request_id=request_id
        )
        _check_words(external or "", description or "")
        coming, going = tuple(sorted(set(add))), tuple(sorted(set(remove)))

        def write(tx: Transaction) -> GroupRow:
            before = store.group(tx, name)
            if before is None:
                raise not_found(_resource(name))
            _check_members(tx, coming)
            store.remove_members(tx, name, going)
            store.add_members(tx, name, coming)
            store.change_group(
                tx,
                name,
                external=before.external if external is None else external,
                description=before.description if description is None else description,
            )
            detail = {"group": name, "added": list(coming), "removed": list(going), "external": external}
            self._access.record(
                tx, principal, decision, event=Event.GROUP_UPDATE, request_id=request_id, detail=detail
            )
            tx.after_commit(self._directory.forget)
            row = store.group(tx, name)
            assert row is not None
            return row

        return await self._db.write(write)

    async def delete(self, principal: Principal, name: str, *, request_id: str = "") -> None:
        """Remove a group; its members lose what it was given."""
        decision = await self._access.require(
            principal, Action.USER_MANAGE, _resource(name), request_id=request_id
        )

        def write(tx: Transaction) -> None:
            if not store.remove_group(tx, name):
                raise not_found(_resource(name))
            self._access.record(
                tx,
                principal,
                decision,
                event=Event.GROUP_DELETE,
                request_id=request_id,
                detail={"group": name},
            )
            tx.after_commit(self._directory.forget)

        await self._db.write(write)


def _resource(name: str) -> Resource:
    return user_resource(store.GROUP + name)


def _check_members(tx: Transaction, subjects: Iterable[str]) -> None:
    for subject in subjects:
        if identities.user(tx, subject) is None:
            raise Invalid(f"There is no user {subject[:80]}.")


def _check_words(external: str, description: str) -> None:
    if len(external) > 255 or not external.isprintable():
        raise Invalid("The field external is too long or holds control characters.")
    if len(description) > 1000:
        raise Invalid("The field description is longer than 1000 characters.")
