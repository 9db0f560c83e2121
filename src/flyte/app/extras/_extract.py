"""From the headers of a request to the pairs that name its caller. What does not fit names nobody."""

from __future__ import annotations

import functools
import inspect
import logging
from collections.abc import Awaitable, Callable, Iterable, Sequence
from types import FunctionType, MethodType
from typing import Any, TypeAlias

from starlette.requests import Request

from flyte.transport.credentials import check_pairs

from ._refusal import Refusal

log = logging.getLogger("flyte.app")

Pair: TypeAlias = tuple[str, str]
HeaderExtractor: TypeAlias = Callable[[Request], Pair | None] | Callable[[Request], Awaitable[Pair | None]]
"""Takes the request and returns `(header name, value)`, or None when the request has no such credential.
It may be a coroutine function; it may not read the body."""

SESSION_COOKIES = ("__Host-tower_session", "tower_session")
"""The platform's session cookie over TLS, and on plain HTTP on loopback."""

MAX_VALUE = 16 * 1024
"""Characters of one credential. Longer values name nobody."""

_SCHEME_ALONE = frozenset({"bearer", "basic", "digest", "dpop", "token"})


@functools.lru_cache(maxsize=256)
def _may_travel(name: str) -> bool:
    """Whether a lower-case name may carry a credential: the rule of `auth_metadata`, asked once a name."""
    try:
        check_pairs(((name, "x"),))
    except ValueError:
        return False
    return True


def checked(pair: object) -> Pair | None:
    """The pair with its name in lower case and its value trimmed, or None when it cannot name anybody.

    Refused are: anything but a tuple of two strings, names that `auth_metadata` refuses (W7), and values that
    are empty, too long, hold control or non-ASCII characters, or are a scheme with nothing behind it.
    """
    if not isinstance(pair, tuple) or len(pair) != 2:
        return None
    name, value = pair
    if not isinstance(name, str) or not isinstance(value, str):
        return None
    name, value = name.lower(), value.strip()
    if len(name) > 128 or not _may_travel(name) or not _names_somebody(name, value):
        return None
    return name, value


def _names_somebody(name: str, value: str) -> bool:
    if not value or len(value) > MAX_VALUE or not value.isascii() or not value.isprintable():
        return False
    return name != "authorization" or " " in value or value.lower() not in _SCHEME_ALONE


class NamedHeader:
    """The extractor of one header by name. The middleware reads it without building a Request."""

    __slots__ = ("name", "raw")

    def __init__(self, name: str) -> None:
        check_pairs(((name, "x"),))
        self.name = name.lower()
        self.raw = self.name.encode("ascii")

    def __call__(self, request: Request) -> Pair | None:
        value = request.headers.get(self.name, "").strip()
        return (self.name, value) if value else None

    def read(self, raw: bytes) -> Pair | None:
        """The checked pair of a raw value of this header."""
        value = raw.decode("latin-1").strip()
        return (self.name, value) if _names_somebody(self.name, value) else None

    def __repr__(self) -> str:
        return f"extract_custom_header({self.name!r})"


def named_cookies(header: str, names: frozenset[str]) -> str:
    """The cookies of a Cookie header that have one of the names, as a Cookie header; "" for none.

    A name that comes twice with two values is ambiguous (a sibling host may have planted one): Refusal 400.
    `__Host-tower_session` cannot be planted, so beside it `tower_session` is left out.
    """
    found: dict[str, str] = {}
    for part in header.split(";"):
        name, equals, value = part.strip().partition("=")
        if not equals or not value or name not in names:
            continue
        if found.setdefault(name, value) != value:
            raise Refusal.ambiguous(f"cookie {name}")
    if SESSION_COOKIES[0] in found:
        found.pop(SESSION_COOKIES[1], None)
    return "; ".join(f"{name}={value}" for name, value in found.items())


def describe(extractor: object) -> str:
    """A name for the log. Runs no code of the extractor: a callable instance may have no `__name__`."""
    while isinstance(extractor, functools.partial):
        extractor = extractor.func
    if isinstance(extractor, FunctionType | MethodType):
        return extractor.__qualname__
    return type(extractor).__qualname__


class Lift:
    """Lifts the credentials out of an ASGI scope, by a fixed list of extractors.

    :param extractors: in the order in which the pairs are forwarded.
    :param forward_cookies: names of the cookies to keep in a `cookie` pair, or None for all of them.
    """

    def __init__(
        self, extractors: Sequence[HeaderExtractor | NamedHeader], forward_cookies: Iterable[str] | None
    ) -> None:
        self._steps = tuple(extractors)
        self._cookies = None if forward_cookies is None else frozenset(forward_cookies)
        # Authorization is watched even when nobody lifts it: an extractor of the app may read it.
        self._named = {step.raw: step for step in self._steps if isinstance(step, NamedHeader)}
        self._watched = frozenset({*self._named, b"authorization"})

    @property
    def asks_nobody(self) -> bool:
        """Whether `at_once` can answer: no extractor is code of the app."""
        return len(self._named) == len(self._steps)

    def at_once(self, scope: Any) -> tuple[Pair, ...]:
        """What `pairs` answers, without a coroutine. Nearly every request has one such header, or none."""
        watched = self._watched
        found: tuple[bytes, bytes] | None = None
        for header in scope["headers"]:
            if header[0] in watched:
                if found is not None or header[0] == b"cookie":
                    return self._several(scope)
                found = header
        if found is None or found[0] not in self._named:
            return ()
        pair = self._named[found[0]].read(found[1])
        return () if pair is None else (pair,)

    def _several(self, scope: Any) -> tuple[Pair, ...]:
        raw = self._watched_headers(scope)
        lifted: dict[str, str] = {}
        for name, step in self._named.items():
            self._add(lifted, step.read(raw.get(name, b"")))
        return tuple(lifted.items())

    async def pairs(self, scope: Any) -> tuple[Pair, ...]:
        """The valid pairs, in order, without repetition; empty when nobody is named.

        :raises Refusal: 400 when a header of a credential comes twice, or two extractors give two values
            for one name: which person is meant cannot be known.
        """
        raw = self._watched_headers(scope)
        lifted: dict[str, str] = {}
        for step in self._steps:
            if isinstance(step, NamedHeader):
                self._add(lifted, step.read(raw.get(step.raw, b"")))
            else:
                self._add(lifted, await self._ask(step, scope))
        return tuple(lifted.items())

    def _add(self, lifted: dict[str, str], pair: Pair | None) -> None:
        if pair is not None and pair[0] == "cookie" and self._cookies is not None:
            pair = checked(("cookie", named_cookies(pair[1], self._cookies)))
        if pair is not None and lifted.setdefault(pair[0], pair[1]) != pair[1]:
            raise Refusal.ambiguous(pair[0])

    def _watched_headers(self, scope: Any) -> dict[bytes, bytes]:
        watched = self._watched
        raw: dict[bytes, bytes] = {}
        for name, value in scope["headers"]:
            if name in watched:
                if name not in raw:
                    raw[name] = value
                elif name == b"cookie":  # RFC 9113 section 8.2.3: the parts of one Cookie header
                    raw[name] += b"; " + value
                else:
                    raise Refusal.ambiguous(name.decode("ascii"))
        return raw

    async def _ask(self, extractor: HeaderExtractor, scope: Any) -> Pair | None:
        """What an extractor of the app says. One that fails says nothing; its values reach no log."""
        try:
            answer: object = extractor(_request(scope))
            if inspect.isawaitable(answer):
                answer = await answer
        except Refusal:
            raise
        except Exception as error:  # noqa: BLE001 - code of the app; whatever it raises names nobody
            log.warning("header extractor %s raised %s; skipped", describe(extractor), type(error).__name__)
            return None
        if answer is None:
            return None
        pair = checked(answer)
        if pair is None:
            log.warning("header extractor %s gave no usable (name, value); skipped", describe(extractor))
        return pair


def _request(scope: Any) -> Request:
    """A request without its body. A websocket handshake is a GET, and shown as one."""
    if scope["type"] == "websocket":
        scheme = {"ws": "http", "wss": "https"}.get(scope.get("scheme", "ws"), "http")
        scope = {**scope, "type": "http", "method": "GET", "scheme": scheme}
    return Request(scope)
