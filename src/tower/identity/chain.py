"""The chain of authenticators: each says not mine, yes or no, and a no is final."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from typing import Protocol

from tower.errors import Unauthenticated
from tower.identity import offers
from tower.identity.offers import Audience, Offer, Presented
from tower.identity.principal import Principal
from tower.identity.workload import WorkloadKind

__all__ = ["Audience", "Authenticator", "Chain", "NoCredential", "Presented", "Report"]


class NoCredential(Unauthenticated):
    """Nothing in the request names a caller. A door that also serves anonymous people may catch this one."""


class Authenticator(Protocol):
    """One way of showing who is calling."""

    async def authenticate(self, offer: Offer, presented: Presented) -> Principal | None:
        """None: not mine. A principal: yes. Raises Unauthenticated: mine, and it does not hold."""


Report = Callable[[Sequence[Principal], Presented], Awaitable[None]]
"""Told when the credentials of one request name different callers."""


class Chain:
    """Names the caller of a request.

    Every credential offered must be claimed by exactly one authenticator and hold: there is no falling
    through to a weaker one or to anonymous. Several may name the same caller; the first in the order socket,
    authorization, key headers, cookie then counts. Two callers in one request are refused (T20).
    """

    def __init__(self, authenticators: Sequence[Authenticator], *, report: Report | None = None) -> None:
        self._authenticators = tuple(authenticators)
        self._report = report

    async def authenticate(self, presented: Presented) -> Principal:
        """The caller. Raises NoCredential when none is offered, Unauthenticated when one does not hold."""
        offered = offers.read(presented)
        if not offered:
            raise self._nothing(presented)
        if len(offered) == 1:
            return await self._ask(offered[0], presented)
        named = [await self._ask(offer, presented) for offer in offered]
        first = named[0]
        if any((other.kind, other.subject) != (first.kind, first.subject) for other in named[1:]):
            if self._report is not None:
                await self._report(named, presented)
            raise Unauthenticated(
                "Two credentials name two different callers in one request.", hint="Send only one of them."
            )
        return first

    async def _ask(self, offer: Offer, presented: Presented) -> Principal:
        for authenticator in self._authenticators:
            principal = await authenticator.authenticate(offer, presented)
            if principal is not None:
                return principal
        raise Unauthenticated(
            "The credential is of no kind that this Tower knows.", hint="Send an API key made by this Tower."
        )

    @staticmethod
    def _nothing(presented: Presented) -> NoCredential:
        if presented.workload is not None and presented.workload.kind is WorkloadKind.APP:
            return NoCredential(
                "A call from an app needs the credential of the person it acts for.",
                hint="Make it while handling a request that came through the gateway.",
            )
        return NoCredential(
            "This call carries no credential.", hint="Send 'authorization: Bearer <API key>'."
        )
