"""Proof that a call comes from the holder of a key: what an agent adds to each, and what Tower compares with.

Agent and Tower agree on a secret by X25519 (RFC 7748): Tower's half is derived from its signing key, so it
outlives a restart; the agent's half never leaves its process. A proof is an HMAC over method, target, time, a
number that rises with each call, the token and the body of Tower's own routes. So a token that was copied,
out of a log say, is worth nothing, and a call that was recorded cannot be made again.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import hmac
from dataclasses import dataclass

from cryptography.exceptions import InternalError
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey, X25519PublicKey
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

TOKEN_HEADER = b"x-tower-agent"
PROOF_HEADER = b"x-tower-proof"
TOKEN_PATH = "/nodes/token"  # noqa: S105  (a path)
PEER_HEADER = b"x-tower-peer"

_KEY_BYTES = 32
_PURPOSE = b"tower agent proof 1"


class Half:
    """One's own half of the agreement."""

    def __init__(self, private: X25519PrivateKey) -> None:
        self._private = private
        self.public = private.public_key().public_bytes(Encoding.Raw, PublicFormat.Raw)
        """32 bytes that anybody may know."""

    @classmethod
    def generate(cls) -> Half:
        """A fresh one."""
        return cls(X25519PrivateKey.generate())

    @classmethod
    def of(cls, secret: bytes) -> Half:
        """The one that 32 secret bytes make."""
        return cls(X25519PrivateKey.from_private_bytes(secret))

    def agree(self, agent: bytes, tower: bytes) -> Secret:
        """The secret with the other half; `agent` and `tower` are the public ones. Raises ValueError."""
        other = tower if agent == self.public else agent
        try:
            shared = self._private.exchange(X25519PublicKey.from_public_bytes(other))
        except InternalError as error:  # a point of small order
            raise ValueError("no key to agree with") from error
        return Secret(hmac.digest(shared, _PURPOSE + agent + tower, "sha256"))


@dataclass(frozen=True, slots=True)
class Proof:
    """What the header says: when (milliseconds since the epoch), the how-manieth call, and the seal."""

    at: int
    number: int
    seal: bytes

    @classmethod
    def read(cls, text: str) -> Proof:
        """The inverse of `str`. Raises ValueError."""
        at, number, seal = text.split(".")
        if not (at.isdecimal() and number.isdecimal() and text.isascii() and len(text) <= 128):
            raise ValueError("no proof")
        return cls(int(at), int(number), bytes_of(seal))

    def __str__(self) -> str:
        return f"{self.at}.{self.number}.{text_of(self.seal)}"


class Secret:
    """What agent and Tower alone know."""

    __slots__ = ("_secret",)

    def __init__(self, secret: bytes) -> None:
        self._secret = secret

    def prove(
        self, *, method: str, target: bytes, token: str, at: int, number: int, body: bytes = b""
    ) -> Proof:
        """The proof of one call; `target` is path and query as they stand in the request line."""
        return Proof(at, number, self._seal(_call(method, target, token, at, number), body))

    def holds(self, proof: Proof, *, method: str, target: bytes, token: str, body: bytes = b"") -> bool:
        """Whether the proof is of this very call."""
        expected = self._seal(_call(method, target, token, proof.at, proof.number), body)
        return hmac.compare_digest(expected, proof.seal)

    def _seal(self, call: tuple[bytes, ...], body: bytes) -> bytes:
        digest = hashlib.sha256(body).digest() if body else b""
        # lengths stand first, so that no two calls read the same
        text = b"".join(b"%d:%b" % (len(part), part) for part in (*call, digest))
        return hmac.digest(self._secret, text, "sha256")


def _call(method: str, target: bytes, token: str, at: int, number: int) -> tuple[bytes, ...]:
    return method.encode(), target, b"%d.%d" % (at, number), token.encode()


def text_of(data: bytes) -> str:
    """Base64url without padding."""
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode()


def bytes_of(text: str) -> bytes:
    """The inverse, strictly. Raises ValueError."""
    try:
        data = base64.b64decode(text + "=" * (-len(text) % 4), altchars=b"-_", validate=True)
    except binascii.Error as error:
        raise ValueError("not base64url") from error
    if text_of(data) != text:
        raise ValueError("not base64url")
    return data


def public_key(text: str) -> bytes:
    """A public half as it travels. Raises ValueError."""
    key = bytes_of(text)
    if len(key) != _KEY_BYTES:
        raise ValueError("not a key")
    return key
