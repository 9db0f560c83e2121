"""Values that must be read again: each under a key of its own, that key under one outside the database.

The file has one key a line, `<id> <base64 of 32 bytes>`, the newest first. New values are sealed with the
first; an older one stands there only while a rotation is under way or was cut short.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import os
import secrets
import stat
from dataclasses import dataclass, field
from pathlib import Path

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from tower.errors import Broken
from tower.identity.signing import write_private

_KEY = 32
_NONCE = 12


@dataclass(frozen=True, slots=True)
class Sealed:
    """A value as it is stored: encrypted with AES-256-GCM under a key that is itself encrypted so.

    Each part begins with its nonce of 12 bytes.
    """

    key_id: str
    wrapped: bytes = field(repr=False)
    content: bytes = field(repr=False)


class SealingKeys:
    """The keys of one file. `rotate` and `retire` are the two halves of changing the key."""

    def __init__(self, path: Path, keys: dict[str, bytes]) -> None:
        self._path = path
        self._keys = keys

    @classmethod
    def load_or_create(cls, path: Path) -> SealingKeys:
        """Read the file, or make it with mode 0600. Raises Broken for one that others can read."""
        try:
            return cls(path, _read(path))
        except FileNotFoundError:
            pass
        made = _fresh()
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        try:
            write_private(path, _lines(made))
        except FileExistsError:
            return cls(path, _read(path))
        return cls(path, made)

    @property
    def current(self) -> str:
        """The id of the key that seals."""
        return next(iter(self._keys))

    def __contains__(self, key_id: str) -> bool:
        return key_id in self._keys

    def seal(self, value: bytes, *, context: bytes) -> Sealed:
        """Encrypt a value; it opens only with the same `context`, which is not kept."""
        own = AESGCM.generate_key(bit_length=256)
        return Sealed(
            self.current,
            wrapped=_encrypt(self._keys[self.current], own, context),
            content=_encrypt(own, value, context),
        )

    def open(self, sealed: Sealed, *, context: bytes) -> bytes:
        """The value. Raises Broken for one that was changed, moved, or sealed with a key that is gone."""
        key = self._keys.get(sealed.key_id)
        if key is None:
            raise Broken("A secret cannot be read.", cause=f"the key {sealed.key_id} is not in {self._path}")
        try:
            return _decrypt(_decrypt(key, sealed.wrapped, context), sealed.content, context)
        except InvalidTag as error:
            raise Broken("A secret cannot be read.", cause="it was changed or moved") from error

    def rotate(self) -> str:
        """Seal with a new key from now on; older ones still open. The id of the new key."""
        made = _fresh()
        self._write({**made, **self._keys})
        return self.current

    def retire(self) -> None:
        """Forget every key but the newest. Call it when nothing is sealed with an older one any more."""
        self._write({self.current: self._keys[self.current]})

    def _write(self, keys: dict[str, bytes]) -> None:
        draft = self._path.with_name(f".{self._path.name}.{secrets.token_hex(8)}")
        write_private(draft, _lines(keys))
        os.replace(draft, self._path)
        self._keys = keys


def _fresh() -> dict[str, bytes]:
    key = secrets.token_bytes(_KEY)
    return {hashlib.sha256(b"tower sealing key\0" + key).hexdigest()[:16]: key}


def _lines(keys: dict[str, bytes]) -> bytes:
    return "".join(f"{name} {base64.b64encode(key).decode()}\n" for name, key in keys.items()).encode()


def _read(path: Path) -> dict[str, bytes]:
    with path.open("rb") as file:
        if stat.S_IMODE(os.fstat(file.fileno()).st_mode) & 0o077:
            raise Broken(
                f"The key {path} can be read by others.",
                hint=f"Change what it protects; or, if nobody else had access: chmod 600 {path}",
            )
        lines = file.read().decode("ascii", "replace").splitlines()
    try:
        keys = {
            name: base64.b64decode(text, validate=True) for name, text in (line.split(" ") for line in lines)
        }
    except (ValueError, binascii.Error) as error:
        raise Broken(f"The key {path} is damaged.", cause=type(error).__name__) from None
    if not keys or any(len(key) != _KEY for key in keys.values()):
        raise Broken(f"The key {path} is damaged.")
    return keys


def _encrypt(key: bytes, value: bytes, context: bytes) -> bytes:
    nonce = os.urandom(_NONCE)
    return nonce + AESGCM(key).encrypt(nonce, value, context)


def _decrypt(key: bytes, value: bytes, context: bytes) -> bytes:
    return AESGCM(key).decrypt(value[:_NONCE], value[_NONCE:], context)
