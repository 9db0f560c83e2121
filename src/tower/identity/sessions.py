"""Browser sessions and one-time sign-in codes: random texts, their cookie and their digest.

Over TLS the cookie carries the `__Host-` prefix: browsers then refuse one that a sibling host planted (T19,
RFC 6265bis section 4.1.3.2). Plain HTTP is for loopback, where that prefix cannot be set.
"""

from __future__ import annotations

import hashlib
import ipaddress
import re
import secrets

from tower.clock import ALPHABET
from tower.errors import Unauthenticated

SECURE_COOKIE = "__Host-tower_session"
PLAIN_COOKIE = "tower_session"

_TEXT = re.compile(r"[A-Za-z0-9_-]{43}")


def generate() -> str:
    """A fresh secret for a session or a sign-in link: 256 random bits, 43 characters."""
    return secrets.token_urlsafe(32)


def public_id() -> str:
    """A fresh public name of a session; no API key has an id that starts like this."""
    return "session-" + "".join(secrets.choice(ALPHABET) for _ in range(16))


def digest(text: str) -> bytes:
    """What the store keeps of a session or link: 32 bytes."""
    return hashlib.sha256(text.encode()).digest()


def well_formed(text: str) -> bool:
    """Whether the text can be a session or link at all."""
    return _TEXT.fullmatch(text) is not None


def cookie_name(*, secure: bool) -> str:
    """The only cookie name that is read or set on a connection of this kind."""
    return SECURE_COOKIE if secure else PLAIN_COOKIE


def set_cookie(text: str, *, secure: bool, max_age: int) -> str:
    """The value of a `set-cookie` header. An empty text with `max_age` 0 removes the cookie."""
    flags = "; Secure" if secure else ""
    name = cookie_name(secure=secure)
    return f"{name}={text}; Path=/; Max-Age={max_age}; HttpOnly; SameSite=Lax{flags}"


def from_cookies(headers: list[str], *, secure: bool) -> str | None:
    """The session in the `cookie` headers of a request, or None when there is none.

    Raises Unauthenticated when the cookie comes twice: one of the two was planted, and nobody can tell which.
    """
    wanted = cookie_name(secure=secure)
    found = [
        value.strip()
        for header in headers
        for name, _, value in (part.partition("=") for part in header.split(";"))
        if name.strip() == wanted
    ]
    if len(found) > 1:
        raise Unauthenticated(
            "The session cookie came more than once.", hint="Clear the cookies and sign in again."
        )
    return found[0] if found else None


def loopback(host: str) -> bool:
    """Whether a Host header value names this machine itself."""
    name = host.rsplit(":", 1)[0] if not host.endswith("]") and ":" in host else host
    name = name.strip("[]").rstrip(".").lower()
    if name == "localhost" or name.endswith(".localhost"):
        return True
    try:
        return ipaddress.ip_address(name).is_loopback
    except ValueError:
        return False
