"""Proof key for code exchange (RFC 7636): S256 only, as RFC 9700 section 2.1.1 asks."""

from __future__ import annotations

import base64
import hashlib
import hmac
import re

METHOD = "S256"

_CHALLENGE = re.compile(r"[A-Za-z0-9_-]{43}")
_VERIFIER = re.compile(r"[A-Za-z0-9._~-]{43,128}")  # RFC 7636 section 4.1


def is_challenge(text: str) -> bool:
    """Whether the text can be a challenge of the method S256: 43 characters of base64url."""
    return _CHALLENGE.fullmatch(text) is not None


def holds(verifier: str, challenge: str) -> bool:
    """Whether the verifier is the one that the challenge was made from, in constant time."""
    if not _VERIFIER.fullmatch(verifier):
        return False
    digest = hashlib.sha256(verifier.encode()).digest()
    return hmac.compare_digest(base64.urlsafe_b64encode(digest).rstrip(b"="), challenge.encode())
