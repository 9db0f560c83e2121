"""The authorisation code: a person allows a client, and the client shows that it is the one that asked."""

from __future__ import annotations

import secrets
from dataclasses import dataclass

from tower.audit import Event
from tower.control.access import Access
from tower.control.oauth.issuing import Issued, Issuing, Opening, digest
from tower.control.oauth.refusals import Refusal, invalid_grant, invalid_scope
from tower.errors import Denied, Unauthenticated
from tower.identity import clients, pkce
from tower.identity.clients import Scope
from tower.identity.principal import CredentialKind, Kind, Principal
from tower.store import identities, oauth
from tower.store.database import Database, Transaction
from tower.store.oauth import CodeRow

CODE_SECONDS = 60.0
LONGEST_STATE = 1024


@dataclass(frozen=True, slots=True)
class Asked:
    """An authorisation request that may be shown to a person (RFC 6749 section 4.1.1, RFC 7636)."""

    client: str
    redirect_uri: str
    scope: Scope
    challenge: str
    state: str
    nonce: str = ""


def read(fields: dict[str, str]) -> Asked:
    """Check a request whose client and redirect address hold. Raises Refusal, which may be sent there."""
    if fields.get("response_type") != "code":
        raise Refusal("unsupported_response_type", "Only the response type code is offered.")
    state = fields.get("state", "")
    if not state or len(state) > LONGEST_STATE or not state.isascii() or not state.isprintable():
        raise Refusal("invalid_request", "A state of 1 to 1024 printable characters is needed.")
    challenge = fields.get("code_challenge", "")
    if fields.get("code_challenge_method") != pkce.METHOD or not pkce.is_challenge(challenge):
        raise Refusal("invalid_request", "PKCE with the method S256 is needed.")
    nonce = fields.get("nonce", "")
    if len(nonce) > LONGEST_STATE:
        raise Refusal("invalid_request", "The nonce is too long.")
    if fields.get("request") or fields.get("request_uri"):
        raise Refusal("request_not_supported", "Request objects are not offered.")
    scope = Scope.read(fields.get("scope", ""))
    if scope is None:
        raise invalid_scope()
    return Asked(fields["client_id"], fields["redirect_uri"], scope, challenge, state, nonce)


def check_target(fields: dict[str, str]) -> None:
    """Raise Refusal unless codes may go where the request says; it may not be sent there (RFC 9700 4.11)."""
    if fields.get("client_id") != clients.PUBLIC:
        raise Refusal("invalid_client", "There is no such client.")
    if not clients.redirect_allowed(fields.get("redirect_uri", "")):
        raise Refusal(
            "invalid_request",
            "Codes go to http://127.0.0.1:PORT/callback and its like on your own machine, nowhere else.",
        )


class Authorisations:
    """The use-cases of the authorisation endpoint, and the grant that follows."""

    def __init__(self, *, db: Database, access: Access, issuing: Issuing) -> None:
        self._db = db
        self._access = access
        self._issuing = issuing

    async def allow(self, principal: Principal, asked: Asked, *, place: str, request_id: str = "") -> str:
        """A code for a request that the person just said yes to."""
        check_person(principal)
        text = secrets.token_urlsafe(32)
        session_id = principal.credential.id

        def write(tx: Transaction) -> None:
            session = identities.session_by_id(tx, session_id)
            if session is None or session.revoked_at is not None:
                raise Unauthenticated("The session has ended.", hint="Sign in again.")
            row = CodeRow(
                subject=principal.subject,
                client=asked.client,
                redirect_uri=asked.redirect_uri,
                challenge=asked.challenge,
                scope=str(asked.scope),
                nonce=asked.nonce,
                session=session.id,
                place=place,
                authenticated_at=session.created_at,
                created_at=tx.now,
                expires_at=tx.now + CODE_SECONDS,
                used_at=None,
                login="",
            )
            oauth.add_code(tx, row, digest=digest(text))
            self._access.record(
                tx,
                principal,
                self._issuing.decision("everyone-lets-programs-act-for-themselves"),
                event=Event.LOGIN_ALLOW,
                request_id=request_id,
                detail={"client": asked.client, "scope": str(asked.scope), "place": place},
            )

        await self._db.write(write)
        return text

    async def redeem(
        self,
        *,
        client: str,
        code: str,
        redirect_uri: str,
        verifier: str,
        device: str,
        place: str,
        issuer: str,
        request_id: str = "",
    ) -> Issued:
        """Tokens for a code (RFC 6749 section 4.1.3, RFC 7636 section 4.6). Raises Refusal.

        A code that was shown before was stolen, or its first use was: what that opened ends. A code shown
        with a wrong proof is used up.
        """
        login_id = self._issuing.login_id()

        def write(tx: Transaction) -> Issued | None:
            row = oauth.code(tx, digest(code))
            if row is None:
                return None
            if row.used_at is not None:
                self._reused(tx, row, request_id)
                return None
            bound = row.client == client and redirect_uri in {"", row.redirect_uri}
            genuine = bound and pkce.holds(verifier, row.challenge)
            if not oauth.use_code(tx, digest(code), at=tx.now, login_id=login_id if genuine else ""):
                return None
            person = identities.user(tx, row.subject)
            session = identities.session_by_id(tx, row.session)
            scope = Scope.read(row.scope)
            if not genuine or row.expires_at <= tx.now or scope is None:
                return None
            if person is None or person.disabled_at is not None:
                return None
            if session is None or session.revoked_at is not None:
                return None
            opening = Opening(
                person, client, scope, row.authenticated_at, device=device, place=place, nonce=row.nonce
            )
            return self._issuing.open(
                tx,
                opening,
                login_id=login_id,
                issuer=issuer,
                how="authorization_code",
                request_id=request_id,
            )

        issued = await self._db.write(write)
        if issued is None:
            raise invalid_grant("code")
        return issued

    def _reused(self, tx: Transaction, row: CodeRow, request_id: str) -> None:
        person = identities.user(tx, row.subject)
        if person is not None and row.login:
            self._issuing.end(tx, person, row.login, how="code-used-twice", request_id=request_id)


def check_person(principal: Principal) -> None:
    """Raise Denied unless this is a person with a session of the console itself.

    A key must not open a login: the login would outlive it and know nothing of its limits (T35).
    """
    credential = principal.credential
    own = credential.kind is CredentialKind.SESSION and not credential.parent
    if not own or principal.kind is not Kind.USER or principal.actors:
        raise Denied("Only a person signed in to the console can do this.", hint="Sign in at /login.")
