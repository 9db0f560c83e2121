"""The chain of authenticators: each says not mine, yes or no, and a no is final."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from typing import Protocol

from tower.errors import Counterfeit, Exhausted, Fault, Unauthenticated
from tower.identity import keys, offers
from tower.identity.guesses import Guesses
from tower.identity.offers import Audience, Offer, Presented, Source
from tower.identity.principal import Principal
from tower.identity.workload import WorkloadKind

__all__ = ["Audience", "Authenticator", "Chain", "NoCredential", "Presented", "Report", "TwoCallers"]


class NoCredential(Unauthenticated):
    """Nothing in the request names a caller. A door that also serves anonymous people may catch this one."""


class TwoCallers(Unauthenticated):
    """The credentials of one request hold and name different callers."""


class Authenticator(Protocol):
    """One way of showing who is calling."""

    async def authenticate(self, offer: Offer, presented: Presented) -> Principal | None:
        """None: not mine. A principal: yes. Raises Unauthenticated: mine, and it does not hold."""


class Refused(Protocol):
    """Told of credentials that did not hold, by the ids that they named; it must not take long."""

    def __call__(self, *, source: str, door: str, keys: tuple[str, ...], throttled: bool) -> None: ...


Report = Callable[[Sequence[Principal], Presented], Awaitable[None]]
"""Told when the credentials of one request name different callers."""


class Chain:
    """Names the caller of a request.

    Every credential offered must be claimed by exactly one authenticator and hold: there is no falling
    through to a weaker one or to anonymous. Several may name the same caller; the first in the order socket,
    authorization, key headers, cookie then counts. Two callers in one request are refused (T20).
    """

    def __init__(
        self,
        authenticators: Sequence[Authenticator],
        *,
        report: Report | None = None,
        guesses: Guesses | None = None,
        refused: Refused | None = None,
    ) -> None:
        """With `guesses` failures are counted and bounded at every door; `refused` is told of each."""
        self._authenticators = tuple(authenticators)
        self._report = report
        self.guesses = guesses
        self._refused = refused

    async def authenticate(self, presented: Presented) -> Principal:
        """The caller.

        Raises NoCredential when none is offered, Unauthenticated when one does not hold, and Exhausted when
        too many did not hold from there: then it is not looked at.
        """
        offered: tuple[Offer, ...] = ()
        guesses = self.guesses
        try:
            offered = offers.read(presented)
            if guesses is not None and guesses.busy:
                self._patience(guesses, offered, presented)
            if len(offered) == 1:
                principal = await self._ask(offered[0], presented)
            else:
                principal = await self._name(offered, presented)
        except (NoCredential, TwoCallers):
            raise
        except (Unauthenticated, Exhausted) as fault:
            self._note(offered, presented, fault)
            raise
        if guesses is not None:
            for offer in offered:
                if hash(offer.value) not in guesses.good:
                    guesses.held(offer.value)
        return principal

    def _patience(self, guesses: Guesses, offered: Sequence[Offer], presented: Presented) -> None:
        """Raise Exhausted where an unknown credential is not to be looked at now."""
        values = [offer.value for offer in offered if offer.source is not Source.SOCKET]
        if values:
            guesses.check(source=presented.source, values=values, keys=_ids(values))

    def _note(self, offered: Sequence[Offer], presented: Presented, fault: Fault) -> None:
        """Count a refusal. Only what may be a guess makes its source wait, not what has ended."""
        values = [offer.value for offer in offered if offer.source is not Source.SOCKET]
        ids = _ids(values)
        if self.guesses is not None and isinstance(fault, Counterfeit):
            self.guesses.failed(source=presented.source, values=values, keys=ids)
        if self._refused is not None:
            self._refused(
                source=presented.source,
                door=presented.audience,
                keys=ids,
                throttled=isinstance(fault, Exhausted),
            )

    def check(self, value: str, *, key: str, source: str, door: str) -> bool:
        """Before a door looks at a key that it was shown in a form of its own: whether that has held before.

        `key` is its public id, "" where it has none. Raises Exhausted, and counts it, where an unknown one
        is not to be looked at now.
        """
        if self.guesses is None:
            return False
        try:
            self.guesses.check(source=source, values=[value], keys=_named(key))
        except Exhausted:
            if self._refused is not None:
                self._refused(source=source, door=door, keys=_named(key), throttled=True)
            raise
        return self.guesses.knows(value)

    def failed(self, value: str, *, key: str, source: str, door: str, guess: bool) -> None:
        """Count such a key that did not hold; one that was right and has ended is no `guess`."""
        if self.guesses is not None and guess:
            self.guesses.failed(source=source, values=[value], keys=_named(key))
        if self._refused is not None:
            self._refused(source=source, door=door, keys=_named(key), throttled=False)

    def held(self, value: str) -> None:
        """Remember such a key that held."""
        if self.guesses is not None and not self.guesses.knows(value):
            self.guesses.held(value)

    async def _name(self, offered: tuple[Offer, ...], presented: Presented) -> Principal:
        if not offered:
            raise self._nothing(presented)
        named = [await self._ask(offer, presented) for offer in offered]
        first = named[0]
        if any((other.kind, other.subject) != (first.kind, first.subject) for other in named[1:]):
            if self._report is not None:
                await self._report(named, presented)
            raise TwoCallers(
                "Two credentials name two different callers in one request.", hint="Send only one of them."
            )
        return first

    async def _ask(self, offer: Offer, presented: Presented) -> Principal:
        for authenticator in self._authenticators:
            principal = await authenticator.authenticate(offer, presented)
            if principal is not None:
                return principal
        raise Counterfeit(
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


def _named(key: str) -> tuple[str, ...]:
    return (key,) if key else ()


def _ids(values: Sequence[str]) -> tuple[str, ...]:
    """The public ids of the API keys among these."""
    return tuple(key.id for value in values if (key := keys.parse(value)) is not None)
