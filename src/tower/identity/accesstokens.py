"""Access tokens of the OAuth server, in the profile of RFC 9068, and ID tokens for the scope `openid`.

An access token lives for minutes and is bound to what it came from, its `holder`: a login (`login-…`) or an
API key. It names its subject but says nothing about rights: those are looked up at each use, as are holder
and person. The signature is checked once; then the token is known by its hash until it expires.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import json
import secrets
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from joserfc import jws
from joserfc.errors import JoseError

from tower.clock import Clock
from tower.errors import Counterfeit, Unauthenticated
from tower.identity.signing import Signing
from tower.identity.tokens import ALGORITHM, SKEW_SECONDS, TYPE, claims_shape, signer

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
        self._keys = keys
        self._clock = clock
        self._ours = ours
        self._remember = remember
        self._known: OrderedDict[bytes, AccessClaims] = OrderedDict()

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
        return self._sign(payload, typ=TYPE), claims

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
        return self._sign(payload, typ="JWT")

    def recognises(self, text: str) -> bool:
        """Whether the text presents itself as an access token, genuine or not."""
        if _hash(text) in self._known:
            return True
        return claims_shape(text) and "client_id" in _unverified(text)

    def verify(self, token: str) -> AccessClaims:
        """The claims of a genuine token that has not expired. Raises Unauthenticated for every other text."""
        key = _hash(token)
        now = self._clock.now()
        known = self._known.get(key)
        if known is None:
            known = self._read(token)
            if known.issued_at > now + SKEW_SECONDS:
                raise _refused("issued in the future")
            if known.expires_at > now:
                self._store(key, known)
        if known.expires_at <= now:
            self._known.pop(key, None)
            raise Unauthenticated("The access token has expired.", hint="Refresh it, or sign in again.")
        return known

    def _sign(self, payload: dict[str, Any], *, typ: str) -> str:
        key = self._keys.current
        header = {"alg": ALGORITHM, "typ": typ, "kid": key.kid}
        content = json.dumps(payload, separators=(",", ":")).encode()
        return jws.serialize_compact(header, content, key.key, algorithms=[ALGORITHM])

    def _read(self, token: str) -> AccessClaims:
        # the header is compared as a whole: no algorithm choice, no key from the token, no critical extension
        key = signer(token, self._keys)
        if key is None:
            raise _refused("foreign header")
        try:
            signed = jws.deserialize_compact(token, key.key, algorithms=[ALGORITHM])
            payload = json.loads(signed.payload or b"")
        except (JoseError, ValueError) as error:
            raise _refused(repr(error)) from error
        return self._claims(payload)

    def _claims(self, payload: Any) -> AccessClaims:
        if not isinstance(payload, dict) or payload.get("aud") != AUDIENCE:
            raise _refused("foreign audience")
        texts = [payload.get(name) for name in ("jti", "sub", "client_id", "scope", "iss")]
        times = [payload.get("iat"), payload.get("exp")]
        if not all(isinstance(text, str) and text for text in texts):
            raise _refused("a claim is missing")
        if not all(isinstance(time, int) and not isinstance(time, bool) for time in times):
            raise _refused("a time is missing")
        if not self._ours(payload["iss"]):
            raise _refused("foreign issuer")
        # an app token is signed by the same key; it has another shape and never passes for this one
        if "act" in payload or "app" in payload:
            raise _refused("of another kind")
        return AccessClaims(*texts, *times)  # type: ignore[arg-type]  # checked above

    def _store(self, key: bytes, claims: AccessClaims) -> None:
        self._known[key] = claims
        while len(self._known) > self._remember:
            self._known.popitem(last=False)


def _unverified(token: str) -> dict[str, Any]:
    part = token.split(".")[1]
    try:
        found = json.loads(base64.b64decode(part + "=" * (-len(part) % 4), altchars=b"-_", validate=True))
    except (binascii.Error, ValueError, RecursionError):
        return {}
    return found if isinstance(found, dict) else {}


def _hash(token: str) -> bytes:
    return hashlib.sha256(token.encode()).digest()


def _refused(cause: str) -> Counterfeit:
    return Counterfeit("The access token does not hold.", hint="Sign in again.", cause=cause)
