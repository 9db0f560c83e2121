"""People whom identity providers vouch for: let in, named, with the groups that their provider says.

A person is an issuer's address and the `sub` there. Which subject that is, is decided once and never changes;
no such person can become a subject that exists already (T13).
"""

from __future__ import annotations

import hashlib
import re
from collections import OrderedDict
from collections.abc import Iterable, Mapping

from tower.audit import Event
from tower.control.access import Access
from tower.control.directory import Directory
from tower.control.logins import Logins, SignedIn
from tower.errors import Unauthenticated
from tower.identity.oidc.claims import Person
from tower.identity.principal import Credential, CredentialKind, Kind, Principal
from tower.issuers import IssuerSettings
from tower.policy.actions import Action
from tower.policy.engine import Decision
from tower.store import externals as store
from tower.store import identities, policies
from tower.store.database import Database, Transaction
from tower.store.externals import ExternalRow
from tower.store.identities import UserRow

SEPARATOR = "|"
"""Between the issuer's alias and the `sub`: no name that an administrator gives has it."""

_PLAIN = re.compile(r"[A-Za-z0-9._@+-]{1,64}")
_REMEMBERED = 8192


class Externals:
    """The `Admission` of the authenticator, and the end of a sign-in in the browser."""

    def __init__(
        self,
        *,
        db: Database,
        access: Access,
        directory: Directory,
        logins: Logins,
        issuers: Iterable[IssuerSettings],
    ) -> None:
        self._db = db
        self._access = access
        self._directory = directory
        self._logins = logins
        self._issuers = {each.alias: each for each in issuers}
        # when an issuer last spoke about a person: an older token does not bring back older groups; what a
        # restart leaves of that is the last change
        self._heard: OrderedDict[tuple[str, str], float] = OrderedDict()

    async def admit(self, person: Person) -> str:
        """The subject of whom a token names, made when new, with the groups that it says."""
        settings = self._issuers[person.alias]
        row = self._db.read_now(lambda reader: store.identity(reader, settings.issuer, person.sub))
        _check_domain(person, settings, known=row is not None)
        if row is not None and not self._news(person, settings, row):
            return row.subject
        return await self._db.write(lambda tx: self._arrive(tx, person, settings, fresh=False).subject)

    async def sign_in(self, person: Person, *, host: str, request_id: str = "") -> SignedIn:
        """Open a session of the console for who just signed in at the provider. Raises Unauthenticated."""
        settings = self._issuers[person.alias]

        def write(tx: Transaction) -> SignedIn:
            user = self._arrive(tx, person, settings, fresh=True, request_id=request_id)
            if user.disabled_at is not None:
                raise Unauthenticated("This account is disabled.", hint="Ask an administrator.")
            return self._logins.begin(
                tx, user, host=host, how=f"oidc:{settings.alias}", request_id=request_id
            )

        return await self._db.write(write)

    def _arrive(
        self, tx: Transaction, person: Person, settings: IssuerSettings, *, fresh: bool, request_id: str = ""
    ) -> UserRow:
        """`fresh`: the person is here now, so that what the provider does not say is not the case."""
        row = store.identity(tx, settings.issuer, person.sub)
        _check_domain(person, settings, known=row is not None and not fresh)
        if row is None:
            user = self._add(tx, person, settings, request_id=request_id)
        else:
            found = identities.user(tx, row.subject)
            assert found is not None  # users are never removed
            user = found
        groups = person.groups
        if groups is None and fresh and settings.groups_claim:
            groups = ()
        if groups is not None and self._hear(person, 0.0 if row is None else row.heard_at):
            self._join(tx, user, groups, person, settings, request_id=request_id)
        return user

    def _add(self, tx: Transaction, person: Person, settings: IssuerSettings, *, request_id: str) -> UserRow:
        kind = Kind.SERVICE if person.program else Kind.USER
        for subject in _names(person, settings):
            shown = person.name or (person.email if kind is Kind.USER else "")
            user = UserRow(subject, kind.value, shown, person.email, tx.now, settings.alias, None)
            if identities.add_user(tx, user):
                break
        else:
            raise Unauthenticated(
                "There is another account of this name.", hint="Ask an administrator.", cause=person.sub
            )
        store.add_identity(tx, ExternalRow(settings.issuer, person.sub, user.subject, tx.now, 0.0))
        self._record(
            tx,
            Event.USER_CREATE,
            user,
            person,
            request_id=request_id,
            detail={"user": user.subject, "kind": user.kind, "issuer": settings.issuer},
        )
        tx.after_commit(self._directory.forget)
        return user

    def _join(
        self,
        tx: Transaction,
        user: UserRow,
        groups: tuple[str, ...],
        person: Person,
        settings: IssuerSettings,
        *,
        request_id: str,
    ) -> None:
        names = [f"{settings.alias}:{group}" for group in groups]
        if policies.set_external_groups(tx, user.subject, settings.issuer, names):
            store.hear(tx, settings.issuer, person.sub, person.issued_at)
            detail = {"user": user.subject, "issuer": settings.issuer, "groups": names[:50]}
            self._record(tx, Event.USER_UPDATE, user, person, request_id=request_id, detail=detail)
            tx.after_commit(self._directory.forget)

    def _news(self, person: Person, settings: IssuerSettings, row: ExternalRow) -> bool:
        """Whether a token says other groups than what is known."""
        if person.groups is None:
            return False
        known = self._db.read_now(lambda reader: store.external_names(reader, row.subject))
        names = {f"{settings.alias}:{group}" for group in person.groups}
        if {name for source, name in known if source == settings.issuer} != names:
            return True
        self._hear(person, row.heard_at)
        return False

    def _hear(self, person: Person, changed_at: float) -> bool:
        """Whether nothing newer was heard about the person; what counts is when the issuer said it."""
        key = (person.alias, person.sub)
        if person.issued_at < max(self._heard.get(key, 0.0), changed_at):
            return False
        self._heard[key] = person.issued_at
        self._heard.move_to_end(key)
        while len(self._heard) > _REMEMBERED:
            self._heard.popitem(last=False)
        return True

    def _record(
        self,
        tx: Transaction,
        event: Event,
        user: UserRow,
        person: Person,
        *,
        request_id: str,
        detail: Mapping[str, object],
    ) -> None:
        self._access.record(
            tx,
            Principal(
                subject=user.subject,
                kind=Kind(user.kind),
                name=user.name,
                credential=Credential(CredentialKind.OIDC_TOKEN, person.id),
            ),
            Decision(
                True,
                (f"oidc:{person.alias}",),
                self._access.revision,
                Action.SELF_VIEW.value,
                f"user:{user.subject}",
            ),
            event=event,
            request_id=request_id,
            detail=detail,
        )


def _names(person: Person, settings: IssuerSettings) -> Iterable[str]:
    """The names that the person may get, the one wished for first."""
    if settings.subject == "email" and person.email and not person.program:
        yield person.email
    sub = person.sub
    if not _PLAIN.fullmatch(sub):
        sub = "~" + hashlib.sha256(sub.encode()).hexdigest()[:48]
    yield f"{settings.alias}{SEPARATOR}{sub}"


def _check_domain(person: Person, settings: IssuerSettings, *, known: bool) -> None:
    """Raise Unauthenticated unless the domain is let in; access tokens may leave the address out."""
    if not settings.email_domains or (known and not person.email):
        return
    if not person.email:
        raise Unauthenticated(
            "Your identity provider did not give a verified e-mail address.",
            hint="Sign in with a browser first; the scope email has to be granted.",
        )
    if person.email.rpartition("@")[2] not in settings.email_domains:
        raise Unauthenticated(
            "Your e-mail address is of no domain that is let in.", hint="Ask an administrator."
        )
