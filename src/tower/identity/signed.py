"""Tokens that Tower signs for itself: one way to make them and to read them, whatever they say.

Each is a JWS with Tower's own Ed25519 key (RFC 9864 spelling of the algorithm) and a type of its own. The
header is compared as a whole: no choice of an algorithm, no key from the token, no critical extension. What
was verified once is remembered by its hash until it expires; whether what it names still holds is asked by
whoever uses it.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import json
import re
from collections import OrderedDict
from collections.abc import Callable
from typing import Any, Generic, Protocol, TypeVar

from joserfc import jws
from joserfc.errors import JoseError

from tower.clock import Clock
from tower.errors import Counterfeit, Unauthenticated
from tower.identity.signing import Signing, SigningKey

ALGORITHM = "Ed25519"
SKEW_SECONDS = 5.0

_SHAPE = re.compile(r"[A-Za-z0-9_-]+\.[A-Za-z0-9_-]*\.[A-Za-z0-9_-]*")


class Timed(Protocol):
    """What a token says, as far as all of them do; times in seconds since the epoch."""

    @property
    def issued_at(self) -> float: ...
    @property
    def expires_at(self) -> float: ...


C = TypeVar("C", bound=Timed)


class SignedTokens(Generic[C]):
    """Tokens of one type. `what` they are and the hints are for whoever shows one that does not hold."""

    def __init__(
        self,
        *,
        keys: Signing,
        clock: Clock,
        typ: str,
        parse: Callable[[Any], C],
        what: str,
        hint: str,
        expired: str,
        remember: int = 4096,
    ) -> None:
        """`parse` makes the claims of a payload; it raises ValueError, KeyError or TypeError for others."""
        self._keys = keys
        self._clock = clock
        self._typ = typ
        self._parse = parse
        self._what = what
        self._hint = hint
        self._expired = expired
        self._remember = remember
        self._known: OrderedDict[bytes, C] = OrderedDict()

    def sign(self, payload: dict[str, Any], *, typ: str = "") -> str:
        """A token with this payload."""
        key = self._keys.current
        header = {"alg": ALGORITHM, "typ": typ or self._typ, "kid": key.kid}
        content = json.dumps(payload, separators=(",", ":")).encode()
        return jws.serialize_compact(header, content, key.key, algorithms=[ALGORITHM])

    def knows(self, token: str) -> bool:
        """Whether the token was verified before, and is remembered."""
        return _hash(token) in self._known

    def keep(self, token: str, claims: C) -> None:
        """Remember a token that is genuine."""
        self._known[_hash(token)] = claims
        while len(self._known) > self._remember:
            self._known.popitem(last=False)

    def verify(self, token: str) -> C:
        """The claims of a genuine token that has not expired. Raises Unauthenticated for every other text."""
        now = self._clock.now()
        claims = self._known.get(_hash(token))
        if claims is None:
            claims = self._read(token)
            if claims.issued_at > now + SKEW_SECONDS:
                raise self._refused("issued in the future")
            if claims.expires_at > now:
                self.keep(token, claims)
        if claims.expires_at <= now:
            self._known.pop(_hash(token), None)
            raise Unauthenticated(f"The {self._what} has expired.", hint=self._expired)
        return claims

    def _read(self, token: str) -> C:
        key = signer(token, self._keys, typ=self._typ) if claims_shape(token) else None
        if key is None:
            raise self._refused("foreign header")
        try:
            signed = jws.deserialize_compact(token, key.key, algorithms=[ALGORITHM])
            return self._parse(json.loads(signed.payload or b""))
        except (JoseError, ValueError, KeyError, TypeError) as error:
            raise self._refused(repr(error)) from error

    def _refused(self, cause: str) -> Counterfeit:
        return Counterfeit(f"The {self._what} does not hold.", hint=self._hint, cause=cause)


def claims_shape(text: str) -> bool:
    """Whether the text presents itself as a signed token, genuine or not."""
    return _SHAPE.fullmatch(text) is not None


def signer(token: str, keys: Signing, *, typ: str) -> SigningKey | None:
    """The key that a token of this type names, when its header is one of ours to the last member."""
    header = unverified(token, 0)
    kid = header.get("kid")
    if not isinstance(kid, str) or header != {"alg": ALGORITHM, "typ": typ, "kid": kid}:
        return None
    return keys.find(kid)


def type_of(token: str) -> str:
    """The `typ` that a token says it is of, unverified; "" for none."""
    typ = unverified(token, 0).get("typ")
    return typ if isinstance(typ, str) else ""


def unverified(token: str, part: int) -> dict[str, Any]:
    """What a part of a token says (0 is its header, 1 its payload), whoever wrote it; {} for no object."""
    parts = token.split(".", 2)
    text = parts[part] if part < len(parts) else ""
    try:
        found = json.loads(base64.b64decode(text + "=" * (-len(text) % 4), altchars=b"-_", validate=True))
    except (binascii.Error, ValueError, RecursionError):
        return {}
    return found if isinstance(found, dict) else {}


def _hash(token: str) -> bytes:
    return hashlib.sha256(token.encode(errors="replace")).digest()
