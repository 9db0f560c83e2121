"""Giving out tokens: what a login opens, and the audit record of each.

A refresh token is used once. Its successor is computed from it, so that a client that lost the answer, or
asked twice at the same moment, gets the very same successor for some seconds; any other second use means that
two parties hold the login, and ends it for both (RFC 9700 section 4.14.2).
"""

from __future__ import annotations

import base64
import hashlib
import hmac
import secrets
from dataclasses import dataclass, field

from tower.audit import Event
from tower.clock import ALPHABET, Clock
from tower.control.access import Access
from tower.control.directory import Directory
from tower.identity.accesstokens import LOGIN_PREFIX, AccessTokens
from tower.identity.clients import OPENID, Scope
from tower.identity.principal import Credential, CredentialKind, Kind, Principal
from tower.identity.signing import SigningKey
from tower.policy.actions import Action, Resource, ResourceType
from tower.policy.engine import Decision
from tower.settings import Settings
from tower.store import oauth as store
from tower.store.database import Transaction
from tower.store.identities import UserRow
from tower.store.oauth import LoginRow, RefreshRow

REFRESH_PREFIX = "trr_"
KEEP_SECONDS = 24 * 3600.0
"""How long rows of what has ended are kept, so that a second use of them is still recognised."""


@dataclass(frozen=True, slots=True)
class Issued:
    """The answer of the token endpoint (RFC 6749 section 5.1). Empty texts are left out of it."""

    access_token: str = field(repr=False)
    expires_in: int
    scope: str = ""
    refresh_token: str = field(default="", repr=False)
    id_token: str = field(default="", repr=False)
    issued_token_type: str = ""


@dataclass(frozen=True, slots=True)
class Opening:
    """What a person allowed: a client on some device to act for them within a scope."""

    person: UserRow
    client: str
    scope: Scope
    authenticated_at: float
    device: str = ""
    place: str = ""
    nonce: str = ""


class Issuing:
    """Makes the tokens of logins, inside the transaction that decided about them."""

    def __init__(
        self,
        *,
        access: Access,
        directory: Directory,
        tokens: AccessTokens,
        secret: SigningKey,
        clock: Clock,
        settings: Settings,
    ) -> None:
        self._access = access
        self._directory = directory
        self._tokens = tokens
        self._successors = secret.derive("refresh token successors")
        self._clock = clock
        self._settings = settings

    @staticmethod
    def login_id() -> str:
        """A fresh public name of a login; no API key has an id that starts like this."""
        return LOGIN_PREFIX + "".join(secrets.choice(ALPHABET) for _ in range(16))

    def open(
        self, tx: Transaction, opening: Opening, *, login_id: str, issuer: str, how: str, request_id: str
    ) -> Issued:
        """Begin a login and give out its first tokens."""
        row = LoginRow(
            id=login_id,
            subject=opening.person.subject,
            client=opening.client,
            scope=str(opening.scope),
            device=opening.device,
            place=opening.place,
            authenticated_at=opening.authenticated_at,
            created_at=tx.now,
            expires_at=tx.now + self._settings.login_life,
            revoked_at=None,
        )
        store.add_login(tx, row)
        store.forget_old(tx, tx.now - KEEP_SECONDS)
        detail = {"login": row.id, "client": row.client, "scope": row.scope, "device": row.device}
        self.record(
            tx, opening.person, row.id, event=Event.LOGIN_CREATE, how=how, request_id=request_id, **detail
        )
        refresh = REFRESH_PREFIX + secrets.token_urlsafe(32)
        self.keep(tx, row, refresh)
        return self.tokens(
            row, opening.person, scope=opening.scope, refresh=refresh, issuer=issuer, nonce=opening.nonce
        )

    def tokens(
        self, row: LoginRow, person: UserRow, *, scope: Scope, refresh: str, issuer: str, nonce: str = ""
    ) -> Issued:
        """An access token of a login, and an ID token when the scope asks for one."""
        life = min(self._settings.access_token_life, row.expires_at - self._clock.now())
        text, _ = self._tokens.mint(
            issuer=issuer, subject=row.subject, client=row.client, holder=row.id, scope=str(scope), life=life
        )
        shown = {"name": person.name} if "profile" in scope and person.name else {}
        if "email" in scope and person.email:
            shown["email"] = person.email
        identity = ""
        if OPENID in scope:
            identity = self._tokens.mint_id_token(
                issuer=issuer,
                subject=row.subject,
                client=row.client,
                nonce=nonce,
                authenticated_at=row.authenticated_at,
                life=life,
                more=shown,
            )
        return Issued(text, int(life), scope=str(scope), refresh_token=refresh, id_token=identity)

    def keep(self, tx: Transaction, login: LoginRow, refresh: str) -> None:
        """Store a refresh token that may be used until it has lain idle too long."""
        ends = min(login.expires_at, tx.now + self._settings.login_idle)
        store.add_refresh_token(tx, RefreshRow(login.id, tx.now, ends, None), digest=digest(refresh))

    def successor(self, refresh: str) -> str:
        """The one refresh token that may follow this one."""
        made = hmac.digest(self._successors, refresh.encode(), hashlib.sha256)
        return REFRESH_PREFIX + base64.urlsafe_b64encode(made).rstrip(b"=").decode()

    def end(self, tx: Transaction, person: UserRow, login_id: str, *, how: str, request_id: str) -> None:
        """Revoke a login with all its tokens, and record why."""
        if store.revoke_login(tx, login_id, tx.now):
            tx.after_commit(self._directory.forget)
            self.record(
                tx,
                person,
                login_id,
                event=Event.LOGIN_REVOKE,
                how=how,
                request_id=request_id,
                login=login_id,
            )

    def record(
        self,
        tx: Transaction,
        person: UserRow,
        holder: str,
        *,
        event: Event,
        how: str,
        request_id: str,
        **detail: str,
    ) -> None:
        """The audit record of an effect on a login or a token of this person."""
        caller = Principal(
            subject=person.subject,
            kind=Kind(person.kind),
            name=person.name,
            credential=Credential(CredentialKind.ACCESS_TOKEN, holder, parent=holder),
        )
        self._access.record(
            tx, caller, self.decision(how), event=event, request_id=request_id, detail={**detail}
        )

    def decision(self, how: str) -> Decision:
        """That everybody may do this for themselves; `how` names the grant."""
        org = Resource(ResourceType.ORG)
        return Decision(True, (how,), self._access.revision, Action.SELF_VIEW.value, str(org))


def digest(text: str) -> bytes:
    """What the store keeps of a code or refresh token: 32 bytes."""
    return hashlib.sha256(text.encode(errors="replace")).digest()
