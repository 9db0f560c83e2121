"""A login as the credential of a session: refreshed before it ends, by one process or thread at a time."""

from __future__ import annotations

import asyncio

from flyte._config import Endpoint
from flyte.errors import UnauthenticatedError
from flyte.transport.credentials import Header, Mode, digest, refuse_caller_metadata
from flyte.transport.login.cache import Entry, LoginCache

EARLY_SECONDS = 30.0
"""How long before its end an access token is replaced."""


class Login:
    """What `flyte login` kept for one control plane."""

    mode: Mode = "login"

    def __init__(self, entry: Entry, *, endpoint: Endpoint, cache: LoginCache, ca_file: str | None) -> None:
        self._entry: Entry | None = entry
        self._subject = entry.subject
        self._endpoint = endpoint
        self._cache = cache
        self._ca_file = ca_file

    def headers(self) -> tuple[Header, ...]:
        """The access token, or the key that was kept. Raises UnauthenticatedError once logged out."""
        refuse_caller_metadata()
        if self._entry is None:
            raise self._ended()
        return ((b"authorization", b"Bearer " + self._entry.bearer.encode("ascii")),)

    def fingerprint(self) -> str:
        """Equal for all tokens of one person at one control plane."""
        return digest("login", self._endpoint.url, self._subject)

    async def ready(self) -> None:
        """See to it that the token holds for a moment. Raises UnauthenticatedError for an ended login."""
        if self._entry is None or not self._entry.fresh(EARLY_SECONDS):
            await self._renew(self._entry)

    async def renew(self) -> bool:
        """After the server refused the token: whether there is another one to try."""
        refused = self._entry
        if refused is None or refused.key:
            return False
        await self._renew(refused)
        return self._entry is not None and self._entry.bearer != refused.bearer

    async def _renew(self, held: Entry | None) -> None:
        """Take what another process has refreshed meanwhile, else refresh."""
        # on a loop of its own: the lock blocks, and sessions are used on several loops
        self._entry = await asyncio.to_thread(lambda: asyncio.run(self._exchange(held)))
        if self._entry is None:
            raise self._ended()

    async def _exchange(self, held: Entry | None) -> Entry | None:
        from flyte.transport.login.server import AuthServer

        with self._cache.locked():
            entry = self._cache.find(self._endpoint)
            if entry is None or entry.subject != self._subject:
                return None  # logged out, or somebody else logged in: this session was another person's
            changed = held is None or entry.bearer != held.bearer
            if entry.key or (changed and entry.fresh(EARLY_SECONDS)):
                return entry
            server = AuthServer(self._endpoint, ca_file=self._ca_file)
            try:
                entry = await server.refresh(entry)
            except UnauthenticatedError:
                self._cache.remove(self._endpoint)
                raise
            finally:
                await server.aclose()
            self._cache.put(entry)
            return entry

    def _ended(self) -> UnauthenticatedError:
        return UnauthenticatedError(
            f"The login of {self._subject} at {self._endpoint} has ended, so nothing was sent.",
            hint="Sign in again: flyte login.",
        )

    def __repr__(self) -> str:
        return f"<Login {self._subject} at {self._endpoint}>"


def find(endpoint: Endpoint, *, ca_file: str | None) -> Login | None:
    """The login that this machine's user has at this very endpoint. Raises LoginCacheError."""
    cache = LoginCache()
    entry = cache.find(endpoint)
    return None if entry is None else Login(entry, endpoint=endpoint, cache=cache, ca_file=ca_file)
