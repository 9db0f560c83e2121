"""Passwords of built-in accounts: argon2id hashes, and which passwords are good enough.

The cost is the second recommended option of RFC 9106 section 4 (64 MiB, 3 passes, 4 lanes). A check takes
some fifty milliseconds of a core: call it in a thread, and few at a time.
"""

from __future__ import annotations

import unicodedata

from argon2 import PasswordHasher
from argon2.exceptions import InvalidHashError, VerificationError
from argon2.profiles import RFC_9106_LOW_MEMORY

from tower.errors import Invalid

SHORTEST = 12
LONGEST_BYTES = 1024

_HASHER = PasswordHasher.from_parameters(RFC_9106_LOW_MEMORY)
_KNOWN = ("password", "correct horse battery", "qwertyuiop", "123456789", "changeme", "letmein", "admin123")
_nobody: list[str] = []


def check_strength(password: str, *, subject: str) -> None:
    """Raise Invalid for a password that is short, known to everyone or made of the account's name (T14)."""
    plain = _normal(password)
    if len(plain) < SHORTEST:
        raise Invalid(f"A password has at least {SHORTEST} characters.", hint="A sentence is easy to keep.")
    if len(plain.encode()) > LONGEST_BYTES:
        raise Invalid(f"A password has at most {LONGEST_BYTES} bytes.")
    lowered = plain.casefold()
    if len(set(lowered)) < 5:
        raise Invalid("A password has at least five different characters.")
    left = lowered.replace(subject.casefold(), "")
    if any(left.replace(known, "") == "" or left.startswith(known) for known in _KNOWN) or len(left) < 8:
        raise Invalid("That password is among the first that anybody would try.", hint="Take another.")


def hash_password(password: str) -> str:
    """The hash to store, in the PHC string format, with a fresh salt."""
    return _HASHER.hash(_normal(password))


def verify(password: str, stored: str | None) -> bool:
    """Whether the password is the one behind the hash; as slow for None, which is no account (T36)."""
    if len(password.encode(errors="surrogatepass")) > LONGEST_BYTES * 4:
        return False
    try:
        genuine = _HASHER.verify(stored or _of_nobody(), _normal(password))
    except (VerificationError, InvalidHashError):
        return False
    return genuine and stored is not None


def outdated(stored: str) -> bool:
    """Whether the hash was made at another cost than today's."""
    return _HASHER.check_needs_rehash(stored)


def _of_nobody() -> str:
    if not _nobody:
        _nobody.append(_HASHER.hash("the password of nobody"))
    return _nobody[0]


def _normal(password: str) -> str:
    """One spelling for what looks the same on different keyboards (NIST SP 800-63B section 5.1.1.2)."""
    return unicodedata.normalize("NFKC", password.encode(errors="replace").decode())
