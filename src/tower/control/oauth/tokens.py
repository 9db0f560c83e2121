"""The token endpoint's other grants, revocation (RFC 7009) and introspection (RFC 7662)."""

from __future__ import annotations

from typing import Any

from tower.audit import Event
from tower.clock import Clock
from tower.control.access import Access
from tower.control.directory import Directory
from tower.control.grants import Grants
from tower.control.oauth.issuing import REFRESH_PREFIX, Issued, Issuing, digest
from tower.control.oauth.refusals import Refusal, invalid_client, invalid_grant, invalid_scope
from tower.errors import Denied, Fault, NotFound, Unauthenticated
from tower.identity import keys
from tower.identity.accesstokens import AUDIENCE, LOGIN_PREFIX, AccessTokens
from tower.identity.attempts import Attempts, network
from tower.identity.authenticators import owner_of_key
from tower.identity.chain import Chain, Presented
from tower.identity.clients import Scope
from tower.identity.directory import KeyFacts
from tower.identity.principal import CredentialKind, Principal
from tower.policy.actions import Action, Resource, ResourceType
from tower.settings import Settings
from tower.store import identities, oauth
from tower.store.database import Database, Transaction

GRACE_SECONDS = 10.0
"""How long a used refresh token still answers with its successor: a lost answer, two asking at once."""

ACCESS_TOKEN_TYPE = "urn:ietf:params:oauth:token-type:access_token"  # noqa: S105  (a name of a type)

_NO_SUCH_KEY = keys.digest("")


class Tokens:
    """The use-cases behind `/oauth2/token`, `/oauth2/revoke` and `/oauth2/introspect`."""

    def __init__(
        self,
        *,
        db: Database,
        clock: Clock,
        access: Access,
        directory: Directory,
        chain: Chain,
        grants: Grants,
        issuing: Issuing,
        tokens: AccessTokens,
        settings: Settings,
    ) -> None:
        self._db = db
        self._clock = clock
        self._access = access
        self._directory = directory
        self._chain = chain
        self._grants = grants
        self._issuing = issuing
        self._tokens = tokens
        self._settings = settings
        self._attempts = Attempts(clock=clock)

    async def authenticate_client(self, client: str, secret: str, *, source: str) -> KeyFacts:
        """The API key that a client id and secret are (RFC 6749 section 2.3.1). Raises Refusal, Exhausted.

        Failures are counted for the client at its address, and together with those at the other doors for the
        address and for the client. Who has shown this secret before waits for nobody else's.
        """
        shown = keys.ApiKey(client, secret).text
        name = client if keys.parse(shown) is not None else ""
        pair = f"{client[:64]} {network(source)}"
        known = self._chain.check(shown, key=name, source=source, door="oauth")
        if not known:
            self._attempts.begin(account=pair, source=pair)
        facts = await self._directory.key(client) if name else None
        genuine = keys.matches(secret, _NO_SUCH_KEY if facts is None else facts.hash)
        if facts is None or not genuine or not await self._holds(facts):
            self._chain.failed(shown, key=name, source=source, door="oauth", guess=not genuine)
            raise invalid_client()
        if not known:
            self._attempts.succeeded(account=pair, source=pair)
        self._chain.held(shown)
        self._directory.used(facts.id)
        return facts

    async def _holds(self, facts: KeyFacts) -> bool:
        if facts.off or (facts.expires_at is not None and facts.expires_at <= self._clock.now()):
            return False
        owner = await self._directory.subject(facts.subject)
        return owner is not None and not owner.disabled

    async def of_client(self, key: KeyFacts, *, scope: str, issuer: str, request_id: str = "") -> Issued:
        """A token for a program itself (RFC 6749 section 4.4), with the limits of its key. Raises Refusal."""
        wanted = Scope.read(scope)
        if wanted is None or wanted.ceilings(""):
            raise invalid_scope()
        life = self._settings.access_token_life
        if key.expires_at is not None:
            life = min(life, key.expires_at - self._clock.now())

        def write(tx: Transaction) -> None:
            owner = identities.user(tx, key.subject)
            if owner is None:
                raise invalid_client()
            self._issuing.record(
                tx,
                owner,
                key.id,
                event=Event.TOKEN_CREATE,
                how="client_credentials",
                request_id=request_id,
                key=key.id,
            )

        await self._db.write(write)
        text, _ = self._tokens.mint(
            issuer=issuer, subject=key.subject, client=key.id, holder=key.id, scope=str(wanted), life=life
        )
        return Issued(text, int(life), scope=str(wanted))

    async def refresh(
        self, *, client: str, refresh_token: str, scope: str, issuer: str, request_id: str = ""
    ) -> Issued:
        """New tokens for a login (RFC 6749 section 6). Raises Refusal; a second use ends the login."""
        following = self._issuing.successor(refresh_token)

        def write(tx: Transaction) -> Issued | Refusal:
            row = oauth.refresh_token(tx, digest(refresh_token))
            login = None if row is None else oauth.login(tx, row.login)
            if row is None or login is None or login.client != client or login.revoked_at is not None:
                return invalid_grant("refresh token")
            person = identities.user(tx, login.subject)
            if person is None:
                return invalid_grant("refresh token")
            if row.used_at is not None:
                heir = oauth.refresh_token(tx, digest(following))
                if heir is None or heir.used_at is not None or tx.now - row.used_at > GRACE_SECONDS:
                    self._issuing.end(
                        tx, person, login.id, how="refresh-token-used-twice", request_id=request_id
                    )
                    return invalid_grant("refresh token")
            granted = Scope.read(login.scope)
            wanted = Scope.read(scope) if scope.strip() else granted
            if min(row.expires_at, login.expires_at) <= tx.now or person.disabled_at is not None:
                return invalid_grant("refresh token")
            if granted is None or wanted is None or not wanted.within(granted):
                return invalid_scope()
            if oauth.use_refresh_token(tx, digest(refresh_token), tx.now):
                self._issuing.keep(tx, login, following)
            self._issuing.record(
                tx,
                person,
                login.id,
                event=Event.TOKEN_CREATE,
                how="refresh_token",
                request_id=request_id,
                login=login.id,
            )
            return self._issuing.tokens(login, person, scope=wanted, refresh=following, issuer=issuer)

        answered = await self._db.write(write)
        if isinstance(answered, Refusal):
            raise answered
        return answered

    async def exchange(
        self,
        client: KeyFacts,
        *,
        subject_token: str,
        audience: str,
        secure: bool,
        host: str,
        source: str,
        request_id: str = "",
    ) -> Issued:
        """The token that the gateway would hand to an app for this caller (RFC 8693 section 2).

        It names the app as the one that acts, so that nobody may have it who does not stand for the app: the
        client is a program with `app:raw-credentials` there, as a gateway in front of Tower's own. Holding
        the caller's credential is not enough: a log that says "through this app" would be a lie. Raises
        Refusal.
        """
        caller = await self._caller(subject_token, secure=secure, host=host, source=source)
        project, _, rest = audience.partition("/")
        domain, _, name = rest.partition("/")
        if not (project and domain and name) or "/" in name or len(audience) > 400:
            raise Refusal("invalid_target", "The audience is an app, as project/domain/name.")
        app = Resource(ResourceType.APP, project=project, domain=domain, name=name)
        await self._stands_for(client, app, request_id=request_id)
        try:
            decision = await self._access.require(
                caller, Action.APP_USE, app, request_id=request_id, view=Action.APP_VIEW
            )
            token = await self._grants.exchange(caller, audience)
        except (Denied, NotFound) as fault:
            raise Refusal("invalid_target", "There is no such app that you may use.") from fault
        except Fault as fault:
            raise Refusal("invalid_request", fault.public) from fault

        def write(tx: Transaction) -> None:
            self._access.record(
                tx,
                caller,
                decision,
                event=Event.TOKEN_CREATE,
                request_id=request_id,
                detail={"app": audience, "grant": "token-exchange", "client": client.id},
            )

        await self._db.write(write)
        life = self._grants.life_of(token)
        return Issued(token, int(life), issued_token_type=ACCESS_TOKEN_TYPE)

    async def _stands_for(self, client: KeyFacts, app: Resource, *, request_id: str) -> None:
        """Raise Refusal unless the program may handle the credentials of the app's callers, there or not."""
        owner = await self._directory.subject(client.subject)
        if owner is None:
            raise invalid_client()
        program = owner_of_key(client, owner)
        try:
            await self._access.require(program, Action.APP_RAW, app, request_id=request_id)
        except Denied as fault:
            raise Refusal("unauthorized_client", "The client may not act for that app.") from fault

    async def _caller(self, subject_token: str, *, secure: bool, host: str, source: str) -> Principal:
        headers = ((b"authorization", b"Bearer " + subject_token.encode(errors="replace")),)
        presented = Presented(headers=headers, secure=secure, host=host, audience="gateway", client=source)
        try:
            return await self._chain.authenticate(presented)
        except Unauthenticated as fault:
            raise Refusal("invalid_request", "The subject token does not hold.") from fault

    async def revoke(self, token: str, *, client: str, key: KeyFacts | None, request_id: str = "") -> None:
        """End what a token lives from (RFC 7009 section 2.1); a token that does not hold is no error.

        Any token of a login ends the login: that is what logging out means. A program's token ends alone.
        """
        if token.startswith(REFRESH_PREFIX):
            row = await self._db.read(lambda reader: oauth.refresh_token(reader, digest(token)))
            if row is not None:
                await self._end(row.login, client=client, request_id=request_id)
            return
        try:
            claims = self._tokens.verify(token)
        except Unauthenticated:
            return
        if claims.holder.startswith(LOGIN_PREFIX):
            await self._end(claims.holder, client=client, request_id=request_id)
            return
        if key is None or key.id != claims.holder:
            return

        def write(tx: Transaction) -> None:
            owner = identities.user(tx, claims.subject)
            if owner is None or not oauth.revoke_token(
                tx, claims.id, at=tx.now, expires_at=float(claims.expires_at)
            ):
                return
            self._issuing.record(
                tx,
                owner,
                claims.holder,
                event=Event.TOKEN_REVOKE,
                how="client_credentials",
                request_id=request_id,
                token=claims.id,
            )
            tx.after_commit(self._directory.forget)

        await self._db.write(write)

    async def _end(self, login_id: str, *, client: str, request_id: str) -> None:
        def write(tx: Transaction) -> None:
            login = oauth.login(tx, login_id)
            person = None if login is None else identities.user(tx, login.subject)
            if login is None or person is None or login.client != client:
                return
            self._issuing.end(tx, person, login.id, how="revocation", request_id=request_id)

        await self._db.write(write)

    async def introspect(self, token: str) -> dict[str, Any]:
        """What a token is worth now (RFC 7662 section 2.2): `active` false for everything that does not hold.

        For tokens that Tower gave out; an API key is no token, and nobody is told whether one holds.
        """
        if keys.claims(token):
            return {"active": False}
        headers = ((b"authorization", b"Bearer " + token.encode(errors="replace")),)
        try:
            caller = await self._chain.authenticate(Presented(headers=headers, secure=True, audience="rpc"))
        except Unauthenticated:
            return {"active": False}
        told: dict[str, Any] = {
            "active": True,
            "sub": caller.subject,
            "username": caller.subject,
            "aud": AUDIENCE,
            "token_type": "Bearer",
            "jti": caller.credential.id,
            "exp": int(caller.credential.expires_at or 0),
        }
        if caller.credential.kind is CredentialKind.ACCESS_TOKEN:
            claims = self._tokens.verify(token)
            told |= {
                "client_id": claims.client,
                "scope": claims.scope,
                "iss": claims.issuer,
                "iat": claims.issued_at,
            }
        act: dict[str, Any] = {}
        for actor in caller.actors:  # RFC 8693 section 4.1: the newest is outermost
            act = {"sub": str(actor), **({"act": act} if act else {})}
        return {**told, "act": act} if act else told
