"""What the authenticators ask: subjects, keys, sessions and attempts as of the last commit.

Facts about people and keys stay in memory until the next change of any of them (the identity epoch): then all
are forgotten, after the commit and before the caller of the change resumes. Lookups go by primary key and run
in the event loop without a pause, so none can put back a fact that was forgotten meanwhile.
"""

from __future__ import annotations

import asyncio
import json
from collections import OrderedDict
from typing import Generic, TypeVar

from tower.clock import Clock
from tower.errors import Broken, Fault
from tower.identity.accesstokens import LOGIN_PREFIX
from tower.identity.clients import Scope
from tower.identity.directory import KeyFacts, LoginFacts, SessionFacts, SubjectFacts
from tower.identity.principal import (
    Actor,
    ActorKind,
    Ceiling,
    Credential,
    CredentialKind,
    Kind,
    Principal,
)
from tower.identity.tokens import actor_from_text, ceiling_from_json
from tower.policy.actions import Action
from tower.policy.rules import NOTHING, Binding, Bindings
from tower.store import identities as store
from tower.store import oauth
from tower.store.database import Database
from tower.store.identities import AttemptRow

IDENTITY_ACTIONS = frozenset({Action.KEY_MANAGE.value, Action.KEY_MANAGE_OWN.value, Action.USER_MANAGE.value})
"""What neither a task nor an app may do for the person it acts for, whatever that person may do (T1, T16)."""

_REMEMBERED = 8192
_SECONDS_BETWEEN_USES = 60.0

V = TypeVar("V")


class Directory:
    """One per process; it is the `Keys`, `Sessions`, `Parents` and `Attempts` of the authenticators."""

    def __init__(self, *, db: Database, clock: Clock) -> None:
        self._db = db
        self._clock = clock
        self._people: _Remembered[tuple[SubjectFacts, Bindings]] = _Remembered()
        self._keys: _Remembered[KeyFacts] = _Remembered()
        self._logins: _Remembered[LoginFacts] = _Remembered()
        self._tokens: _Remembered[bool] = _Remembered()
        self._noted: dict[str, float] = {}
        self._unwritten: dict[str, float] = {}
        self._writing: asyncio.Task[None] | None = None
        self.epoch = 0

    def forget(self) -> None:
        """Move the identity epoch: everything is read again. Call it after the commit of a change."""
        self.epoch += 1
        self._people.clear()
        self._keys.clear()
        self._logins.clear()
        self._tokens.clear()

    async def subject(self, subject: str) -> SubjectFacts | None:
        """The subject, or None."""
        found = self._person(subject)
        return None if found is None else found[0]

    async def bindings(self, subject: str) -> Bindings:
        """The roles of a subject; none for one that is unknown or disabled."""
        found = self._person(subject)
        return NOTHING if found is None or found[0].disabled else found[1]

    async def key(self, key_id: str) -> KeyFacts | None:
        """The key of this public id, deleted ones included."""
        known = self._keys.get(key_id)
        if known is None:
            stored = self._db.read_now(lambda reader: store.key(reader, key_id))
            if stored is None:
                return None  # not remembered: guesses must not push out what is real
            row, digest = stored
            known = KeyFacts(
                id=row.id,
                name=row.name,
                subject=row.subject,
                hash=digest,
                role=row.role,
                project=row.project,
                domain=row.domain,
                expires_at=row.expires_at,
                deleted=row.deleted_at is not None,
            )
            self._keys.put(key_id, known)
        return known

    def login(self, login_id: str) -> LoginFacts | None:
        """The login of this public id, revoked ones included."""
        known = self._logins.get(login_id)
        if known is None:
            row = self._db.read_now(lambda reader: oauth.login(reader, login_id))
            if row is None:
                return None
            scope = Scope.read(row.scope)  # a limit that cannot be read is not the absence of one
            known = LoginFacts(
                id=row.id,
                subject=row.subject,
                client=row.client,
                expires_at=row.expires_at,
                ceilings=() if scope is None else scope.ceilings(f"login:{row.id}"),
                revoked=row.revoked_at is not None or scope is None,
            )
            self._logins.put(login_id, known)
        return known

    def token_revoked(self, token_id: str) -> bool:
        """Whether this one access token was revoked. Ask about genuine tokens only: answers are kept."""
        known = self._tokens.get(token_id)
        if known is None:
            known = self._db.read_now(lambda reader: oauth.token_revoked(reader, token_id))
            self._tokens.put(token_id, known)
        return known

    async def session(self, digest: bytes) -> SessionFacts | None:
        """The session of this digest; one that came from another ends with it."""
        row = self._db.read_now(lambda reader: store.session(reader, digest))
        if row is None:
            return None
        revoked = row.revoked_at is not None
        if row.parent and not revoked:
            revoked = not self._session_alive(row.parent, row.subject)
        return SessionFacts(
            id=row.id,
            subject=row.subject,
            host=row.host,
            parent=row.parent,
            expires_at=row.expires_at,
            revoked=revoked,
        )

    async def alive(self, kind: CredentialKind, public_id: str, subject: str) -> bool:
        """Whether the credential behind an exchanged token still holds for this subject."""
        match kind:
            case CredentialKind.API_KEY:
                facts = await self.key(public_id)
                if facts is None or facts.deleted or facts.subject != subject:
                    return False
                return facts.expires_at is None or facts.expires_at > self._clock.now()
            case CredentialKind.SESSION:
                return self._session_alive(public_id, subject)
            case CredentialKind.ACCESS_TOKEN:
                holder = public_id.partition(".")[0]
                if self.token_revoked(public_id):
                    return False
                if not holder.startswith(LOGIN_PREFIX):
                    return await self.alive(CredentialKind.API_KEY, holder, subject)
                login = self.login(holder)
                if login is None or login.revoked or login.subject != subject:
                    return False
                return login.expires_at > self._clock.now()
            case CredentialKind.WORKLOAD:
                principal = await self.attempt(public_id)
                return principal is not None and principal.subject == subject
            case CredentialKind.APP_TOKEN | CredentialKind.MACHINE:
                return False

    async def attempt(self, attempt_id: str) -> Principal | None:
        """Whom a running attempt acts for; None once it is over, the person disabled or the key deleted."""
        parts = attempt_id.split("/")
        if len(parts) != 5 or not parts[4].isdecimal() or len(parts[4]) > 6:
            return None
        project, domain, run, action, number = parts
        row = self._db.read_now(
            lambda reader: store.attempt(
                reader, project=project, domain=domain, run=run, action=action, attempt=int(number)
            )
        )
        if row is None or await self._key_deleted(row):
            return None
        person = await self.subject(row.executed_by)
        if person is None or person.disabled:
            return None
        return principal_of_run(row, person)

    def used(self, key_id: str) -> None:
        """Note a use of a key; the store learns of it in the background, at most once a minute per key."""
        now = self._clock.now()
        if now - self._noted.get(key_id, -_SECONDS_BETWEEN_USES) < _SECONDS_BETWEEN_USES:
            return
        self._noted[key_id] = self._unwritten[key_id] = now
        if self._writing is None or self._writing.done():
            self._writing = asyncio.get_running_loop().create_task(self._write_uses())

    async def close(self) -> None:
        """Finish what is being written. Before the database closes."""
        if self._writing is not None:
            await self._writing

    async def _write_uses(self) -> None:
        while self._unwritten:
            times, self._unwritten = self._unwritten, {}
            try:
                await self._db.write(lambda tx, times=times: store.touch_keys(tx, times))  # type: ignore[misc]
            except Fault:
                return  # only a statistic: the calls themselves are in the audit

    def _person(self, subject: str) -> tuple[SubjectFacts, Bindings] | None:
        known = self._people.get(subject)
        if known is None:
            row, given = self._db.read_now(
                lambda reader: (store.user(reader, subject), store.bindings_of(reader, subject))
            )
            if row is None:
                return None
            facts = SubjectFacts(
                row.subject, Kind(row.kind), row.name, row.email, row.disabled_at is not None
            )
            known = facts, Bindings.of(Binding(each.role, each.project, each.domain) for each in given)
            self._people.put(subject, known)
        return known

    def _session_alive(self, session_id: str, subject: str) -> bool:
        row = self._db.read_now(lambda reader: store.session_by_id(reader, session_id))
        if row is None or row.subject != subject or row.revoked_at is not None:
            return False
        if row.expires_at <= self._clock.now():
            return False
        return not row.parent or self._session_alive(row.parent, subject)

    async def _key_deleted(self, row: AttemptRow) -> bool:
        """Whether the key that asked for the run was deleted. Its mere expiry ends no run (T6)."""
        if row.credential_kind == CredentialKind.API_KEY:
            facts = await self.key(row.credential_id)
            return facts is None or facts.deleted
        facts = await self.key(row.credential_id) if row.credential_id else None
        return facts is not None and facts.deleted


def principal_of_run(row: AttemptRow, person: SubjectFacts) -> Principal:
    """The executor of an attempt as a caller: the person, through the whole chain of actors and this run.

    The limits of what the person showed stay, and managing identities is off. Raises Broken for a row whose
    actors or limits cannot be read: it must not run without them.
    """
    attempt_id = f"{row.project}/{row.domain}/{row.run}/{row.action}/{row.attempt}"
    try:
        actors = tuple(actor_from_text(text) for text in json.loads(row.actors))
        ceilings = tuple(ceiling_from_json(value) for value in json.loads(row.ceilings))
    except (TypeError, ValueError, AttributeError) as error:
        raise Broken("The record of a run is damaged.", cause=f"{attempt_id}: {error!r}") from error
    return Principal(
        subject=person.subject,
        kind=person.kind,
        name=person.name,
        email=person.email,
        credential=Credential(CredentialKind.WORKLOAD, attempt_id, attested=True, parent=row.credential_id),
        actors=(*actors, Actor(ActorKind.RUN, attempt_id)),
        ceilings=(
            *ceilings,
            Ceiling(f"run:{row.project}/{row.domain}/{row.run}", forbidden=IDENTITY_ACTIONS),
        ),
    )


class _Remembered(Generic[V]):
    """A bounded table that lets go of what was asked for longest ago."""

    def __init__(self) -> None:
        self._items: OrderedDict[str, V] = OrderedDict()

    def get(self, name: str) -> V | None:
        found = self._items.get(name)
        if found is not None:
            self._items.move_to_end(name)
        return found

    def put(self, name: str, value: V) -> None:
        self._items[name] = value
        while len(self._items) > _REMEMBERED:
            self._items.popitem(last=False)

    def clear(self) -> None:
        self._items.clear()
