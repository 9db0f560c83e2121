"""Forged, bent and foreign tokens: every one is refused (T12, T13)."""

from __future__ import annotations

import base64
import hashlib
import hmac
import json
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from joserfc import jws
from joserfc.jwk import OctKey, OKPKey
from tests.identity_world import FakeClock

from tower.errors import Unauthenticated
from tower.identity.principal import Actor, ActorKind, Ceiling, CredentialKind
from tower.identity.signed import type_of
from tower.identity.signing import SigningKey
from tower.identity.tokens import AppTokens

APP = "flytesnacks/development/hook"
KEY = SigningKey.generate()
CLOCK = FakeClock()
GOOD: dict[str, Any] = {
    "iss": "tower",
    "aud": "tower",
    "sub": "alice",
    "act": {"sub": f"app:{APP}"},
    "app": APP,
    "jti": "t1",
    "iat": CLOCK.time,
    "exp": CLOCK.time + 300,
    "parent": ["api_key", "k1"],
    "root": "k1",
    "ceilings": [],
}
HEADER = {"alg": "Ed25519", "typ": "at+jwt", "kid": KEY.kid}


def tokens() -> AppTokens:
    return AppTokens(key=KEY, clock=CLOCK, issuer="tower")


def signed(header: dict[str, Any], claims: Any, key: Any = KEY.key) -> str:
    payload = claims if isinstance(claims, bytes) else json.dumps(claims).encode()
    return jws.serialize_compact(header, payload, key, algorithms=[header["alg"]])


def raw(header: Any, claims: Any, signature: bytes = b"") -> str:
    parts = [json.dumps(header).encode(), json.dumps(claims).encode(), signature]
    return ".".join(base64.urlsafe_b64encode(part).decode().rstrip("=") for part in parts)


def test_a_good_token_says_what_it_was_made_of() -> None:
    before = (Actor(ActorKind.APP, "p/d/first"), Actor(ActorKind.RUN, "p/d/r/a0/1"))
    limits = (
        Ceiling("key:k1", role="viewer", project="p"),
        Ceiling("app:x", forbidden=frozenset({"user:manage"})),
    )
    token, made = tokens().mint(
        subject="alice",
        app=APP,
        before=before,
        parent_kind=CredentialKind.API_KEY,
        parent="k1",
        root="k1",
        ceilings=limits,
        life=300,
    )
    read = tokens().verify(token)  # by another instance: nothing remembered
    assert read == made
    assert read.actors == (*before, Actor(ActorKind.APP, APP))
    assert read.ceilings == limits
    act = json.loads(base64.urlsafe_b64decode(token.split(".")[1] + "=="))["act"]
    assert act == {"sub": f"app:{APP}", "act": {"sub": "run:p/d/r/a0/1", "act": {"sub": "app:p/d/first"}}}


def test_the_good_claims_below_are_good() -> None:
    assert tokens().verify(signed(HEADER, GOOD)).subject == "alice"


FORGED = {
    "no algorithm": raw({"alg": "none", "typ": "at+jwt"}, GOOD),
    "no algorithm, odd case": raw({"alg": "nOnE", "typ": "at+jwt", "kid": KEY.kid}, GOOD),
    "no signature": raw(HEADER, GOOD),
    "another key": signed(HEADER, GOOD, OKPKey.generate_key("Ed25519")),
    "public key as a shared secret": raw(
        {**HEADER, "alg": "HS256"},
        GOOD,
        hmac.digest(KEY.key.as_pem(private=False), b"whatever", hashlib.sha256),
    ),
    "shared secret": signed({**HEADER, "alg": "HS256"}, GOOD, OctKey.import_key(b"x" * 32)),
    "key from the token": raw({**HEADER, "jwk": {"kty": "OKP"}}, GOOD, b"x" * 64),
    "key address": signed({**HEADER, "jku": "https://evil.example/keys"}, GOOD),
    "certificate address": signed({**HEADER, "x5u": "https://evil.example/cert"}, GOOD),
    "another key id": signed({**HEADER, "kid": "../../etc/passwd"}, GOOD),
    "no key id": signed({"alg": "Ed25519", "typ": "at+jwt"}, GOOD),
    "another type": signed({**HEADER, "typ": "JWT"}, GOOD),
    "no type": signed({"alg": "Ed25519", "kid": KEY.kid}, GOOD),
    "critical extension": raw({**HEADER, "crit": ["b64"], "b64": False}, GOOD, b"x" * 64),
    "header no object": raw([HEADER], GOOD),
    "payload no object": signed(HEADER, [GOOD]),
    "payload no JSON": signed(HEADER, b"{"),
    **{
        f"claim {name}={value!r}": signed(HEADER, {**GOOD, name: value})
        for name, value in [
            ("iss", "other"),
            ("aud", "other"),
            ("aud", ["tower"]),
            ("sub", ""),
            ("sub", None),
            ("sub", 1),
            ("exp", CLOCK.time),
            ("exp", "later"),
            ("exp", None),
            ("iat", CLOCK.time + 60),
            ("iat", None),
            ("act", {}),
            ("act", {"sub": "app:flytesnacks/development/other"}),
            ("act", {"sub": f"run:{APP}"}),
            ("act", {"sub": f"user:{APP}"}),
            ("act", "x"),
            ("app", "flytesnacks/development/other"),
            ("parent", ["api_key", ""]),
            ("parent", ["root", "k1"]),
            ("parent", "k1"),
            ("root", ""),
            ("ceilings", [{"role": "viewer"}]),
            ("ceilings", None),
            ("ceilings", ["none"]),
        ]
    },
    **{
        f"without {name}": signed(HEADER, {key: value for key, value in GOOD.items() if key != name})
        for name in GOOD
    },
}


@pytest.mark.parametrize("token", FORGED.values(), ids=FORGED)
def test_a_token_that_is_not_quite_one_is_refused(token: str) -> None:
    with pytest.raises(Unauthenticated) as refused:
        tokens().verify(token)
    assert token not in refused.value.public


def test_a_chain_of_actors_that_is_too_long_is_refused() -> None:
    act: dict[str, Any] = {"sub": "app:p/d/first"}
    for number in range(8):
        act = {"sub": f"app:p/d/{number}" if number < 7 else f"app:{APP}", "act": act}
    with pytest.raises(Unauthenticated):
        tokens().verify(signed(HEADER, {**GOOD, "act": act}))


@settings(max_examples=200, deadline=None)
@given(st.data())
def test_no_changed_character_goes_unnoticed(data: st.DataObject) -> None:
    token = signed(HEADER, GOOD)
    place = data.draw(st.integers(0, len(token) - 2))  # the last character has bits that mean nothing
    other = data.draw(st.sampled_from("ABCabc012-_.").filter(lambda letter: letter != token[place]))
    with pytest.raises(Unauthenticated):
        tokens().verify(token[:place] + other + token[place + 1 :])


@given(st.text(max_size=200))
def test_arbitrary_text_is_refused_and_breaks_nothing(text: str) -> None:
    with pytest.raises(Unauthenticated):
        tokens().verify(text)


def test_what_is_remembered_still_expires_and_is_bounded() -> None:
    clock = FakeClock()
    made = AppTokens(key=KEY, clock=clock, issuer="tower", remember=4)
    texts = [
        made.mint(
            subject="alice",
            app=APP,
            before=(),
            parent_kind=CredentialKind.API_KEY,
            parent="k1",
            root="k1",
            ceilings=(),
            life=300,
        )[0]
        for _ in range(10)
    ]
    assert len(made._signed._known) == 4
    assert len({made.verify(text).id for text in texts}) == 10
    clock.time += 300
    for text in texts:
        with pytest.raises(Unauthenticated, match="expired"):
            made.verify(text)


@pytest.mark.parametrize("part", [b"[" * 90_000, b'{"a":' * 20_000, b"\xff\xfe", b"7", b"null"])
def test_a_header_that_is_no_object_is_refused(part: bytes) -> None:
    made = AppTokens(key=KEY, clock=FakeClock(), issuer="tower")
    text = base64.urlsafe_b64encode(part).decode().rstrip("=") + ".e30.e30"
    assert type_of(text) == ""
    with pytest.raises(Unauthenticated, match="does not hold"):
        made.verify(text)
