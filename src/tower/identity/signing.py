"""The key that signs Tower's own tokens: Ed25519, generated on first start, on this machine only."""

from __future__ import annotations

import hashlib
import hmac
import os
import stat
from pathlib import Path
from typing import Any, Protocol

from joserfc.errors import JoseError
from joserfc.jwk import OKPKey

from tower.errors import Broken


class Signing(Protocol):
    """What signs tokens and finds the keys that may have signed one: a ring of keys, or one key alone."""

    @property
    def current(self) -> SigningKey:
        """The key to sign with."""

    def find(self, kid: str) -> SigningKey | None:
        """The key of this id, if what it signed still holds."""


class SigningKey:
    """An Ed25519 key pair. `kid` is its RFC 7638 thumbprint."""

    algorithm = "Ed25519"

    def __init__(self, key: Any) -> None:
        self.key = key
        self.kid: str = key.thumbprint()

    @classmethod
    def generate(cls) -> SigningKey:
        """A fresh key that is in no file."""
        return cls(OKPKey.generate_key("Ed25519"))

    @property
    def current(self) -> SigningKey:
        """Itself: one key is a ring that does not turn."""
        return self

    def find(self, kid: str) -> SigningKey | None:
        """Itself, when it is meant."""
        return self if kid == self.kid else None

    @classmethod
    def load(cls, path: Path) -> SigningKey:
        """Read the key file. Raises FileNotFoundError, and Broken for one that others can read."""
        return cls._read(path)

    def save(self, path: Path) -> None:
        """Write the key to a new file with mode 0600. Raises FileExistsError when there is one."""
        write_private(path, self.key.as_pem(private=True))

    @classmethod
    def load_or_create(cls, path: Path) -> SigningKey:
        """Read the key file, or make it with mode 0600. Raises Broken for one that others can read."""
        try:
            return cls._read(path)
        except FileNotFoundError:
            pass
        made = cls.generate()
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        try:
            write_private(path, made.key.as_pem(private=True))
        except FileExistsError:
            return cls._read(path)
        return made

    @classmethod
    def _read(cls, path: Path) -> SigningKey:
        with path.open("rb") as file:
            if stat.S_IMODE(os.fstat(file.fileno()).st_mode) & 0o077:
                raise Broken(
                    f"The signing key {path} can be read by others.",
                    hint=f"Remove it and a new one is made; or, if nobody else had access: chmod 600 {path}",
                )
            pem = file.read()
        try:
            key = OKPKey.import_key(pem)
        except (JoseError, ValueError) as error:
            raise Broken(f"The signing key {path} is damaged.", cause=repr(error)) from error
        if not key.is_private or key.curve_name != "Ed25519":
            raise Broken(f"The signing key {path} is not an Ed25519 private key.")
        return cls(key)

    def derive(self, purpose: str) -> bytes:
        """A 32-byte secret for another purpose; it tells nothing about this key or about other purposes."""
        return hmac.digest(
            self.key.as_der(private=True), b"tower derive: " + purpose.encode(), hashlib.sha256
        )


def write_private(path: Path, content: bytes) -> None:
    """Write a new file that only its owner can read, durably. Raises FileExistsError when there is one.

    Two processes may start at once: the content is complete before the name appears, and the first name wins.
    """
    draft = path.with_name(f".{path.name}.{os.getpid()}")
    descriptor = os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_NOFOLLOW, 0o600)
    try:
        with os.fdopen(descriptor, "wb") as file:
            os.fchmod(file.fileno(), 0o600)
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        os.link(draft, path)
    finally:
        draft.unlink(missing_ok=True)
