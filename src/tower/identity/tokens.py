"""App tokens: what an app gets instead of its caller's credential (T15).

A JWS with Tower's own Ed25519 key (RFC 9864 spelling of the algorithm), typ `at+jwt` (RFC 9068), whose `sub`
is the person and whose nested `act` (RFC 8693 section 4.1) is the app and whatever acted before it. It lives
for minutes, is bound to one app, and dies with the credential it was made from: the verifier only proves that
it is genuine, whoever calls it checks that parent and subject still hold.
"""

from __future__ import annotations

import secrets
from dataclasses import dataclass
from typing import Any

from tower.clock import Clock
from tower.identity.principal import Actor, ActorKind, Ceiling, CredentialKind
from tower.identity.signed import SignedTokens
from tower.identity.signing import Signing

TYPE = "at+jwt"
AUDIENCE = "tower"
MAX_ACTORS = 8


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
        self._clock = clock
        self._issuer = issuer
        self._signed: SignedTokens[AppClaims] = SignedTokens(
            keys=key,
            clock=clock,
            typ=TYPE,
            parse=self._parse,
            what="app token",
            hint="Call through the gateway again.",
            expired="Call through the gateway again.",
            remember=remember,
        )

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
        token = self._signed.sign(_to_json(claims, self._issuer))
        self._signed.keep(token, claims)
        return token, claims

    def verify(self, token: str) -> AppClaims:
        """The claims of a genuine token that has not expired. Raises Unauthenticated for every other text."""
        return self._signed.verify(token)

    def _parse(self, payload: Any) -> AppClaims:
        return _from_json(payload, self._issuer)


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
    if claims["iss"] != issuer or claims["aud"] != AUDIENCE:
        raise ValueError("foreign issuer or audience")
    parent_kind, parent = claims["parent"]
    actors = _actors(claims["act"])
    if not actors or actors[-1] != Actor(ActorKind.APP, claims["app"]):
        raise ValueError("not bound to its actor")
    texts = (claims["jti"], claims["sub"], parent, claims["root"])
    if not all(isinstance(text, str) and text for text in texts):
        raise ValueError("empty claim")
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
