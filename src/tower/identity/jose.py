"""Verifying what other parties signed: a set of public keys, pinned algorithms, compact JWS and nothing else.

Keys come from a JWK set (RFC 7517); no key, key address or certificate in a token is ever looked at. A set
that cannot be meant (a private or symmetric key beside public ones, one `kid` twice) is refused as a whole.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from cryptography.hazmat.primitives.asymmetric.rsa import RSAPublicKey
from joserfc import jws
from joserfc.errors import JoseError, UnsupportedAlgorithmError
from joserfc.jwk import ECKey, JWKRegistry, Key, OctKey, OKPKey, RSAKey
from joserfc.util import urlsafe_b64decode

from tower.errors import Broken, Counterfeit

MAX_KEYS = 64
MIN_RSA_BITS = 2048
MAX_RSA_BITS = 8192

_COMPACT = re.compile(r"([A-Za-z0-9_-]+)\.([A-Za-z0-9_-]*)\.([A-Za-z0-9_-]+)")
_LOOKS_LIKE_ONE = re.compile(r"[A-Za-z0-9_-]+\.([A-Za-z0-9_-]+)\.[A-Za-z0-9_-]*")
_CURVES = {"ES256": "P-256", "ES384": "P-384", "ES512": "P-521"}
_SECRET_BYTES = {"HS256": 32, "HS384": 48, "HS512": 64}
# the discriminant of the flawed prime generator of CVE-2017-15361 (ROCA): every modulus that it made is a
# power of 65537 modulo each of these primes; of other moduli about one in 10^8 is
_ROCA_PRIMES = (3, 5, 7, 11, 13, 17, 19, 23, 29, 31, 37, 41, 43, 47, 53, 59, 61, 67, 71, 73, 79, 83, 89, 97,
                101, 103, 107, 109, 113, 127, 131, 137, 139, 149, 151, 157, 163, 167)  # fmt: skip


@dataclass(frozen=True, slots=True)
class Signed:
    """What a genuine token says. `kid` names the key that signed it, "" for one without a name."""

    header: Mapping[str, Any]
    payload: bytes
    kid: str

    def claims(self) -> dict[str, Any]:
        """The payload as a JSON object. Raises Unauthenticated for any other."""
        found = _object(self.payload)
        if found is None:
            raise _refused("the payload is no JSON object")
        return found


@dataclass(frozen=True, slots=True)
class _Verifying:
    kid: str
    key: Key
    algorithms: frozenset[str]


class KeySet:
    """The keys of one party, each with the algorithms that it may be used with."""

    def __init__(self, keys: Iterable[_Verifying]) -> None:
        """Use `read`."""
        self._keys = tuple(keys)
        self.kids = frozenset(key.kid for key in self._keys)

    @classmethod
    def read(cls, document: Any, *, algorithms: Iterable[str]) -> KeySet:
        """The usable keys of a JWK set. Raises Broken for a set that cannot be meant.

        Keys for other purposes or other algorithms are left out; one that is weak or damaged too, since the
        others of its set still hold.
        """
        entries = document.get("keys") if isinstance(document, dict) else None
        if not isinstance(entries, list) or len(entries) > MAX_KEYS:
            raise Broken("That is no set of keys.", cause="no list `keys`, or too long")
        allowed = frozenset(algorithms)
        symmetric = allowed <= _SECRET_BYTES.keys()
        found: list[_Verifying] = []
        for entry in entries:
            if not isinstance(entry, dict):
                raise Broken("That is no set of keys.", cause="a key is no object")
            if (entry.get("kty") == "oct") is not symmetric or (not symmetric and "d" in entry):
                raise Broken("The set of keys gives secrets away.", cause="a private or symmetric key")
            key = _usable(entry, allowed)
            if key is not None:
                found.append(key)
        signing = [entry["kid"] for entry in entries if "kid" in entry and entry.get("use", "sig") == "sig"]
        if any(signing.count(kid) > 1 for kid in signing):
            raise Broken("The set of keys is ambiguous.", cause="one kid twice")
        return cls(found)

    def verify(self, token: str) -> Signed:
        """The header and payload of a genuine token. Raises Unauthenticated for every other text."""
        header = header_of(token)
        fitting = [key for key in self._keys if self._fits(key, header)]
        if len(fitting) != 1:
            raise _refused("no key, or more than one, fits the header")
        algorithm = header["alg"]
        try:
            signed = jws.deserialize_compact(
                token,
                fitting[0].key,
                algorithms=[algorithm],
                registry=_Pinned(algorithms=[algorithm], strict_check_header=False),
            )
        except (JoseError, ValueError, TypeError) as error:
            raise _refused(repr(error)) from error
        return Signed(header, signed.payload or b"", fitting[0].kid)

    @staticmethod
    def _fits(key: _Verifying, header: Mapping[str, Any]) -> bool:
        """A token that names a key is checked with that one; one without a name needs the only key."""
        named = header.get("kid")
        return header["alg"] in key.algorithms and (named is None or named == key.kid)


class _Pinned(jws.JWSRegistry):
    """Knows the one algorithm, also EdDSA, of whose name the library warns since RFC 9864."""

    def get_alg(self, name: str) -> Any:
        if name not in (self.allowed or ()):
            raise UnsupportedAlgorithmError(name)
        return self.algorithms[name]


def header_of(token: str) -> dict[str, Any]:
    """The header of a compact JWS, unverified, when it can be one of a genuine token.

    Raises Unauthenticated for another form, for an encoding that is not the one canonical one, and for a
    header that makes something critical (`crit`) or leaves the payload out (RFC 7797).
    """
    parts = _COMPACT.fullmatch(token)
    if parts is None or not all(_canonical(part) for part in parts.groups()):
        raise _refused("no compact JWS")
    header = _object(urlsafe_b64decode(parts[1].encode()))
    if header is None or not isinstance(header.get("alg"), str) or {"crit", "b64"} & header.keys():
        raise _refused("malformed header")
    if not isinstance(header.get("kid", ""), str):
        raise _refused("malformed kid")
    return header


def unverified_claims(token: str) -> dict[str, Any]:
    """The payload of something that looks like a token, before any check; {} when there is none to read."""
    parts = _LOOKS_LIKE_ONE.fullmatch(token)
    if parts is None or not _canonical(parts[1]):
        return {}
    return _object(urlsafe_b64decode(parts[1].encode())) or {}


def _usable(entry: dict[str, Any], allowed: frozenset[str]) -> _Verifying | None:
    operations = entry.get("key_ops", ["verify"])
    if entry.get("use", "sig") != "sig" or not isinstance(operations, list) or "verify" not in operations:
        return None
    kid = entry.get("kid", "")
    modulus = entry.get("n", "")
    if not isinstance(kid, str) or (modulus and len(str(modulus)) < MIN_RSA_BITS // 6):
        return None
    try:
        key = JWKRegistry.import_key({name: value for name, value in entry.items() if name != "key_ops"})
        algorithms = _algorithms(key)
    except (JoseError, ValueError, TypeError, KeyError, AttributeError):
        return None
    if "alg" in entry:
        algorithms &= {entry["alg"]} if isinstance(entry["alg"], str) else set()
    algorithms &= allowed
    return _Verifying(kid, key, algorithms) if algorithms else None


def _algorithms(key: Key) -> frozenset[str]:
    """What a key of this type and strength is good for."""
    match key:
        case RSAKey():
            return _rsa(key.public_key)
        case ECKey():
            return frozenset(name for name, curve in _CURVES.items() if curve == key.curve_name)
        case OKPKey():
            return frozenset({"EdDSA", "Ed25519"} if key.curve_name == "Ed25519" else ())
        case OctKey():
            return frozenset(name for name, size in _SECRET_BYTES.items() if len(key.raw_value) >= size)


def _rsa(key: RSAPublicKey) -> frozenset[str]:
    numbers = key.public_numbers()
    strong = MIN_RSA_BITS <= key.key_size <= MAX_RSA_BITS and numbers.e >= 65537 and numbers.e % 2
    if not strong or _predictable(numbers.n):
        return frozenset()
    return frozenset(f"{family}{size}" for family in ("RS", "PS") for size in (256, 384, 512))


def _predictable(modulus: int) -> bool:
    return all(modulus % prime in _POWERS[prime] for prime in _ROCA_PRIMES)


_POWERS = {prime: {pow(65537, exponent, prime) for exponent in range(prime)} for prime in _ROCA_PRIMES}


def _canonical(part: str) -> bool:
    """Whether base64url without padding spells these bytes in the only way (RFC 4648 section 3.5)."""
    if len(part) % 4 == 1:
        return False
    spare = {2: 0b1111, 3: 0b11}.get(len(part) % 4, 0)
    return not part or not _ALPHABET.index(part[-1]) & spare


_ALPHABET = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_"


def _object(data: bytes) -> dict[str, Any] | None:
    """A JSON object that says nothing twice."""

    def once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        found = dict(pairs)
        if len(found) != len(pairs):
            raise ValueError("a member stands twice")
        return found

    try:
        found = json.loads(data, object_pairs_hook=once)
    except (ValueError, RecursionError):
        return None
    return found if isinstance(found, dict) else None


def _refused(cause: str) -> Counterfeit:
    return Counterfeit("The token does not hold.", hint="Sign in again.", cause=cause)
