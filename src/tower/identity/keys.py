"""API keys: how one is made, written, read back and compared.

The text is `twr_<id>_<secret>`: 12 characters of public id (Crockford's base 32) and 43 characters of secret
(256 random bits in base64url). The form `--format flyte` wraps the same two halves as
`base64("<endpoint>:<id>:<secret>:<org>")`, which the official SDK reads. The store keeps the SHA-256 of the
secret: 256 random bits need no slow hash.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import hmac
import re
import secrets
from dataclasses import dataclass, field

from tower.clock import ALPHABET

PREFIX = "twr_"
ID_LENGTH = 12
MAX_TEXT = 1024

_ID = f"[{ALPHABET}]{{{ID_LENGTH}}}"
_HALF = r"[A-Za-z0-9_-]{43}"
_PLAIN = re.compile(rf"{PREFIX}({_ID})_({_HALF})")
# read from the right: an endpoint may carry a port although the official SDK cannot use such a key
_WRAPPED = re.compile(rf"[^\x00-\x20]*:({_ID}):({_HALF}):[^:\x00-\x20]*")
_BASE64 = re.compile(r"[A-Za-z0-9+/]{60,}={0,2}")


@dataclass(frozen=True, slots=True)
class ApiKey:
    """Both halves of a key. The secret never shows in a repr."""

    id: str
    secret: str = field(repr=False)

    @property
    def text(self) -> str:
        """The form people copy: `twr_<id>_<secret>`."""
        return f"{PREFIX}{self.id}_{self.secret}"

    def wrapped(self, *, endpoint: str, org: str) -> str:
        """The form of `--format flyte`, for clients that expect one string with endpoint and organisation."""
        return base64.b64encode(f"{endpoint}:{self.id}:{self.secret}:{org}".encode()).decode()


def generate() -> ApiKey:
    """A fresh key from the machine's random source."""
    return ApiKey(
        id="".join(secrets.choice(ALPHABET) for _ in range(ID_LENGTH)), secret=secrets.token_urlsafe(32)
    )


def parse(text: str) -> ApiKey | None:
    """Read a key in either form, or None when the text has the shape of neither."""
    if len(text) > MAX_TEXT:
        return None
    if found := _PLAIN.fullmatch(text):
        return ApiKey(id=found[1], secret=found[2])
    if text.startswith(PREFIX) or not _BASE64.fullmatch(text):
        return None
    try:
        padded = text.rstrip("=") + "=" * (-len(text.rstrip("=")) % 4)
        decoded = base64.b64decode(padded, validate=True).decode("ascii")
    except (binascii.Error, ValueError):
        return None
    if found := _WRAPPED.fullmatch(decoded):
        return ApiKey(id=found[1], secret=found[2])
    return None


def claims(text: str) -> bool:
    """Whether the text presents itself as an API key, genuine or not."""
    return text.startswith(PREFIX) or parse(text) is not None


def digest(secret: str) -> bytes:
    """What the store keeps of a secret: 32 bytes."""
    return hashlib.sha256(secret.encode()).digest()


def matches(secret: str, stored: bytes) -> bool:
    """Whether the secret is the one behind a stored digest, in constant time."""
    return hmac.compare_digest(digest(secret), stored)
