"""Secrets: written by those who may, seen by name only. What is in one is given to running work alone.

A secret stands in a domain of a project, in a project, in the installation, or is one person's own. A right
counts for a secret only where it reaches as far as the secret does: who works in one domain of a project
does not use what is for the whole project. Nobody but its owner learns of a personal secret.
"""

from __future__ import annotations

import json
import secrets as randomness
from collections.abc import Callable
from dataclasses import dataclass, replace

from sqlalchemy.exc import IntegrityError

from tower.audit import Event
from tower.clock import ALPHABET
from tower.control import specs
from tower.control.access import Access, not_found
from tower.control.projects import Projects
from tower.errors import AlreadyExists, Denied, Exhausted, Invalid, Precondition
from tower.identity.principal import Kind, Principal
from tower.identity.sealing import Sealed, SealingKeys
from tower.policy.actions import Action, Resource, ResourceType
from tower.policy.engine import Decision
from tower.settings import DOMAINS
from tower.store import secrets as store
from tower.store.database import Database, Transaction
from tower.store.secrets import SecretPlace, SecretRow

__all__ = ["SecretPlace", "SecretRow", "Secrets", "context", "resource", "sealed"]

MAX_VALUE = 64 * 1024
"""Bytes."""

MAX_SECRETS = 1000
"""In one place."""

_BATCH = 100


@dataclass(frozen=True, slots=True)
class Page:
    """Some secrets in the order of their places, and the token of the next ones."""

    rows: tuple[SecretRow, ...]
    token: str


def resource(place: SecretPlace) -> Resource:
    """A secret as policy sees it."""
    return Resource(ResourceType.SECRET, place.project, place.domain, place.name, place.owner)


def context(row: SecretRow) -> bytes:
    """What a sealed value is bound to: in another row, or as another version, it does not open."""
    bound = ["tower secret", row.id, row.project, row.domain, row.owner, row.name, row.version]
    return json.dumps(bound).encode()


def sealed(row: SecretRow) -> Sealed:
    """The sealed value of a row."""
    return Sealed(row.key_id, row.wrapped, row.content)


class Secrets:
    """The use-cases of those who keep secrets."""

    def __init__(self, *, db: Database, access: Access, projects: Projects, keys: SealingKeys) -> None:
        self._db = db
        self._access = access
        self._projects = projects
        self._keys = keys

    async def open(self) -> None:
        """Finish a rotation that was cut short. Raises Precondition when the key of some secret is gone."""
        missing = [each for each in await self._db.read(store.key_ids) if each not in self._keys]
        if missing:
            raise Precondition(
                "Secrets in the database are sealed with a key that is not there.",
                hint="Put the file secrets.key that belongs to this database back in its place.",
                cause=f"key {missing[0]}",
            )
        await self._db.write(self._reseal)
        self._keys.retire()

    async def create(
        self, principal: Principal, place: SecretPlace, value: bytes, *, request_id: str = ""
    ) -> SecretRow:
        """Keep a new secret. Raises AlreadyExists when there is one at this place."""
        _check_value(value)
        place, decision = await self._may(principal, Action.SECRET_CREATE, place, request_id=request_id)
        if place.project:
            self._projects.open_for_work(place.project)
        note = self._noting(principal, decision, request_id)

        def write(tx: Transaction) -> SecretRow:
            if store.at(tx, place) is not None:
                raise _taken(place)
            if store.count(tx, place) >= MAX_SECRETS:
                raise Exhausted(f"There may be at most {MAX_SECRETS} secrets in one place.")
            row = SecretRow(
                id="secret-" + "".join(randomness.choice(ALPHABET) for _ in range(16)),
                name=place.name,
                project=place.project,
                domain=place.domain,
                owner=place.owner,
                version=1,
                key_id="",
                wrapped=b"",
                content=b"",
                created_at=tx.now,
                created_by=principal.subject,
                updated_at=tx.now,
                updated_by=principal.subject,
            )
            row = self._seal(row, value)
            store.insert(tx, row)
            note(tx, Event.SECRET_CREATE, row)
            return row

        try:
            return await self._db.write(write)
        except IntegrityError:  # two writers on one database server: the other was first
            raise _taken(place) from None

    async def update(
        self, principal: Principal, place: SecretPlace, value: bytes, *, request_id: str = ""
    ) -> SecretRow:
        """Put another value in place of the one there is, which is gone then. Raises NotFound."""
        _check_value(value)
        place, decision = await self._may(principal, Action.SECRET_CREATE, place, request_id=request_id)
        note = self._noting(principal, decision, request_id)

        def write(tx: Transaction) -> SecretRow:
            row = store.at(tx, place)
            if row is None:
                raise not_found(resource(place))
            row = replace(row, version=row.version + 1, updated_at=tx.now, updated_by=principal.subject)
            row = self._seal(row, value)
            store.replace(tx, row)
            note(tx, Event.SECRET_UPDATE, row)
            return row

        return await self._db.write(write)

    async def delete(self, principal: Principal, place: SecretPlace, *, request_id: str = "") -> None:
        """Forget a secret. Work that has it keeps it; nothing gets it from now on. Raises NotFound."""
        place, decision = await self._may(principal, Action.SECRET_DELETE, place, request_id=request_id)
        note = self._noting(principal, decision, request_id)

        def write(tx: Transaction) -> None:
            row = store.at(tx, place)
            if row is None:
                raise not_found(resource(place))
            store.remove(tx, place)
            note(tx, Event.SECRET_DELETE, row)

        await self._db.write(write)

    async def get(self, principal: Principal, place: SecretPlace, *, request_id: str = "") -> SecretRow:
        """All about a secret but its value. Raises NotFound when it is absent or hidden."""
        place = self._place(principal, place)
        await self._access.require(principal, Action.SECRET_LIST, resource(place), request_id=request_id)
        row = await self._db.read(lambda reader: store.at(reader, place))
        if row is None:
            raise not_found(resource(place))
        return row

    async def page(
        self,
        principal: Principal,
        *,
        project: str = "",
        domain: str = "",
        personal: bool = False,
        after: int = 0,
        limit: int = 0,
    ) -> Page:
        """Secrets that the caller may know of, within the project and domain where those are named.

        `personal` adds the caller's own. `after` is a position in the list, as in the token of a page.
        """
        limit = max(1, min(limit or 100, 1000))
        owner = principal.subject if personal else ""
        rows = [
            row
            for row in await self._db.read(lambda reader: store.everything(reader, owner=owner))
            if (not project or row.project == project)
            and (not domain or row.domain == domain)
            and (await self._access.check(principal, Action.SECRET_LIST, resource(row.place))).allowed
        ]
        more = len(rows) > after + limit
        return Page(tuple(rows[after : after + limit]), str(after + limit) if more else "")

    async def rotate_key(self, principal: Principal, *, request_id: str = "") -> str:
        """Seal every secret anew with a fresh key and forget the former one; the id of the new key."""
        decision = await self._access.require(
            principal, Action.SECRET_CREATE, Resource(ResourceType.ORG), request_id=request_id
        )
        if principal.kind is not Kind.MACHINE:
            refused = replace(decision, allowed=False, policies=("on-the-machine-alone",))
            await self._access.refuse(principal, refused, request_id=request_id)
            raise Denied(
                "The key of secrets is rotated on the machine itself.", hint="tower secrets rotate-key"
            )
        made = self._keys.rotate()

        def write(tx: Transaction) -> None:
            count = self._reseal(tx)
            self._access.record(
                tx,
                principal,
                decision,
                event=Event.SEALING_KEY_ROTATE,
                request_id=request_id,
                detail={"key": made, "secrets": count},
            )

        await self._db.write(write)
        self._keys.retire()
        return made

    def _reseal(self, tx: Transaction) -> int:
        """Seal with the current key whatever is sealed with another one; answers how many those were."""
        count = 0
        while rows := store.batch(tx, not_sealed_with=self._keys.current, limit=_BATCH):
            for row in rows:
                store.replace(tx, self._seal(row, self._keys.open(sealed(row), context=context(row))))
            count += len(rows)
        return count

    def _seal(self, row: SecretRow, value: bytes) -> SecretRow:
        made = self._keys.seal(value, context=context(row))
        return replace(row, key_id=made.key_id, wrapped=made.wrapped, content=made.content)

    async def _may(
        self, principal: Principal, action: Action, place: SecretPlace, *, request_id: str
    ) -> tuple[SecretPlace, Decision]:
        """The place after all checks, and that the caller may do this there. Raises Denied and NotFound."""
        place = self._place(principal, place)
        return place, await self._access.require(
            principal, action, resource(place), request_id=request_id, view=Action.SECRET_LIST
        )

    def _noting(
        self, principal: Principal, decision: Decision, request_id: str
    ) -> Callable[[Transaction, Event, SecretRow], None]:
        """Records what becomes of a secret in the transaction of that."""

        def note(tx: Transaction, event: Event, row: SecretRow) -> None:
            self._access.record(tx, principal, decision, event=event, request_id=request_id, detail=told(row))

        return note

    @staticmethod
    def _place(principal: Principal, place: SecretPlace) -> SecretPlace:
        """The place after all checks. Raises Invalid, and NotFound for what is somebody else's own."""
        if not specs.SECRET.fullmatch(place.name):
            raise Invalid(
                "The name of a secret is missing or not one that a secret can have.",
                hint="It has at most 128 letters, digits and '_.-', and begins with none of '.-'.",
            )
        if place.owner:
            if place.project or place.domain:
                raise Invalid("A personal secret stands in no project or domain.")
            if place.owner != principal.subject or principal.kind is Kind.MACHINE:
                raise not_found(resource(replace(place, owner="")))
        elif place.domain and not place.project:
            raise Invalid("A domain stands in a project.", hint="Name the project too.")
        elif place.project:
            specs.scope(place.project, place.domain or DOMAINS[0])
        return place


def told(row: SecretRow) -> dict[str, object]:
    """What the audit trail says of a secret."""
    return {"secret": row.name, "id": row.id, "version": row.version, "level": level(row)}


def level(row: SecretRow) -> str:
    """How far a secret reaches: personal, domain, project or org."""
    if row.owner:
        return "personal"
    return "domain" if row.domain else "project" if row.project else "org"


def _check_value(value: bytes) -> None:
    if not value:
        raise Invalid("The value of a secret is missing.")
    if len(value) > MAX_VALUE:
        raise Invalid(f"The value of a secret has at most {MAX_VALUE} bytes.")


def _taken(place: SecretPlace) -> AlreadyExists:
    return AlreadyExists(f"There is a secret {place.name} there already.", hint="Update it instead.")
