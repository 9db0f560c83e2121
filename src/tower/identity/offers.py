"""What a request offers as proof of its caller: read from its headers once, strictly."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from enum import StrEnum
from functools import lru_cache
from typing import Literal

from tower.errors import Counterfeit, Unauthenticated
from tower.identity import sessions
from tower.identity.workload import Workload, WorkloadKind

Audience = Literal["rpc", "gateway", "console", "rest", "start"]
"""The door that a credential is shown at; "start" is the one route of the REST door for apps themselves."""

MAX_CREDENTIAL = 8192
KEY_HEADERS = ("x-api-key", "x-flyte-token")

_NAMING = {name.encode(): name for name in ("authorization", "cookie", *KEY_HEADERS)}
_USUAL_NAMES = 1024
_TOKEN = re.compile(r"[A-Za-z0-9._~+/-]+=*")  # RFC 6750 section 2.1, b64token


@dataclass(slots=True)  # not frozen, and neither is the next: that would cost a microsecond at each call
class Presented:
    """One request as a door saw it: never change one.

    `headers` as in the ASGI scope; `workload` only where the kernel attested a socket of Tower's own;
    `secure` is TLS on the public listener; `host` is the Host header, lower case, port included; `client` is
    the address of the connection, never that of a forwarding header (T11).
    """

    headers: tuple[tuple[bytes, bytes], ...] = field(repr=False)
    workload: Workload | None = None
    secure: bool = False
    host: str = ""
    audience: Audience = "rpc"
    client: str = ""

    @property
    def source(self) -> str:
        """Who failures are counted for: the workload on its socket, else the address of the connection."""
        return self.client if self.workload is None else f"{self.workload.kind}:{self.workload.id}"


class Source(StrEnum):
    """Where in the request an offer stood."""

    SOCKET = "socket"
    AUTHORIZATION = "authorization"
    KEY_HEADER = "key-header"
    COOKIE = "cookie"


@dataclass(slots=True)
class Offer:
    """One credential, unverified. The value never shows in a repr; it is "" for a socket."""

    source: Source
    value: str = field(repr=False)


def read(presented: Presented) -> tuple[Offer, ...]:
    """Every credential in the request, the strongest place first.

    Only the headers named here can name a caller; a forwarded-user header of a proxy is never read (T11).
    Raises Unauthenticated for a repeated, folded, foreign-scheme or malformed one: whoever sent it meant to
    be authenticated, and guessing which part counts is how requests get smuggled (T21).
    """
    headers, workload = presented.headers, presented.workload
    naming = _naming(tuple([name for name, _ in headers]))
    if workload is None and len(naming) == 1 and naming[0][1] == "authorization":
        return (Offer(Source.AUTHORIZATION, _bearer(headers[naming[0][0]][1].decode("latin-1").strip())),)
    found: dict[str, list[str]] = {}
    for place, name in naming:
        found.setdefault(name, []).append(headers[place][1].decode("latin-1").strip())

    offers: list[Offer] = []
    if workload is not None and (workload.kind is not WorkloadKind.APP or presented.audience == "start"):
        offers.append(Offer(Source.SOCKET, ""))
    if (value := _single("authorization", found)) is not None:
        offers.append(Offer(Source.AUTHORIZATION, _bearer(value)))
    offers += [
        Offer(Source.KEY_HEADER, _token(name, value))
        for name in KEY_HEADERS
        if (value := _single(name, found)) is not None
    ]
    cookies = found.get("cookie")
    if cookies and (value := sessions.from_cookies(cookies, secure=presented.secure)) is not None:
        offers.append(Offer(Source.COOKIE, value))
    return tuple(offers)


def _naming(names: tuple[bytes, ...]) -> tuple[tuple[int, str], ...]:
    """Which of these headers can name a caller: their places, and their names in lower case."""
    # a client sends the same ones again and again; what is long is not worth the memory
    return _remembered(names) if len(b"".join(names)) <= _USUAL_NAMES else _find(names)


def _find(names: tuple[bytes, ...]) -> tuple[tuple[int, str], ...]:
    found = ((place, _NAMING.get(raw.lower())) for place, raw in enumerate(names))
    return tuple((place, name) for place, name in found if name is not None)


_remembered = lru_cache(maxsize=1024)(_find)


def _single(name: str, found: dict[str, list[str]]) -> str | None:
    values = found.get(name)
    if values is None:
        return None
    if len(values) > 1:
        raise Unauthenticated(f"The header {name} came more than once.", hint="Send it once.")
    return values[0]


def _bearer(value: str) -> str:
    scheme, _, token = value.partition(" ")
    if scheme.lower() != "bearer":
        raise Unauthenticated(
            "The authorization header does not carry a bearer credential.", hint="Send 'Bearer <API key>'."
        )
    return _token("authorization", token.strip(" "))


def _token(name: str, value: str) -> str:
    if len(value) > MAX_CREDENTIAL or not _TOKEN.fullmatch(value):
        raise Counterfeit(
            f"The credential in the header {name} is malformed.", hint="Send the key as it was made."
        )
    return value
