"""What a token of an identity provider must say to be believed, and what it then says about a person.

An access token (RFC 9068) and an ID token (OpenID Connect Core section 2) are signed by the same keys and
look alike. They are told apart by type, audience and the claims that only one of them has: neither ever
passes for the other (T13).
"""

from __future__ import annotations

import hashlib
import hmac
from base64 import urlsafe_b64encode
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

from tower.errors import Counterfeit, Unauthenticated
from tower.issuers import IssuerSettings

SKEW_SECONDS = 60.0
MAX_GROUPS = 500
MAX_LIFE_SECONDS = 24 * 3600.0
"""What an access token may have left at most: longer ones are not access tokens but keys."""

_ACCESS_TYPES = frozenset({"at+jwt", "application/at+jwt", "jwt", ""})
_ID_TYPES = frozenset({"jwt", ""})
_ONLY_ID = frozenset({"nonce", "at_hash", "c_hash", "s_hash"})
_ONLY_ACCESS = frozenset({"scope", "scp", "client_id"})
_OTHER_KINDS = frozenset({"ID", "Refresh", "Offline", "Logout"})  # a claim that some providers tell them by


@dataclass(frozen=True, slots=True)
class Person:
    """What an issuer vouches for; times in seconds since the epoch. `groups` None: it said nothing of them.

    `email` is "" unless the issuer says that it was verified. `program` is True for a client that speaks for
    itself, with no person behind it. `id` names the token in records: not a secret and of no use as one.
    """

    alias: str
    sub: str
    id: str
    issued_at: float
    expires_at: float
    email: str = ""
    name: str = ""
    groups: tuple[str, ...] | None = None
    program: bool = False


def access_token(
    header: Mapping[str, Any], claims: Mapping[str, Any], *, settings: IssuerSettings, token: str, now: float
) -> Person:
    """Whom an access token names, once its signature held. Raises Unauthenticated."""
    # without the type of RFC 9068 only its claims tell an access token from an ID token
    if _type(header, _ACCESS_TYPES) in {"jwt", ""}:
        listed = claims.keys()
        if _ONLY_ID & listed or not _ONLY_ACCESS & listed or "events" in listed:
            raise refused("an ID token, or not to be told from one")
        if claims.get("typ") in _OTHER_KINDS:
            raise refused("a token of another kind")
    if not _audiences(claims) & set(settings.audiences):
        raise refused("foreign audience")
    person = _person(claims, settings=settings, token=token, now=now)
    if person.expires_at - now > MAX_LIFE_SECONDS + 2 * SKEW_SECONDS:
        raise refused("it would live for too long")
    client = claims.get("client_id", claims.get("azp"))
    return replace(person, program=isinstance(client, str) and client == person.sub)


def id_token(
    header: Mapping[str, Any],
    claims: Mapping[str, Any],
    *,
    settings: IssuerSettings,
    token: str,
    nonce: str,
    access: str,
    now: float,
) -> Person:
    """Who signed in, once the signature held (OpenID Connect Core 3.1.3.7). Raises Unauthenticated."""
    _type(header, _ID_TYPES)
    audiences = _audiences(claims)
    if settings.client_id not in audiences:
        raise refused("foreign audience")
    if (len(audiences) > 1 or "azp" in claims) and claims.get("azp") != settings.client_id:
        raise refused("made for another party")
    said = claims.get("nonce")
    if not isinstance(said, str) or not hmac.compare_digest(said.encode(), nonce.encode()):
        raise refused("foreign nonce")
    if "at_hash" in claims and claims["at_hash"] not in _half_hashes(access):
        raise refused("it belongs to another access token")
    return _person(claims, settings=settings, token=token, now=now)


def add(person: Person, claims: Mapping[str, Any], *, settings: IssuerSettings) -> Person:
    """The person with what the userinfo endpoint says too. Raises Unauthenticated for another person's."""
    if claims.get("sub") != person.sub:
        raise refused("userinfo is about another person")
    groups = _groups(claims, settings)
    return replace(
        person,
        email=person.email or _email(claims),
        name=person.name or _name(claims),
        groups=person.groups if groups is None else groups,
    )


def refused(cause: str) -> Counterfeit:
    """The one answer for every token that does not hold; the cause is for the log."""
    return Counterfeit("The token does not hold.", hint="Sign in again.", cause=cause)


def _person(claims: Mapping[str, Any], *, settings: IssuerSettings, token: str, now: float) -> Person:
    sub = claims.get("sub")
    if claims.get("iss") != settings.issuer:
        raise refused("foreign issuer")
    if not isinstance(sub, str) or not 0 < len(sub) <= 255 or not sub.isprintable():
        raise refused("no subject")
    # the clocks of two machines differ: what it is worth here ends that much later
    expires, issued = _time(claims, "exp") + SKEW_SECONDS, _time(claims, "iat")
    if expires <= now:
        raise Unauthenticated("The token has expired.", hint="Sign in again.")
    if issued > now + SKEW_SECONDS or ("nbf" in claims and _time(claims, "nbf") > now + SKEW_SECONDS):
        raise refused("not valid yet")
    return Person(
        alias=settings.alias,
        sub=sub,
        # the end is part of the name: what is exchanged for the token lives no longer, and needs no row
        id=f"oidc-{settings.alias}-{hashlib.sha256(token.encode()).hexdigest()[:20]}.{int(expires)}",
        issued_at=issued,
        expires_at=expires,
        email=_email(claims),
        name=_name(claims),
        groups=_groups(claims, settings),
    )


def ends_at(token_id: str) -> float:
    """When the token of this `Person.id` ends; 0 for any other text."""
    end = token_id.rpartition(".")[2]
    return float(end) if token_id.startswith("oidc-") and end.isdecimal() and len(end) < 13 else 0.0


def _type(header: Mapping[str, Any], allowed: frozenset[str]) -> str:
    typ = header.get("typ", "")
    if not isinstance(typ, str) or typ.lower() not in allowed:
        raise refused("foreign type")
    return typ.lower()


def _audiences(claims: Mapping[str, Any]) -> set[str]:
    found = claims.get("aud")
    listed = [found] if isinstance(found, str) else found
    if not isinstance(listed, list) or not all(isinstance(each, str) for each in listed):
        raise refused("no audience")
    return set(listed)


def _time(claims: Mapping[str, Any], name: str) -> float:
    found = claims.get(name)
    if isinstance(found, bool) or not isinstance(found, int | float) or not 0 <= found < 1e12:
        raise refused(f"no {name}")
    return float(found)


def _email(claims: Mapping[str, Any]) -> str:
    found = claims.get("email")
    # some providers write the word; nothing else means that the address was checked
    if claims.get("email_verified") not in (True, "true") or not isinstance(found, str):
        return ""
    name, at, domain = found.rpartition("@")
    plain = found.isascii() and found.isprintable() and " " not in found and len(found) <= 127
    return found.lower() if plain and at and name and "@" not in name and domain else ""


def _name(claims: Mapping[str, Any]) -> str:
    found = claims.get("name", claims.get("preferred_username", ""))
    return found if isinstance(found, str) and len(found) <= 200 and found.isprintable() else ""


def _groups(claims: Mapping[str, Any], settings: IssuerSettings) -> tuple[str, ...] | None:
    """Every group, or nobody gets in: leaving some out could leave out the one that forbids."""
    if not settings.groups_claim or settings.groups_claim not in claims:
        return None
    found = claims[settings.groups_claim]
    listed = [found] if isinstance(found, str) else found
    if not isinstance(listed, list) or len(listed) > MAX_GROUPS:
        raise refused("groups that cannot be read, or too many")
    if not all(isinstance(each, str) and 0 < len(each) <= 200 and each.isprintable() for each in listed):
        raise refused("a group that cannot be read")
    return tuple(sorted(set(listed)))


def _half_hashes(access: str) -> set[str]:
    """`at_hash` under each hash that our algorithms use (OpenID Connect Core section 3.1.3.6)."""
    digests = (hashlib.sha256(access.encode()).digest(), hashlib.sha512(access.encode()).digest())
    return {urlsafe_b64encode(each[: len(each) // 2]).rstrip(b"=").decode() for each in digests}
