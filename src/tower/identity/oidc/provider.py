"""One identity provider as Tower knows it: its metadata and its keys, fetched seldom and kept.

Whoever sends bad tokens causes no traffic: the keys are asked for again at most once in `REFETCH_SECONDS`,
one request at a time, and only for a token that is otherwise in order (T45). While the provider does not
answer, the keys that are known go on to hold.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

from tower.clock import Clock
from tower.errors import Broken, Fault, Unauthenticated
from tower.identity.jose import KeySet, Signed, header_of
from tower.identity.oidc import fetch
from tower.issuers import IssuerSettings, safe_url

REFETCH_SECONDS = 15.0
"""Between two requests for the same document, whether the first one went well or not."""

FRESH_SECONDS = 600.0
"""After this the keys are asked for again: one that the provider took back is not believed for longer."""

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Metadata:
    """What a provider says of itself (OpenID Connect Discovery section 3); "" for what it does not offer."""

    issuer: str
    jwks_uri: str
    authorization_endpoint: str
    token_endpoint: str
    userinfo_endpoint: str
    says_issuer: bool
    """Whether its answers to a browser carry its name (RFC 9207)."""
    basic: bool
    """Whether a client shows its secret in a header rather than in the form."""


class Provider:
    """One per issuer and process."""

    def __init__(self, settings: IssuerSettings, *, clock: Clock) -> None:
        self.settings = settings
        self._metadata = _Kept(self._discover, clock=clock)
        self._keys = _Kept(self._fetch_keys, clock=clock)

    async def metadata(self) -> Metadata:
        """The provider's endpoints. Raises Unavailable while they cannot be had."""
        return await self._metadata.get()

    async def verify(self, token: str) -> Signed:
        """A token that this provider signed. Raises Unauthenticated, Unavailable while there are no keys."""
        header = header_of(token)
        if header["alg"] not in self.settings.algorithms:
            raise Unauthenticated(
                "The token does not hold.", hint="Sign in again.", cause="foreign algorithm"
            )
        keys = await self._keys.get()
        if header.get("kid", "") not in keys.kids:
            keys = await self._keys.again()
        return keys.verify(token)

    def knows(self, kid: str) -> bool:
        """Whether the key of this name is still one of the provider's, as far as is known."""
        keys = self._keys.value
        return keys is not None and kid in keys.kids

    async def refresh(self) -> None:
        """Ask for the keys again when they are old."""
        await self._keys.get()

    async def _discover(self) -> Metadata:
        wanted = self.settings.issuer
        found = await fetch.get(wanted.rstrip("/") + "/.well-known/openid-configuration")
        if found.get("issuer") != wanted:
            raise fetch.unavailable(f"{wanted} calls itself {str(found.get('issuer'))[:200]}")
        plain = not wanted.startswith("https:")

        def endpoint(name: str, *, needed: bool = True) -> str:
            url = found.get(name, "")
            if not needed and not url:
                return ""
            if not isinstance(url, str) or not safe_url(url, plain=plain):
                raise fetch.unavailable(f"{wanted}: {name} is missing or not safe")
            return url

        methods = found.get("token_endpoint_auth_methods_supported", ["client_secret_basic"])
        return Metadata(
            issuer=wanted,
            jwks_uri=endpoint("jwks_uri"),
            authorization_endpoint=endpoint("authorization_endpoint", needed=bool(self.settings.client_id)),
            token_endpoint=endpoint("token_endpoint", needed=bool(self.settings.client_id)),
            userinfo_endpoint=endpoint("userinfo_endpoint", needed=False),
            says_issuer=found.get("authorization_response_iss_parameter_supported") is True,
            basic=not isinstance(methods, list) or "client_secret_basic" in methods,
        )

    async def _fetch_keys(self) -> KeySet:
        document: Any = await fetch.get((await self.metadata()).jwks_uri)
        try:
            return KeySet.read(document, algorithms=self.settings.algorithms)
        except Broken as error:
            raise fetch.unavailable(f"{self.settings.issuer}: {error.cause}") from error


class _Kept(Generic[T]):
    """A document that is fetched when it is needed, one request at a time, and kept when that fails."""

    def __init__(self, load: Callable[[], Awaitable[T]], *, clock: Clock) -> None:
        self._load = load
        self._clock = clock
        self._lock = asyncio.Lock()
        self._asked: float | None = None
        self._failed: Fault | None = None
        self._loaded_at = 0.0
        self.value: T | None = None

    async def get(self) -> T:
        """The document, fetched when there is none or it is old."""
        fresh = 0 <= self._clock.now() - self._loaded_at < FRESH_SECONDS
        if self.value is not None and (fresh or self._lock.locked()):
            return self.value  # one caller asks again, nobody else waits for that
        return await self.again()

    async def again(self) -> T:
        """The document, fetched anew unless that was tried a moment ago."""
        seen = self._asked
        async with self._lock:
            now = self._clock.now()
            waited = self._asked is not None and self._asked != seen  # somebody asked while we waited
            if not waited and (self._asked is None or not 0 <= now - self._asked < REFETCH_SECONDS):
                self._asked = now
                try:
                    self.value = await self._load()
                    self._loaded_at = now
                    self._failed = None
                except Fault as fault:
                    self._failed = fault
        if self.value is None:
            raise fetch.unavailable(self._failed.cause if self._failed is not None else "not fetched yet")
        return self.value
