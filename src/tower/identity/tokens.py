"""App tokens: what an app gets instead of its caller's credential (T15).

A JWS with Tower's own Ed25519 key (RFC 9864 spelling of the algorithm), typ `at+jwt` (RFC 9068), whose `sub`
is the person and whose nested `act` (RFC 8693 section 4.1) is the app and whatever acted before it. It lives
for minutes, is bound to one app, and dies with the credential it was made from: the verifier only proves that
it is genuine, whoever calls it checks that parent and subject still hold.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import json
import re
import secrets
from collections import OrderedDict
from dataclasses import dataclass
from typing import Any

from joserfc import jws
from joserfc.errors import JoseError

from tower.clock import Clock
from tower.errors import Counterfeit, Unauthenticated
from tower.identity.principal import Actor, ActorKind, Ceiling, CredentialKind
from tower.identity.signing import Signing, SigningKey

ALGORITHM = "Ed25519"
TYPE = "at+jwt"
AUDIENCE = "tower"
SKEW_SECONDS = 5.0
MAX_ACTORS = 8

_SHAPE = re.compile(r"[A-Za-z0-9_-]+\.[A-Za-z0-9_-]*\.[A-Za-z0-9_-]*")


@dataclass(frozen=True, slots=True)
class AppClaims:
    """What an app token says: `subject`, acting through `actors` (oldest first, the last one is `app`).

    `parent` is what the token was exchanged for and dies with; `root` is what the person showed in the
    beginning. They differ where a running task called the app.
    """

    id: str
    subject: str
    app: str
    actors: tuple[Actor, ...]
    parent_kind: CredentialKind
    parent: str
    root: str
    ceilings: tuple[Ceiling, ...]
    issued_at: float
    expires_at: float


class AppTokens:
    """Makes and reads app tokens. What was verified once is remembered by its hash until it expires."""

    def __init__(self, *, key: Signing, clock: Clock, issuer: str, remember: int = 4096) -> None:
        self._key = key
        self._clock = clock
        self._issuer = issuer
        self._remember = remember
        self._known: OrderedDict[bytes, AppClaims] = OrderedDict()

    def mint(
        self,
        *,
        subject: str,
        app: str,
        before: tuple[Actor, ...],
        parent_kind: CredentialKind,
        parent: str,
        root: str,
        ceilings: tuple[Ceiling, ...],
        life: float,
    ) -> tuple[str, AppClaims]:
        """A token for `app` to act as `subject`; `before` are the actors up to now. `life` in seconds."""
        now = self._clock.now()
        claims = AppClaims(
            id=secrets.token_urlsafe(12),
            subject=subject,
            app=app,
            actors=(*before, Actor(ActorKind.APP, app)),
            parent_kind=parent_kind,
            parent=parent,
            root=root,
            ceilings=ceilings,
            issued_at=now,
            expires_at=now + life,
        )
        key = self._key.current
        header = {"alg": ALGORITHM, "typ": TYPE, "kid": key.kid}
        payload = json.dumps(_to_json(claims, self._issuer), separators=(",", ":")).encode()
        token = jws.serialize_compact(header, payload, key.key, algorithms=[ALGORITHM])
        self._store(token, claims)
        return token, claims

    def verify(self, token: str) -> AppClaims:
        """The claims of a genuine token that has not expired. Raises Unauthenticated for every other text."""
        now = self._clock.now()
        known = self._known.get(_hash(token))
        if known is None:
            known = self._read(token)
            if known.issued_at > now + SKEW_SECONDS:
                raise _refused("issued in the future")
            self._store(token, known)
        if known.expires_at <= now:
            self._known.pop(_hash(token), None)
            raise Unauthenticated("The app token has expired.", hint="Call through the gateway again.")
        return known

    def _read(self, token: str) -> AppClaims:
        # the header is compared as a whole: no algorithm choice, no key from the token, no critical extension
        key = signer(token, self._key)
        if key is None:
            raise _refused("foreign header")
        try:
            signed = jws.deserialize_compact(token, key.key, algorithms=[ALGORITHM])
            claims = json.loads(signed.payload or b"")
        except (JoseError, ValueError) as error:
            raise _refused(repr(error)) from error
        return _from_json(claims, self._issuer)

    def _store(self, token: str, claims: AppClaims) -> None:
        self._known[_hash(token)] = claims
        while len(self._known) > self._remember:
            self._known.popitem(last=False)


def claims_shape(text: str) -> bool:
    """Whether the text presents itself as a signed token, genuine or not."""
    return _SHAPE.fullmatch(text) is not None


def _hash(token: str) -> bytes:
    return hashlib.sha256(token.encode()).digest()


def _refused(cause: str) -> Counterfeit:
    return Counterfeit("The app token does not hold.", hint="Call through the gateway again.", cause=cause)


def signer(token: str, keys: Signing, *, typ: str = TYPE) -> SigningKey | None:
    """The key that a token of this type names, when its header is one of ours to the last member."""
    header = _header(token)
    kid = header.get("kid") if isinstance(header, dict) else None
    if not isinstance(kid, str) or header != {"alg": ALGORITHM, "typ": typ, "kid": kid}:
        return None
    return keys.find(kid)


def type_of(token: str) -> str:
    """The `typ` that a token says it is of, unverified; "" for none."""
    header = _header(token)
    typ = header.get("typ") if isinstance(header, dict) else None
    return typ if isinstance(typ, str) else ""


def _header(token: str) -> object:
    part = token.partition(".")[0]
    try:
        return json.loads(base64.b64decode(part + "=" * (-len(part) % 4), altchars=b"-_", validate=True))
    except (binascii.Error, ValueError):
        return None


_LISTS = ("actions", "projects", "tasks", "about")


def ceiling_to_json(ceiling: Ceiling) -> dict[str, Any]:
    """A ceiling as a JSON object; everything that is at its default is left out."""
    out: dict[str, Any] = {"source": ceiling.source}
    if ceiling.role is not None:
        out["role"] = ceiling.role
    if ceiling.project != "*":
        out["project"] = ceiling.project
    if ceiling.domain != "*":
        out["domain"] = ceiling.domain
    if ceiling.person:
        out["person"] = ceiling.person
    if ceiling.key:
        out["key"] = ceiling.key
    if ceiling.forbidden:
        out["forbidden"] = sorted(ceiling.forbidden)
    for name in _LISTS:
        allowed: frozenset[str] | None = getattr(ceiling, name)
        if allowed is not None:
            out[name] = sorted(allowed)
    return out


def ceiling_from_json(value: Any) -> Ceiling:
    """The inverse. Raises ValueError for anything else: a limit that cannot be read is not "no limit"."""
    if not isinstance(value, dict) or not value.keys() <= {
        "source",
        "role",
        "project",
        "domain",
        "person",
        "key",
        "forbidden",
        *_LISTS,
    }:
        raise ValueError("not a ceiling")
    forbidden = value.get("forbidden", [])
    texts = [value.get("source"), value.get("role", ""), value.get("project", "*"), value.get("domain", "*")]
    texts += [value.get("person", ""), value.get("key", "")]
    lists = [forbidden, *(value[name] for name in _LISTS if name in value)]
    if not all(isinstance(each, list) for each in lists):
        raise ValueError("not a ceiling")
    if not all(isinstance(text, str) for text in [*texts, *(text for each in lists for text in each)]):
        raise ValueError("not a ceiling")
    return Ceiling(
        source=value["source"],
        role=value.get("role"),
        project=value.get("project", "*"),
        domain=value.get("domain", "*"),
        forbidden=frozenset(forbidden),
        person=value.get("person", ""),
        key=value.get("key", ""),
        **{name: frozenset(value[name]) for name in _LISTS if name in value},
    )


def _to_json(claims: AppClaims, issuer: str) -> dict[str, Any]:
    act: dict[str, Any] = {}
    for actor in claims.actors:  # the newest ends up outermost
        act = {"sub": str(actor), **({"act": act} if act else {})}
    return {
        "iss": issuer,
        "aud": AUDIENCE,
        "sub": claims.subject,
        "act": act,
        "app": claims.app,
        "jti": claims.id,
        "iat": claims.issued_at,
        "exp": claims.expires_at,
        "parent": [claims.parent_kind.value, claims.parent],
        "root": claims.root,
        "ceilings": [ceiling_to_json(ceiling) for ceiling in claims.ceilings],
    }


def _from_json(claims: Any, issuer: str) -> AppClaims:
    try:
        if claims["iss"] != issuer or claims["aud"] != AUDIENCE:
            raise _refused("foreign issuer or audience")
        parent_kind, parent = claims["parent"]
        actors = _actors(claims["act"])
        if not actors or actors[-1] != Actor(ActorKind.APP, claims["app"]):
            raise _refused("not bound to its actor")
        texts = (claims["jti"], claims["sub"], parent, claims["root"])
        if not all(isinstance(text, str) and text for text in texts):
            raise _refused("empty claim")
        return AppClaims(
            id=claims["jti"],
            subject=claims["sub"],
            app=claims["app"],
            actors=actors,
            parent_kind=CredentialKind(parent_kind),
            parent=parent,
            root=claims["root"],
            ceilings=tuple(ceiling_from_json(ceiling) for ceiling in claims["ceilings"]),
            issued_at=float(claims["iat"]),
            expires_at=float(claims["exp"]),
        )
    except (KeyError, TypeError, ValueError) as error:
        raise _refused(repr(error)) from error


def _actors(act: Any) -> tuple[Actor, ...]:
    newest_first: list[Actor] = []
    while act:
        if len(newest_first) == MAX_ACTORS:
            raise ValueError("too many actors")
        newest_first.append(actor_from_text(act["sub"]))
        act = act.get("act")
    return tuple(reversed(newest_first))


def actor_from_text(text: str) -> Actor:
    """The inverse of `str(actor)`. Raises ValueError."""
    kind, _, name = text.partition(":")
    return Actor(ActorKind(kind), name)
