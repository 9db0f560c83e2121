"""Who a request is made as. Each kind gives the headers that say so, or refuses before anything is sent.

There is no falling back from one kind to another.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import secrets
from dataclasses import dataclass, field
from typing import Final, Literal, NoReturn, Protocol, SupportsIndex, runtime_checkable

from flyte import _context
from flyte.errors import InitializationError, MissingCallerError, UnauthenticatedError

Mode = Literal["passthrough", "api_key", "login", "workload", "anonymous"]
Header = tuple[bytes, bytes]

_RESERVED: Final = frozenset(
    {
        "x-request-id",
        "x-flyte-agent",
        "x-real-ip",
        "x-original-url",
        "x-rewrite-url",
        "x-http-method-override",
        "x-http-method",
        "x-method-override",
    }
)
_TOKEN: Final = frozenset("!#$%&'*+-.^_`|~0123456789abcdefghijklmnopqrstuvwxyz")
_MAX_VALUE: Final = 16 * 1024
_SALT: Final = secrets.token_bytes(32)


class Credentials(Protocol):
    """Names the caller of each request."""

    @property
    def mode(self) -> Mode: ...

    def headers(self) -> tuple[Header, ...]:
        """The headers that name the caller of this moment. Raises UnauthenticatedError."""

    def fingerprint(self) -> str:
        """Equal for equal credentials in this process, and of no use to anybody else. Keys of caches use it.

        Raises like `headers`.
        """


@runtime_checkable
class Renewable(Credentials, Protocol):
    """A credential that ends within minutes and can be had anew."""

    async def ready(self) -> None:
        """See to it that it holds for a moment. Before `headers`. Raises UnauthenticatedError."""

    async def renew(self) -> bool:
        """After the server refused it: whether there is another one to try. Raises UnauthenticatedError."""


def check_pairs(pairs: tuple[tuple[str, str], ...]) -> _context.Pairs:
    """Check caller metadata and bring its names to lower case.

    Allowed are `authorization`, `cookie` and `x-*`, save what the protocol and proxies use for themselves.
    Raises ValueError, and MissingCallerError for a value that is None or empty.
    """
    if not pairs:
        raise ValueError("auth_metadata needs at least one (name, value) pair.")
    checked: dict[str, str] = {}
    for pair in pairs:
        if not isinstance(pair, tuple) or len(pair) != 2:
            raise ValueError("Caller metadata is made of (name, value) tuples.")
        name, value = pair
        lowered = _checked_name(name)
        if lowered in checked:
            raise ValueError(f"The header {lowered} is given twice.")
        checked[lowered] = _checked_value(lowered, value)
    return tuple(checked.items())


def _checked_name(name: object) -> str:
    if not isinstance(name, str) or not name:
        raise ValueError("The name of a header is a text that is not empty.")
    lowered = name.lower()
    if not set(lowered) <= _TOKEN:
        raise ValueError("The name of a header has characters that no header may have.")
    allowed = lowered in ("authorization", "cookie") or lowered.startswith("x-")
    if not allowed or lowered in _RESERVED or lowered.startswith(("x-forwarded-", "x-envoy-", "x-tower")):
        raise ValueError(f"The header {lowered} may not be set by caller metadata.")
    return lowered


def _checked_value(name: str, value: object) -> str:
    if value is None or value == "":
        raise MissingCallerError(
            f"The caller sent no {name} header, so there is nobody to make this call as."
        )
    if not isinstance(value, str):
        raise ValueError(f"The value of {name} is not a text.")
    stripped = value.strip(" \t")
    if not stripped:
        raise MissingCallerError(f"The caller sent an empty {name} header.")
    if len(stripped) > _MAX_VALUE:
        raise ValueError(f"The value of {name} is longer than {_MAX_VALUE} characters.")
    if not all(
        " " <= character <= "\xff" and character != "\x7f" for character in stripped.replace("\t", " ")
    ):
        raise ValueError(f"The value of {name} has characters that no header may have.")
    return stripped


def digest(kind: str, *parts: str) -> str:
    """A fingerprint of these parts that is worth nothing outside this process."""
    hasher = hashlib.blake2b(key=_SALT, digest_size=16)
    for part in (kind, *parts):
        encoded = part.encode("utf-8", "surrogatepass")
        hasher.update(len(encoded).to_bytes(8, "big"))
        hasher.update(encoded)
    return hasher.hexdigest()


class Unwritten:
    """What holds a credential and is neither copied nor pickled: nothing keeps it by accident."""

    __slots__ = ()

    def __reduce_ex__(self, protocol: SupportsIndex, /) -> NoReturn:
        raise TypeError(f"{type(self).__name__} holds a credential, which is not written down.")


@dataclass(frozen=True, slots=True)
class Static(Unwritten):
    """One API key, for every call of the session."""

    key: str = field(repr=False)
    mode: Mode = "api_key"

    def headers(self) -> tuple[Header, ...]:
        refuse_caller_metadata()
        return ((b"authorization", b"Bearer " + self.key.encode("ascii")),)

    def fingerprint(self) -> str:
        return digest("api_key", self.key)


@dataclass(frozen=True, slots=True)
class Passthrough:
    """The caller metadata in force: whoever asked this process is who this process asks as."""

    mode: Mode = "passthrough"

    def headers(self) -> tuple[Header, ...]:
        return tuple((name.encode("ascii"), value.encode("latin-1")) for name, value in self._pairs())

    def fingerprint(self) -> str:
        return digest("passthrough", *(part for pair in sorted(self._pairs()) for part in pair))

    @staticmethod
    def _pairs() -> _context.Pairs:
        pairs = _context.caller()
        if not pairs:
            raise MissingCallerError
        return pairs


@dataclass(frozen=True, slots=True)
class Workload:
    """The socket of a task's attempt is the credential: the kernel says who is at its other end."""

    identity: str
    mode: Mode = "workload"

    def headers(self) -> tuple[Header, ...]:
        refuse_caller_metadata()
        return ()

    def fingerprint(self) -> str:
        return digest("workload", self.identity)


@dataclass(frozen=True, slots=True)
class Nobody:
    """A session without a credential: it can be made, and no call can be made with it."""

    mode: Mode = "anonymous"

    def headers(self) -> tuple[Header, ...]:
        raise UnauthenticatedError(
            "This session has no credential, so nothing was sent.",
            hint="Sign in with `flyte login`, set FLYTE_API_KEY, or pass api_key=... to flyte.init.",
        )

    def fingerprint(self) -> str:
        return digest("anonymous")


def refuse_caller_metadata() -> None:
    """Caller metadata with a session that has an identity of its own is a mistake, and a dangerous one.

    The code says "as this caller"; the session would make the call as somebody else. Raises
    InitializationError.
    """
    if _context.caller():
        raise InitializationError(
            "Caller metadata is in force, but this session does not pass callers through.",
            hint="Initialise with flyte.init_passthrough(...). Nothing was sent.",
        )


@dataclass(frozen=True, slots=True)
class ApiKey(Unwritten):
    """An API key as it was handed over.

    :ivar bearer: what is sent.
    :ivar endpoint: the endpoint inside a key of the Flyte form, else None.
    :ivar org: the organisation inside, else None.
    """

    bearer: str = field(repr=False)
    endpoint: str | None = None
    org: str | None = None

    @classmethod
    def parse(cls, text: str) -> ApiKey:
        """Read `twr_<id>_<secret>`, or base64 of `endpoint:id:secret:org`. Raises InitializationError."""
        key = text.strip()
        if not key or not key.isascii() or not key.isprintable() or " " in key or len(key) > 4096:
            raise InitializationError("The API key is empty or has characters that no key has.")
        if key.startswith("twr_"):
            return cls(key)
        try:
            plain = base64.b64decode(key + "=" * (-len(key) % 4), validate=True).decode("utf-8")
        except (binascii.Error, UnicodeDecodeError):
            plain = ""
        # From the right, because an endpoint may have a port or a scheme with colons of its own.
        parts = plain.rsplit(":", 3)
        if len(parts) != 4 or not all(parts[:3]):
            return cls(key)
        return cls(key, endpoint=parts[0], org=None if parts[3] in ("", "None") else parts[3])
