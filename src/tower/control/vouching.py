"""Which keys may sign checkpoints: the ring's, each vouched for by the installation's own key, for good.

The ring forgets a key two hours after the next one took over. What it signed must be provable for years: so
the public half of every key that ever signed a checkpoint is kept in a file of the home, signed by the key
that the installation was made with. That one is all that somebody elsewhere has to keep.
"""

from __future__ import annotations

import base64
import binascii
import json
import os
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey

from tower.clock import Clock
from tower.identity.signing import Signing, SigningKey

KEYS_FILE = "audit-keys"
"""In the home: one line of JSON for each key that has signed checkpoints."""


@dataclass(frozen=True, slots=True)
class Vouched:
    """A public key and the installation's word for it.

    `key_id` is the RFC 7638 thumbprint, `public` the 32 bytes of the Ed25519 key and `signature` that of the
    installation's key over `payload`, both base64url.
    """

    key_id: str
    public: str
    at: float
    signature: str

    @property
    def payload(self) -> bytes:
        """What the signature is over: the first line keeps it apart from all else that is signed."""
        return f"tower.audit.key.1\n{self.key_id}\n{self.public}\n{self.at!r}\n".encode()


class Vouching:
    """The keys that sign checkpoints of one installation."""

    def __init__(self, *, root: SigningKey, ring: Signing, clock: Clock, home: Path) -> None:
        self._root = root
        self._ring = ring
        self._clock = clock
        self._path = home / KEYS_FILE
        self._known = {each.key_id for each in self.keys()}

    @property
    def root(self) -> SigningKey:
        """The installation's own key, which vouches for the others."""
        return self._root

    def current(self) -> SigningKey:
        """The key to sign a checkpoint with; its public half is kept before anything is signed with it."""
        key = self._ring.current
        if key.kid != self._root.kid and key.kid not in self._known:
            keys = [*self.keys(), vouch(self._root, key, at=self._clock.now())]
            _keep(self._path, keys)
            self._known = {each.key_id for each in keys}
        return key

    def keys(self) -> tuple[Vouched, ...]:
        """Every key that was vouched for, as kept."""
        return kept(self._path.parent)


def vouch(root: SigningKey, key: SigningKey, *, at: float) -> Vouched:
    """The installation's word for a key."""
    raw = _private(key).public_key().public_bytes_raw()
    bare = Vouched(key.kid, base64.urlsafe_b64encode(raw).rstrip(b"=").decode(), at, "")
    signature = base64.urlsafe_b64encode(_private(root).sign(bare.payload)).rstrip(b"=").decode()
    return Vouched(bare.key_id, bare.public, bare.at, signature)


def trusted(root: Ed25519PublicKey, root_id: str, keys: Iterable[Vouched]) -> dict[str, Ed25519PublicKey]:
    """The public keys by their ids: the root, and of `keys` those that it really vouches for."""
    found = {root_id: root}
    for each in keys:
        try:
            root.verify(base64.urlsafe_b64decode(each.signature + "=="), each.payload)
            found[each.key_id] = Ed25519PublicKey.from_public_bytes(
                base64.urlsafe_b64decode(each.public + "==")
            )
        except (InvalidSignature, binascii.Error, ValueError):
            continue  # what it signed is then signed by nobody that we know
    found[root_id] = root
    return found


def kept(home: Path) -> tuple[Vouched, ...]:
    """The keys of a home. A line that is none is left out: what its key signed is found to be forged."""
    try:
        lines = (home / KEYS_FILE).read_text().splitlines()
    except FileNotFoundError:
        return ()
    return tuple(each for line in lines if (each := _read(line)) is not None)


def line(key: Vouched) -> dict[str, Any]:
    """A key as it stands in the file and in an export."""
    return asdict(key)


def read(value: Any) -> Vouched:
    """A key from its line. Raises ValueError for anything else."""
    if not isinstance(value, dict) or value.keys() != Vouched.__dataclass_fields__.keys():
        raise ValueError("no key")
    at = value["at"]
    texts = (value["key_id"], value["public"], value["signature"])
    if not all(isinstance(text, str) for text in texts) or not isinstance(at, int | float):
        raise ValueError("no key")
    try:
        return Vouched(value["key_id"], value["public"], float(at), value["signature"])
    except OverflowError as error:
        raise ValueError("no key") from error


def _read(text: str) -> Vouched | None:
    try:
        return read(json.loads(text))
    except ValueError:
        return None


def _private(key: SigningKey) -> Ed25519PrivateKey:
    private = key.key.private_key
    assert isinstance(private, Ed25519PrivateKey)
    return private


def _keep(path: Path, keys: Iterable[Vouched]) -> None:
    draft = path.with_name(f".{path.name}.{os.getpid()}")
    descriptor = os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_NOFOLLOW, 0o600)
    with os.fdopen(descriptor, "w") as file:
        for each in keys:
            file.write(json.dumps(line(each), separators=(",", ":")) + "\n")
        file.flush()
        os.fsync(file.fileno())
    draft.replace(path)
