"""Signing in with a browser: one-time codes and the sessions that they open.

A code is made by an administrator for a person (`tower users link`), or by Tower itself to carry a session of
the console over to the host of one app: cookies are for one host each, so that no app sees another's (T19).
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace

from tower.audit import Event
from tower.control import keysofwork
from tower.control.access import Access, not_found
from tower.errors import Denied, Precondition, Unauthenticated
from tower.identity import sessions
from tower.identity.principal import Credential, CredentialKind, Kind, Principal
from tower.policy.actions import Action, Resource, ResourceType
from tower.policy.engine import Decision
from tower.settings import Settings
from tower.store import identities as store
from tower.store.database import Database, Transaction
from tower.store.identities import LinkRow, SessionRow, UserRow

SIGN_IN_PATH = "/signin/"
"""The console's page that a link points at; the code follows as the last segment of the path."""

HANDOVER_SECONDS = 60.0
_KEEP_SECONDS = 30 * 24 * 3600.0


@dataclass(frozen=True, slots=True)
class SignedIn:
    """A session just opened; `text` belongs into the cookie and nowhere else."""

    row: SessionRow
    text: str = field(repr=False)


class Logins:
    """The use-cases of the login pages and of `/api/v1/links`."""

    def __init__(self, *, db: Database, access: Access, settings: Settings) -> None:
        self._db = db
        self._access = access
        self._settings = settings

    async def create_link(self, principal: Principal, subject: str, *, request_id: str = "") -> str:
        """A one-time code that signs `subject` in to the console. Needs `user:manage`."""
        resource = Resource(ResourceType.USER, name=subject[:127])
        decision = await self._access.require(principal, Action.USER_MANAGE, resource, request_id=request_id)
        await keysofwork.no_login(self._access, principal, decision, request_id=request_id)
        text = sessions.generate()

        def write(tx: Transaction) -> None:
            person = store.user(tx, subject)
            if person is None:
                raise not_found(resource)
            if person.disabled_at is not None or person.kind != Kind.USER:
                raise Precondition(
                    f"{subject} cannot sign in.", hint="Only a person whose account is enabled can."
                )
            self._insert(
                tx, LinkRow(subject, "", "", tx.now, tx.now + self._settings.link_life, None), text, principal
            )
            self._access.record(tx, principal, decision, event=Event.LINK_CREATE, request_id=request_id)

        await self._db.write(write)
        return text

    async def create_handover(self, principal: Principal, host: str, *, request_id: str = "") -> str:
        """A code that opens a session of the same person on the host of an app, for a minute.

        `host` as in a Host header, lower case, with port. Raises Denied unless the caller has a session
        of the console itself; that is recorded.
        """
        if principal.credential.kind is not CredentialKind.SESSION or principal.credential.parent:
            refused = replace(self._self(policy="console-session-only"), allowed=False)
            await self._access.refuse(principal, refused, request_id=request_id)
            raise Denied("Only a session of the console can be carried over.", hint="Sign in to the console.")
        text = sessions.generate()
        row_of = (principal.subject, host.lower(), principal.credential.id)

        def write(tx: Transaction) -> None:
            self._insert(tx, LinkRow(*row_of, tx.now, tx.now + HANDOVER_SECONDS, None), text, principal)

        await self._db.write(write)
        return text

    async def sign_in(
        self, text: str, *, host: str, handover: bool = False, request_id: str = ""
    ) -> SignedIn:
        """Use up a code and open a session for `host` (a Host header value). Raises Unauthenticated.

        With `handover` the code must be one made for this host, without it one made for the console.
        """
        wanted = host.lower() if handover else ""

        def write(tx: Transaction) -> SignedIn:
            link = store.take_link(tx, sessions.digest(text), tx.now) if sessions.well_formed(text) else None
            person = None if link is None else store.user(tx, link.subject)
            if link is None or link.host != wanted or person is None or person.disabled_at is not None:
                # raising undoes the use: a code shown at the wrong host stays good at the right one
                raise Unauthenticated(
                    "The sign-in link does not hold.", hint="It works once. Ask for a new one."
                )
            ends = tx.now + self._settings.session_life
            if link.session:
                parent = store.session_by_id(tx, link.session)
                if parent is None or parent.revoked_at is not None or parent.expires_at <= tx.now:
                    raise Unauthenticated("The session has ended.", hint="Sign in again.")
                ends = min(ends, parent.expires_at)
            return self.begin(
                tx,
                person,
                host=host,
                how="one-time-code",
                parent=link.session,
                ends=ends,
                request_id=request_id,
            )

        return await self._db.write(write)

    def begin(
        self,
        tx: Transaction,
        person: UserRow,
        *,
        host: str,
        how: str,
        parent: str = "",
        ends: float | None = None,
        request_id: str = "",
    ) -> SignedIn:
        """Open a session of somebody who just showed who they are, inside the transaction that decided so.

        `how` is recorded as the policy that let them in; `host` is the Host header value it is good for.
        """
        text = sessions.generate()
        ends = tx.now + self._settings.session_life if ends is None else ends
        row = SessionRow(sessions.public_id(), person.subject, host.lower(), parent, tx.now, ends, None)
        store.add_session(tx, row, digest=sessions.digest(text))
        store.forget_old_logins(tx, tx.now - _KEEP_SECONDS)
        caller = Principal(
            subject=person.subject,
            kind=Kind(person.kind),
            name=person.name,
            credential=Credential(CredentialKind.SESSION, row.id, parent=row.parent),
        )
        self._access.record(
            tx,
            caller,
            self._self(policy=how),
            event=Event.SESSION_CREATE,
            request_id=request_id,
            detail={"session": row.id, "host": row.host},
        )
        return SignedIn(row, text)

    async def sign_out(self, principal: Principal, *, request_id: str = "") -> None:
        """End the caller's session, and those that were carried over from it to apps."""
        if principal.credential.kind is not CredentialKind.SESSION:
            raise Precondition("There is no session to end.")

        def write(tx: Transaction) -> None:
            # signing out at an app ends the whole session, since the console would sign in again at once
            if store.revoke_session(tx, principal.credential.parent or principal.credential.id, tx.now):
                self._access.record(
                    tx,
                    principal,
                    self._self(policy="everyone-knows-themselves"),
                    event=Event.SESSION_REVOKE,
                    request_id=request_id,
                )

        await self._db.write(write)

    def _insert(self, tx: Transaction, row: LinkRow, text: str, principal: Principal) -> None:
        store.add_link(tx, row, digest=sessions.digest(text), created_by=principal.subject)

    def _self(self, *, policy: str) -> Decision:
        return Decision(
            True, (policy,), self._access.revision, Action.SELF_VIEW.value, str(Resource(ResourceType.ORG))
        )
