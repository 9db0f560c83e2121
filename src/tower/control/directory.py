"""What the authenticators ask: subjects, keys, sessions and attempts as of the last commit.

Facts about people and keys stay in memory until the next change of any of them (the identity epoch): then all
are forgotten, after the commit and before the caller of the change resumes. Lookups go by primary key and run
in the event loop without a pause, so none can put back a fact that was forgotten meanwhile.
"""

from __future__ import annotations

import asyncio
import json
from collections import OrderedDict
from collections.abc import Callable, Mapping
from typing import Generic, TypeVar

from tower.clock import Clock
from tower.control import privileges
from tower.errors import Broken, Fault
from tower.identity.accesstokens import LOGIN_PREFIX
from tower.identity.clients import Scope
from tower.identity.directory import KeyFacts, LoginFacts, SessionFacts, SubjectFacts
from tower.identity.oidc.claims import ends_at
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
from tower.identity.webhooks import ID_PREFIX as WEBHOOK_PREFIX
from tower.issuers import IssuerSettings
from tower.policy.actions import Action
from tower.policy.rules import NOTHING, Binding, Bindings
from tower.store import apps, externals, oauth, webhooks
from tower.store import identities as store
from tower.store import policies as rules
from tower.store.database import Database, Reader
from tower.store.identities import AttemptRow
from tower.store.policies import CeilingRow

_REMEMBERED = 16_384
_SECONDS_BETWEEN_USES = 60.0

V = TypeVar("V")


class Directory:
    """One per process; it is the `Keys`, `Sessions`, `Parents` and `Attempts` of the authenticators."""

    def __init__(self, *, db: Database, clock: Clock, issuers: tuple[IssuerSettings, ...] = ()) -> None:
        """`issuers` say which groups of theirs are groups of Tower's or have roles."""
        self._db = db
        self._clock = clock
        self._issuers = {each.issuer: each for each in issuers}
        self._people: _Remembered[tuple[SubjectFacts, Bindings]] = _Remembered()
        self._keys: _Remembered[KeyFacts] = _Remembered()
        self._apps: _Remembered[tuple[Ceiling, ...]] = _Remembered()
        self._logins: _Remembered[LoginFacts] = _Remembered()
        self._tokens: _Remembered[bool] = _Remembered()
        self._noted: dict[str, float] = {}
        self._unwritten: dict[str, float] = {}
        self._writing: asyncio.Task[None] | None = None
        self.changed: Callable[[], None] = lambda: None
        """Called after `forget`: whoever acts for somebody has to look again."""
        self.epoch = 0

    def forget(self) -> None:
        """Move the identity epoch: everything is read again. Call it after the commit of a change."""
        self.epoch += 1
        self._people.clear()
        self._keys.clear()
        self._logins.clear()
        self._tokens.clear()
        self._apps.clear()
        self.changed()

    async def subject(self, subject: str) -> SubjectFacts | None:
        """The subject, or None."""
        found = self._person(subject)
        return None if found is None else found[0]

    async def bindings(self, subject: str, groups: tuple[str, ...] = ()) -> Bindings:
        """The roles of a subject and of their groups; none for one that is unknown or disabled.

        `groups` are names out of a claim that an identity provider vouches for with this very call; what it
        said at the last sign-in is kept (`store.policies.set_external_groups`) and needs no repetition.
        """
        found = self._person(subject, groups)
        return NOTHING if found is None or found[0].disabled else found[1]

    def app_ceilings(self, app: str) -> tuple[Ceiling, ...]:
        """What an app (`project/domain/name`) may do for people at most: as deployed, and as admins say."""
        known = self._apps.get(app)
        if known is None:
            project, domain, name = (*app.split("/", 2), "", "")[:3]
            rows = self._db.read_now(lambda reader: rules.ceilings_of(reader, project, domain, name))
            known = tuple(app_ceiling(row) for row in rows)
            self._apps.put(app, known)
        return known

    async def key(self, key_id: str) -> KeyFacts | None:
        """The key of this public id, those that are off included."""
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
                disabled=row.disabled_at is not None,
                actions=None if row.actions is None else frozenset(json.loads(row.actions)),
                maker=row.maker,
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

    def webhook_off(self, webhook_id: str, subject: str) -> bool:
        """Whether the webhook of this public id was deleted or replaced, or runs as this subject no more."""
        hook = self._db.read_now(lambda reader: webhooks.by_id(reader, webhook_id))
        return hook is None or not hook.maps_to(subject)

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
                if facts is None or facts.off or facts.subject != subject:
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
            case CredentialKind.OIDC_TOKEN:
                return ends_at(public_id) > self._clock.now()
            case CredentialKind.WEBHOOK:
                return not self.webhook_off(public_id, subject)
            case CredentialKind.WORKLOAD:
                principal = await self.attempt(public_id)
                return principal is not None and principal.subject == subject
            case CredentialKind.APP_TOKEN | CredentialKind.SCHEDULE | CredentialKind.MACHINE:
                return False

    async def attempt(self, attempt_id: str) -> Principal | None:
        """Whom a running attempt acts for; None once it is over, or the person or the key is off."""
        parts = attempt_id.split("/")
        if len(parts) != 5 or not parts[4].isdecimal() or len(parts[4]) > 6:
            return None
        project, domain, run, action, number = parts
        row = self._db.read_now(
            lambda reader: store.attempt(
                reader, project=project, domain=domain, run=run, action=action, attempt=int(number)
            )
        )
        if row is None or await self._key_off(row):
            return None
        person = await self.subject(row.executed_by)
        if person is None or person.disabled:
            return None
        return principal_of_run(row, person)

    async def owner(self, app: str) -> Principal | None:
        """Who deployed an app, as far as its secrets go; None where they are off or the app is gone."""
        project, domain, name = (*app.split("/", 2), "", "")[:3]
        row = self._db.read_now(lambda reader: apps.get(reader, project, domain, name))
        person = None if row is None else await self.subject(row.deployed_by)
        if person is None or person.disabled:
            return None
        only = frozenset({Action.SECRET_USE.value})
        return Principal(
            subject=person.subject,
            kind=person.kind,
            name=person.name,
            email=person.email,
            credential=Credential(CredentialKind.WORKLOAD, app, attested=True),
            ceilings=(Ceiling(f"start of app:{app}", actions=only),),
        )

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

    def _person(self, subject: str, groups: tuple[str, ...] = ()) -> tuple[SubjectFacts, Bindings] | None:
        remembered = "\0".join((subject, *groups))
        known = self._people.get(remembered)
        if known is None:
            found = self._db.read_now(lambda reader: _read_person(reader, subject, groups, self._issuers))
            if found is None:
                return None
            known = found
            self._people.put(remembered, known)
        return known

    def _session_alive(self, session_id: str, subject: str) -> bool:
        row = self._db.read_now(lambda reader: store.session_by_id(reader, session_id))
        if row is None or row.subject != subject or row.revoked_at is not None:
            return False
        if row.expires_at <= self._clock.now():
            return False
        return not row.parent or self._session_alive(row.parent, subject)

    async def _key_off(self, row: AttemptRow) -> bool:
        """Whether the key that asked for the run is off. Its mere expiry ends no run (T6)."""
        if row.credential_kind == CredentialKind.API_KEY:
            facts = await self.key(row.credential_id)
            return facts is None or facts.off
        if row.credential_id.startswith(WEBHOOK_PREFIX):  # behind the app's token, too, and below a run
            return self.webhook_off(row.credential_id, row.executed_by)
        facts = await self.key(row.credential_id) if row.credential_id else None
        return facts is not None and facts.off


def principal_of_run(row: AttemptRow, person: SubjectFacts) -> Principal:
    """The executor of an attempt as a caller: the person, through the whole chain of actors and this run.

    The limits of what the person showed stay, and managing identities is off but for privileges. Raises
    Broken for a row whose actors or limits cannot be read: it must not run without them.
    """
    attempt_id = f"{row.project}/{row.domain}/{row.run}/{row.action}/{row.attempt}"
    try:
        actors = tuple(actor_from_text(text) for text in json.loads(row.actors))
        ceilings = tuple(ceiling_from_json(value) for value in json.loads(row.ceilings))
        own = privileges.of_work(f"run:{row.project}/{row.domain}/{row.run}", row.privileges)
    except (TypeError, ValueError, AttributeError) as error:
        raise Broken("The record of a run is damaged.", cause=f"{attempt_id}: {error!r}") from error
    return Principal(
        subject=person.subject,
        kind=person.kind,
        name=person.name,
        email=person.email,
        credential=Credential(CredentialKind.WORKLOAD, attempt_id, attested=True, parent=row.credential_id),
        actors=(*actors, Actor(ActorKind.RUN, attempt_id)),
        ceilings=(*ceilings, *own),
    )


def app_ceiling(row: CeilingRow) -> Ceiling:
    """The limits of an app as a ceiling. Raises Broken for text that is none: that is not "no limit"."""
    try:
        limits = json.loads(row.limits)
        return ceiling_from_json(
            {"source": f"app:{row.project}/{row.domain}/{row.name} {row.source}", **limits}
        )
    except (ValueError, TypeError) as error:
        raise Broken("The limits of an app cannot be read.", cause=f"{row.name}: {error}") from error


def _read_person(
    reader: Reader, subject: str, external: tuple[str, ...], issuers: Mapping[str, IssuerSettings]
) -> tuple[SubjectFacts, Bindings] | None:
    row = store.user(reader, subject)
    if row is None:
        return None
    claimed = [
        (issuers[source], name.partition(":")[2])
        for source, name in externals.external_names(reader, subject)
        if source in issuers
    ]
    mapped = {settings.groups[name] for settings, name in claimed if name in settings.groups}
    names = sorted({*rules.groups_of(reader, subject, external), *mapped})
    given = [(each, "") for each in store.bindings_of(reader, subject)]
    given += [(each, name) for name in names for each in store.bindings_of(reader, rules.GROUP + name)]
    facts = SubjectFacts(row.subject, Kind(row.kind), row.name, row.email, row.disabled_at is not None)
    roles = [
        Binding(each.role, each.project, each.domain, each.kind, each.name, group) for each, group in given
    ]
    roles += [
        Binding(each.role, each.project, each.domain, group=f"{settings.alias}:{name}")
        for settings, name in claimed
        for each in settings.roles
        if each.group == name
    ]
    return facts, Bindings.of(roles, names)


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
