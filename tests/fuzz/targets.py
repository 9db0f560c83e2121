"""What is fuzzed: each parser of something that strangers send, as a function of bytes.

A target returns when the parser accepts or refuses by its own errors; any other exception is a finding, and
so is an assertion about what was accepted. `make fuzz` drives them with atheris, the tests with Hypothesis.
"""

from __future__ import annotations

import atexit
import contextlib
import gzip
import io
import shutil
import tempfile
from collections.abc import Callable
from functools import cache
from pathlib import Path
from types import SimpleNamespace

from tower.control.grants import ISSUER
from tower.control.reconcile.bundles import unpack
from tower.errors import Denied, Exhausted, Invalid, Unauthenticated
from tower.gateway import headers as gateway_headers
from tower.gateway import paths
from tower.identity import jose, keys, offers, sessions, signed, webhooks
from tower.identity.accesstokens import AccessTokens
from tower.identity.clients import Scope, redirect_allowed
from tower.identity.offers import Presented
from tower.identity.signing import SigningKey
from tower.identity.tickets import Tickets
from tower.identity.tokens import AppTokens
from tower.policy.actions import Resource

NOW = 1_800_000_000.0
_CLOCK = SimpleNamespace(now=lambda: NOW, name=lambda prefix: prefix)

Target = Callable[[bytes], None]


def text(data: bytes) -> str:
    """The bytes of a header as a door decodes them."""
    return data.decode("latin-1")


def pairs(data: bytes) -> tuple[tuple[bytes, bytes], ...]:
    """Headers out of lines; what has no colon is a cookie, so that little is thrown away."""
    found = []
    for line in data.split(b"\n"):
        name, colon, value = line.partition(b":")
        found.append((name.lower(), value) if colon else (b"cookie", line))
    return tuple(found)


def header(data: bytes) -> None:
    """The headers of a request that name a caller."""
    for secure in (False, True):
        try:
            found = offers.read(Presented(headers=pairs(data), secure=secure))
        except Unauthenticated:
            continue
        for offer in found:
            assert offer.source is offers.Source.COOKIE or offer.value.isprintable()
            assert len({each.source for each in found}) >= len(found) - 1  # two key headers at most


def forwarded(data: bytes) -> None:
    """The headers of a request to an app: what arrives there names nobody but whom Tower says."""
    given = pairs(data)
    try:
        gateway_headers.check(given)
    except (Invalid, Exhausted):
        return
    for name, _ in gateway_headers.inbound(given, keep_cookies=False):
        assert name not in {b"authorization", b"cookie", b"x-api-key", b"x-flyte-token", b"connection"}


def cookie(data: bytes) -> None:
    """The cookie header, with and without TLS."""
    for secure in (False, True):
        try:
            found = sessions.from_cookies([text(part) for part in data.split(b"\n")], secure=secure)
        except Unauthenticated:
            continue
        if found is not None and sessions.well_formed(found):
            assert len(found) == 43
            assert sessions.digest(found)


def key(data: bytes) -> None:
    """An API key in either form; what is read can be written and read again."""
    shown = text(data)
    found = keys.parse(shown)
    if found is not None:
        assert keys.claims(shown)
        assert keys.parse(found.text) == found
        assert found.secret not in repr(found)
        assert keys.parse(found.wrapped(endpoint="h", org="o")) == found


@cache
def signing() -> SigningKey:
    """A signing key that exists while the process does."""
    folder = Path(tempfile.mkdtemp(prefix="fuzz-"))
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    return SigningKey.load_or_create(folder / "key.pem")


@cache
def app_tokens() -> AppTokens:
    """The reader of app tokens."""
    return AppTokens(key=signing(), clock=_CLOCK, issuer=ISSUER)  # type: ignore[arg-type]


@cache
def access_tokens() -> AccessTokens:
    """The reader of access tokens."""
    return AccessTokens(keys=signing(), clock=_CLOCK, ours=lambda issuer: True)  # type: ignore[arg-type]


def token(data: bytes) -> None:
    """App tokens and access tokens; nothing that was not made here is ever good."""
    shown = text(data)
    for recognised, verify in (
        (signed.claims_shape(shown), app_tokens().verify),
        (access_tokens().recognises(shown), access_tokens().verify),
    ):
        if recognised:
            try:
                claims = verify(shown)
            except Unauthenticated:
                continue
            raise AssertionError(f"a forged token holds: {claims}")


@cache
def foreign_keys() -> jose.KeySet:
    """The keys of an identity provider, whose private halves nobody has."""
    public = {"kty": "OKP", "crv": "Ed25519", "x": "11qYAYKxCrfVS_7TyWQHOg7hcvPapiMlrwIaaPcHURo"}
    return jose.KeySet.read({"keys": [{**public, "kid": "1"}]}, algorithms=["EdDSA", "Ed25519"])


def foreign(data: bytes) -> None:
    """A token of an identity provider."""
    try:
        found = foreign_keys().verify(text(data))
    except Unauthenticated:
        return
    raise AssertionError(f"a forged token holds: {found}")


def delivery(data: bytes) -> None:
    """The headers and the body of a webhook delivery; none of it is signed with the secret."""
    head, _, body = data.partition(b"\n\n")
    for scheme in webhooks.Scheme:
        try:
            shown = webhooks.read(scheme, pairs(head), now=NOW)
            webhooks.verify(shown, b"s" * 32, body)
        except Unauthenticated:
            continue
        raise AssertionError(f"a forged delivery holds: {shown}")


def path(data: bytes) -> None:
    """The target of a request; what is accepted has one reading, and keeps it through another parser."""
    raw, _, query = data.partition(b"?")
    try:
        target = paths.read(raw, query)
    except Invalid:
        return
    assert target.line.encode() == (data if query else raw)
    segments = target.path.split("/")
    assert ".." not in segments
    assert "." not in segments
    assert "\x00" not in target.path
    assert "\\" not in target.path
    place = paths.mounted(target)
    if place is not None:
        assert target.path.startswith(place.prefix)
        assert place.target.raw == target.raw[len(place.prefix) :]


@cache
def tickets() -> Tickets:
    """The reader of upload tickets."""
    return Tickets(key=signing(), clock=_CLOCK, purpose="upload")  # type: ignore[arg-type]


def ticket(data: bytes) -> None:
    """The ticket in a data URL; nothing that was not made here is ever good."""
    try:
        fields = tickets().open(text(data))
    except Denied:
        return
    raise AssertionError(f"a forged ticket holds: {fields}")


def bundle(data: bytes) -> None:
    """A code bundle; whatever it holds, nothing is written outside of its folder."""
    if data[:2] != b"\x1f\x8b":
        data = gzip.compress(data, 1)
    with tempfile.TemporaryDirectory(prefix="fuzz-") as outer:
        folder = Path(outer) / "a" / "bundle"
        folder.mkdir(parents=True)
        with contextlib.suppress(Invalid):
            unpack(io.BytesIO(data), folder)
        assert [each.name for each in Path(outer).iterdir()] == ["a"]
        assert [each.name for each in folder.parent.iterdir()] == ["bundle"]
        for each in folder.rglob("*"):
            assert each.is_dir() or (each.is_file() and not each.is_symlink())


def scope(data: bytes) -> None:
    """The scope and the redirect address of a login."""
    shown = text(data)
    found = Scope.read(shown)
    if found is not None:
        assert Scope.read(str(found)) == found
        assert found.within(found)
        found.ceilings("fuzz")
    if redirect_allowed(shown):
        assert shown.startswith(("http://127.0.0.1", "http://[::1]", "http://localhost"))


def resource(data: bytes) -> None:
    """The name of a thing in a question about rights."""
    try:
        found = Resource.parse(text(data))
    except Invalid:
        return
    assert Resource.parse(str(found)) == found


TARGETS: dict[str, Target] = {
    each.__name__: each
    for each in (
        header,
        forwarded,
        cookie,
        key,
        token,
        foreign,
        delivery,
        path,
        ticket,
        bundle,
        scope,
        resource,
    )
}
"""By name."""

SEEDS: dict[str, list[bytes]] = {
    "header": [b"authorization: Bearer x\ncookie: tower_session=" + b"A" * 43, b"x-api-key: twr_x"],
    "forwarded": [b"connection: x-a, close\nx-a: 1\nhost: h", b"transfer-encoding: chunked\nhost: h"],
    "cookie": [b"a=b; tower_session=" + b"A" * 43, b"__Host-tower_session=" + b"A" * 43],
    "key": [b"twr_0123456789ab_" + b"A" * 43],
    "path": [b"/apps/p/d/n/x?y=1", b"/a/%2e%2e/b", b"/..;x/"],
    "delivery": [
        b"x-hub-signature-256: sha256=" + b"0" * 64 + b"\nx-github-delivery: 1\n\n{}",
        b"x-slack-request-timestamp: 1800000000\nx-slack-signature: v0=" + b"0" * 64 + b"\n\na=b",
        b"webhook-id: 1\nwebhook-timestamp: 1800000000\nwebhook-signature: v1,AAAA\n\n{}",
        b"webhook-id: 1\nwebhook-timestamp: 1800000000\nwebhook-signature: v1,\xe4\n\n{}",
        b"x-webhook-timestamp: 1800000000\nx-webhook-signature: sha256=" + b"0" * 64 + b"\n\n{}",
    ],
    "scope": [b"all", b"openid role:viewer project:p domain:d", b"http://127.0.0.1:8/callback"],
    "resource": [b"task:p/d/n", b"org", b"user:a@b", b"policy:x"],
}
"""Inputs to begin with, besides those that `seeds` makes."""


def seeds(name: str) -> list[bytes]:
    """Good and nearly good inputs of a target: mutations of these reach deeper than noise does."""
    from tests.fuzz import samples

    return [*SEEDS.get(name, []), *samples.made(name)]
