"""Identity tokens: who a running task acts for, said to somebody outside (OpenID Connect, RFC 8693 `act`).

They are signed with RSA keys that sign nothing else, which every cloud and vault can verify, and have a type
of their own: at no door of Tower's does one say anything. Each is for one audience and lives for minutes.
"""

from __future__ import annotations

import json
import os
import secrets
import stat
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from joserfc import jws
from joserfc.errors import JoseError
from joserfc.jwk import RSAKey

from tower.clock import Clock
from tower.errors import Broken
from tower.identity.keyring import ROTATE_SECONDS, KeyRing
from tower.identity.principal import Actor
from tower.identity.signing import SigningKey

ALGORITHM = "RS256"
TYPE = "run-identity+jwt"
LIFE_SECONDS = 600
_BITS = 2048


class OutsideKey(SigningKey):
    """An RSA key pair of 2048 bits. `kid` is its RFC 7638 thumbprint."""

    algorithm = ALGORITHM

    @classmethod
    def generate(cls) -> OutsideKey:
        """A fresh key that is in no file; takes some tenths of a second."""
        return cls(RSAKey.generate_key(_BITS))

    @classmethod
    def _read(cls, path: Path) -> OutsideKey:
        with path.open("rb") as file:
            if stat.S_IMODE(os.fstat(file.fileno()).st_mode) & 0o077:
                raise Broken(f"The signing key {path} can be read by others.", hint=f"Remove {path}.")
            pem = file.read()
        try:
            key = RSAKey.import_key(pem)
        except (JoseError, ValueError) as error:
            raise Broken(f"The signing key {path} is damaged.", cause=repr(error)) from error
        return cls(key)


class OutsideRing:
    """The ring of those keys. The first one is made when something is first signed."""

    def __init__(self, folder: Path, *, clock: Clock) -> None:
        self._folder = folder
        self._clock = clock
        self._ring: KeyRing | None = None

    @property
    def current(self) -> SigningKey:
        """The key to sign with."""
        return self._opened().current

    def rotate(self) -> None:
        """Sign with another key from now on, if anything was ever signed."""
        if self._used():
            self._opened().rotate()

    def jwks(self) -> dict[str, Any]:
        """The public halves of all live keys (RFC 7517 section 5)."""
        return self._opened().jwks() if self._used() else {"keys": []}

    def _used(self) -> bool:
        return self._ring is not None or any(self._folder.glob("*.pem"))

    def _opened(self) -> KeyRing:
        if self._ring is None:
            self._ring = KeyRing(self._folder, clock=self._clock, rotate=ROTATE_SECONDS, kind=OutsideKey)
        return self._ring


@dataclass(frozen=True, slots=True)
class IdentityToken:
    """A token on its way out. `id` is its `jti`; `expires_at` in whole seconds since the epoch."""

    text: str
    id: str
    expires_at: int

    def __repr__(self) -> str:
        return f"<IdentityToken {self.id}>"


def mint(
    ring: OutsideRing,
    *,
    now: float,
    issuer: str,
    subject: str,
    audience: str,
    actors: tuple[Actor, ...],
    facts: Mapping[str, str | int],
    ends_at: float | None = None,
) -> IdentityToken:
    """A token that `subject` acts through `actors` (oldest first); `facts` are claims of our own.

    It holds for ten minutes, and no longer than what it stands on, which ends at `ends_at`.
    """
    issued = int(now)
    end = issued + LIFE_SECONDS if ends_at is None else int(min(ends_at, issued + LIFE_SECONDS))
    act: dict[str, Any] = {}
    for actor in actors:  # the newest ends up outermost
        act = {"sub": str(actor), **({"act": act} if act else {})}
    made = IdentityToken("", secrets.token_urlsafe(16), end)
    claims = {
        **facts,
        "iss": issuer,
        "sub": subject,
        "aud": audience,
        "act": act,
        "jti": made.id,
        "iat": issued,
        "nbf": issued,
        "exp": made.expires_at,
    }
    key = ring.current
    header = {"alg": ALGORITHM, "typ": TYPE, "kid": key.kid}
    content = json.dumps(claims, separators=(",", ":")).encode()
    text = jws.serialize_compact(header, content, key.key, algorithms=[ALGORITHM])
    return IdentityToken(text, made.id, made.expires_at)
