"""Signing in to the console at an identity provider: the buttons, and both ends of the way."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from tower.control.externals import Externals
from tower.control.logins import SignedIn
from tower.errors import NotFound
from tower.identity.oidc.codeflow import FLOW_SECONDS, Begun, CodeFlow
from tower.identity.oidc.provider import Provider

__all__ = ["FLOW_SECONDS", "Begun", "Federation", "Offered"]


@dataclass(frozen=True, slots=True)
class Offered:
    """One button on the sign-in page."""

    alias: str
    label: str


class Federation:
    """The providers that people can sign in with; one without a client id serves programs only."""

    def __init__(self, *, providers: Iterable[Provider], flow: CodeFlow, externals: Externals) -> None:
        self._providers = {each.settings.alias: each for each in providers if each.settings.client_id}
        self._flow = flow
        self._externals = externals
        self.offered = tuple(
            Offered(alias, provider.settings.shown) for alias, provider in self._providers.items()
        )

    async def begin(self, alias: str, *, redirect_uri: str) -> Begun:
        """Where to send the browser. Raises NotFound, Unavailable."""
        return await self._flow.begin(self._provider(alias), redirect_uri=redirect_uri)

    async def finish(
        self,
        alias: str,
        answer: Mapping[str, str],
        *,
        flow: str,
        redirect_uri: str,
        host: str,
        request_id: str = "",
    ) -> SignedIn:
        """A session for whom the provider named. Raises NotFound, Denied, Unauthenticated, Unavailable."""
        person = await self._flow.finish(self._provider(alias), answer, flow=flow, redirect_uri=redirect_uri)
        return await self._externals.sign_in(person, host=host, request_id=request_id)

    def _provider(self, alias: str) -> Provider:
        found = self._providers.get(alias)
        if found is None:
            raise NotFound("There is no such identity provider.")
        return found
