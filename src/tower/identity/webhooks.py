"""Deliveries that a third party signs with a shared secret: four ways of signing, one question (T48).

What is signed differs, and so does what keeps an old delivery from being sent again: Slack, Standard Webhooks
and the plain scheme sign the time; GitHub signs the body alone, so that its deliveries are remembered.
"""

from __future__ import annotations

import base64
import hashlib
import hmac
import json
import re
from collections.abc import Iterable
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any
from urllib.parse import parse_qs

from tower.errors import Unauthenticated

WINDOW_SECONDS = 300.0
"""How far the time that a delivery is signed with may be from now."""

MIN_SECRET, MAX_SECRET = 16, 1024

ID_PREFIX = "webhook-"
"""Of the public ids of webhooks: no other credential's begins so."""

_REMEMBER_SECONDS = 30 * 24 * 3600.0
_HEX = re.compile(r"[0-9a-f]{64}")
_ID = re.compile(r"[\x21-\x7e]{1,200}")
_SECONDS = re.compile(r"[0-9]{1,12}")

Headers = Iterable[tuple[bytes, bytes]]


class Scheme(StrEnum):
    """How a delivery is signed."""

    GITHUB = "github"
    """`X-Hub-Signature-256: sha256=<hex>` over the body."""
    SLACK = "slack"
    """`X-Slack-Signature: v0=<hex>` over `v0:<X-Slack-Request-Timestamp>:<body>`."""
    STANDARD = "standard"
    """Standard Webhooks: `webhook-signature: v1,<base64>` over `<webhook-id>.<webhook-timestamp>.<body>`."""
    HMAC = "hmac"
    """`X-Webhook-Signature: sha256=<hex>` over `<X-Webhook-Timestamp>.<body>`."""


@dataclass(frozen=True, slots=True)
class Shown:
    """What the headers of a delivery say, before its body is read. None of it is believed yet."""

    scheme: Scheme
    signatures: tuple[bytes, ...] = field(repr=False)
    prefix: bytes
    """What is signed before the body."""
    delivery: str
    signed_time: bool

    @property
    def remember_seconds(self) -> float:
        """How long a delivery has to be remembered so that it works once."""
        return 2 * WINDOW_SECONDS if self.signed_time else _REMEMBER_SECONDS


def read(scheme: Scheme, headers: Headers, *, now: float) -> Shown:
    """The signature in the headers of a delivery. Raises Unauthenticated for none, two, or an old one."""
    found = _Fields(headers)
    match scheme:
        case Scheme.GITHUB:
            signature = _hexadecimal(found.one(b"x-hub-signature-256"), "sha256=")
            return Shown(scheme, (signature,), b"", _named(found.one(b"x-github-delivery")), False)
        case Scheme.SLACK:
            time = _fresh(found.one(b"x-slack-request-timestamp"), now)
            signature = _hexadecimal(found.one(b"x-slack-signature"), "v0=")
            return Shown(scheme, (signature,), f"v0:{time}:".encode(), "", True)
        case Scheme.STANDARD:
            name = _named(found.one(b"webhook-id"))
            time = _fresh(found.one(b"webhook-timestamp"), now)
            signatures = _versioned(found.one(b"webhook-signature"))
            return Shown(scheme, signatures, f"{name}.{time}.".encode(), name, True)
        case Scheme.HMAC:
            time = _fresh(found.one(b"x-webhook-timestamp"), now)
            signature = _hexadecimal(found.one(b"x-webhook-signature"), "sha256=")
            return Shown(scheme, (signature,), f"{time}.".encode(), "", True)


def verify(shown: Shown, secret: bytes, body: bytes) -> tuple[bytes, ...]:
    """Raise Unauthenticated unless the secret signed this body; else the digests to know the delivery by."""
    key = _key(shown.scheme, secret)
    expected = hmac.digest(key, shown.prefix + body, hashlib.sha256)
    if not any(hmac.compare_digest(expected, signature) for signature in shown.signatures):
        raise refused("foreign signature")
    names = [b"signature\0" + expected]
    if not shown.signed_time:
        # nothing but the body is signed: neither the same body nor number comes twice from one sender
        names.append(b"number\0" + hmac.digest(key, b"number\0" + shown.delivery.encode(), hashlib.sha256))
    return tuple(hashlib.sha256(name).digest() for name in names)


def check_secret(scheme: Scheme, secret: str) -> bytes:
    """The secret as it is kept. Raises ValueError for one that is too short or malformed."""
    data = secret.encode("utf-8")
    if not MIN_SECRET <= len(data) <= MAX_SECRET or not secret.isprintable():
        raise ValueError(f"between {MIN_SECRET} and {MAX_SECRET} printable characters")
    if len(_key(scheme, data)) < MIN_SECRET:
        raise ValueError(f"at least {MIN_SECRET} bytes behind whsec_")
    return data


def sender(scheme: Scheme, body: bytes) -> str:
    """Who caused a verified delivery, by what the third party calls them; "" when it does not say.

    GitHub: the number of the account, which unlike its name is never given to another one. Slack:
    `<team>/<user>`. The others: the member `sender`.
    """
    content = _content(body)
    match scheme:
        case Scheme.GITHUB:
            return _text(_member(content, "sender", "id"))
        case Scheme.SLACK:
            team = _member(content, "team_id") or _member(content, "team", "id")
            user = (
                _member(content, "event", "user")
                or _member(content, "user", "id")
                or _member(content, "user_id")
            )
            return f"{_text(team)}/{_text(user)}" if team and user else ""
        case Scheme.STANDARD | Scheme.HMAC:
            return _text(_member(content, "sender"))


def refused(cause: str) -> Unauthenticated:
    """The one answer to every delivery that does not hold."""
    return Unauthenticated(
        "The signature of the webhook does not hold.",
        hint="It may be old, repeated or made with another secret.",
        cause=cause,
    )


class _Fields:
    """Headers by name; one that comes twice counts as none."""

    def __init__(self, headers: Headers) -> None:
        self._headers = tuple(headers)

    def one(self, name: bytes) -> str:
        values = [value for each, value in self._headers if each.lower() == name]
        if len(values) != 1 or len(values[0]) > 4096:
            raise refused(f"{name.decode()} is missing, repeated or too long")
        return values[0].decode("latin-1").strip()


def _key(scheme: Scheme, secret: bytes) -> bytes:
    """Standard Webhooks write the secret in base64 behind a prefix; the others take it as it is."""
    if scheme is not Scheme.STANDARD or not secret.startswith(b"whsec_"):
        return secret
    try:
        return base64.b64decode(secret.removeprefix(b"whsec_"), validate=True)
    except ValueError as error:
        raise ValueError("base64 behind whsec_") from error


def _fresh(text: str, now: float) -> str:
    if not _SECONDS.fullmatch(text) or abs(now - int(text)) > WINDOW_SECONDS:
        raise refused("not signed just now")
    return text


def _hexadecimal(text: str, prefix: str) -> bytes:
    digits = text.removeprefix(prefix)
    if not text.startswith(prefix) or not _HEX.fullmatch(digits):
        raise refused("malformed signature")
    return bytes.fromhex(digits)


def _versioned(text: str) -> tuple[bytes, ...]:
    """Those of version 1: a sender that changes its secret signs with both for a while."""
    found = []
    for part in text.split(" ")[:8]:
        version, _, value = part.partition(",")
        if version == "v1":
            try:
                found.append(base64.b64decode(value, validate=True))
            except ValueError as error:  # binascii.Error is one, and text that is not ASCII another
                raise refused("malformed signature") from error
    return tuple(found)


def _named(text: str) -> str:
    if not _ID.fullmatch(text):
        raise refused("malformed delivery")
    return text


def _content(body: bytes) -> Any:
    """JSON, by itself or as the field `payload` of a form; else the form."""
    try:
        return json.loads(body)
    except (ValueError, RecursionError):
        pass
    try:
        fields = parse_qs(body.decode("ascii"), max_num_fields=200)
        if "payload" in fields:
            return json.loads(fields["payload"][0])
    except (ValueError, RecursionError):
        return None
    return {name: values[0] for name, values in fields.items()}


def _member(content: Any, *names: str) -> Any:
    for name in names:
        content = content.get(name) if isinstance(content, dict) else None
    return content


def _text(value: Any) -> str:
    if isinstance(value, bool) or not isinstance(value, str | int):
        return ""
    text = str(value)
    return text if len(text) <= 200 and text.isprintable() else ""
