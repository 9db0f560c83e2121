"""Access tokens of the OAuth server, in the profile of RFC 9068, and ID tokens for the scope `openid`.

An access token lives for minutes and is bound to what it came from, its `holder`: a login (`login-…`) or an
API key. It names its subject but says nothing about rights: those are looked up at each use, as are holder
and person. The signature is checked once; then the token is known by its hash until it expires.
"""

from __future__ import annotations

import secrets
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from tower.clock import Clock
from tower.identity.signed import SignedTokens, claims_shape, unverified
from tower.identity.signing import Signing
from tower.identity.tokens import TYPE

AUDIENCE = "tower"
LOGIN_PREFIX = "login-"


@dataclass(frozen=True, slots=True)
class AccessClaims:
    """What an access token says. `id` is `<holder>.<random>`; times are whole seconds since the epoch."""

    id: str
    subject: str
    client: str
    scope: str
    issuer: str
    issued_at: int
    expires_at: int

    @property
    def holder(self) -> str:
        """The public id of the login or API key that it lives from."""
        return self.id.partition(".")[0]


class AccessTokens:
    """Makes and reads access tokens. `ours` tells whether an issuer is a name of this Tower."""

    def __init__(
        self, *, keys: Signing, clock: Clock, ours: Callable[[str], bool], remember: int = 16384
    ) -> None:
        self._clock = clock
        self._ours = ours
        self._signed: SignedTokens[AccessClaims] = SignedTokens(
            keys=keys,
            clock=clock,
            typ=TYPE,
            parse=self._parse,
            what="access token",
            hint="Sign in again.",
            expired="Refresh it, or sign in again.",
            remember=remember,
        )

    def mint(
        self, *, issuer: str, subject: str, client: str, holder: str, scope: str, life: float
    ) -> tuple[str, AccessClaims]:
        """A token that lives for `life` seconds at most."""
        now = int(self._clock.now())
        claims = AccessClaims(
            id=f"{holder}.{secrets.token_urlsafe(12)}",
            subject=subject,
            client=client,
            scope=scope,
            issuer=issuer,
            issued_at=now,
            expires_at=now + int(life),
        )
        payload = {
            "iss": issuer,
            "aud": AUDIENCE,
            "sub": subject,
            "client_id": client,
            "jti": claims.id,
            "iat": claims.issued_at,
            "exp": claims.expires_at,
            "scope": scope,
        }
        return self._signed.sign(payload), claims

    def mint_id_token(  # what the client reads; never a credential here: its type is not `at+jwt`
        self,
        *,
        issuer: str,
        subject: str,
        client: str,
        nonce: str,
        authenticated_at: float,
        life: float,
        more: dict[str, str],
    ) -> str:
        """An ID token (OpenID Connect Core section 2)."""
        now = int(self._clock.now())
        payload: dict[str, Any] = {
            **more,
            "iss": issuer,
            "aud": client,
            "sub": subject,
            "iat": now,
            "exp": now + int(life),
            "auth_time": int(authenticated_at),
        }
        if nonce:
            payload["nonce"] = nonce
        return self._signed.sign(payload, typ="JWT")

    def recognises(self, text: str) -> bool:
        """Whether the text presents itself as an access token, genuine or not."""
        return self._signed.knows(text) or (claims_shape(text) and "client_id" in unverified(text, 1))

    def verify(self, token: str) -> AccessClaims:
        """The claims of a genuine token that has not expired. Raises Unauthenticated for every other text."""
        return self._signed.verify(token)

    def _parse(self, payload: Any) -> AccessClaims:
        if payload["aud"] != AUDIENCE:
            raise ValueError("foreign audience")
        texts = [payload[name] for name in ("jti", "sub", "client_id", "scope", "iss")]
        times = [payload["iat"], payload["exp"]]
        if not all(isinstance(text, str) and text for text in texts):
            raise ValueError("a claim is missing")
        if not all(isinstance(time, int) and not isinstance(time, bool) for time in times):
            raise ValueError("a time is missing")
        if not self._ours(payload["iss"]):
            raise ValueError("foreign issuer")
        # an app token is signed by the same key; it has another shape and never passes for this one
        if "act" in payload or "app" in payload:
            raise ValueError("of another kind")
        return AccessClaims(*texts, *times)
