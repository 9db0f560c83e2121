"""The authenticator of access tokens that identity providers issue, good at every door.

What is cheap refuses first: a token of no issuer of ours is not looked at, and one with a foreign type,
audience or time never reaches a key. What was verified once is known by its hash until it expires or its key
is taken back; whether the person is still let in is looked at in each call.
"""

from __future__ import annotations

import hashlib
from collections import OrderedDict
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Protocol

from tower.clock import Clock
from tower.errors import Unauthenticated
from tower.identity.directory import SubjectFacts, Subjects
from tower.identity.jose import header_of, unverified_claims
from tower.identity.offers import Offer, Presented, Source
from tower.identity.oidc import claims as said
from tower.identity.oidc.claims import Person
from tower.identity.oidc.provider import Provider
from tower.identity.principal import Actor, ActorKind, Credential, CredentialKind, Principal
from tower.identity.signed import claims_shape
from tower.identity.workload import WorkloadKind


class Admission(Protocol):
    """Who of an issuer's people is let in, and as whom."""

    async def admit(self, person: Person) -> str:
        """The subject of a person that an issuer vouches for, made when new. Raises Unauthenticated."""


@dataclass(frozen=True, slots=True)
class _Known:
    person: Person
    subject: str
    kid: str
    provider: Provider


class ForeignTokens:
    """A provider's access token in `authorization`."""

    def __init__(
        self,
        *,
        providers: Iterable[Provider],
        admission: Admission,
        directory: Subjects,
        clock: Clock,
        remember: int = 16384,
    ) -> None:
        self._providers = {each.settings.issuer: each for each in providers}
        self._admission = admission
        self._directory = directory
        self._clock = clock
        self._remember = remember
        self._known: OrderedDict[bytes, _Known] = OrderedDict()

    async def authenticate(self, offer: Offer, presented: Presented) -> Principal | None:
        """The person or program that the token names. Not mine: whatever names no issuer of ours."""
        if offer.source is not Source.AUTHORIZATION or not self._providers:
            return None
        key = hashlib.sha256(offer.value.encode()).digest()
        known = await self._remembered(key) or await self._verify(key, offer.value)
        if known is None:
            return None
        facts = await self._directory.subject(known.subject)
        if facts is None or facts.disabled:
            raise Unauthenticated("This account is disabled.", hint="Ask an administrator.")
        return _principal(known.person, facts, presented)

    async def _remembered(self, key: bytes) -> _Known | None:
        known = self._known.get(key)
        if known is None:
            return None
        await known.provider.refresh()
        if known.person.expires_at <= self._clock.now() or not known.provider.knows(known.kid):
            self._known.pop(key, None)
            return None
        return known

    async def _verify(self, key: bytes, token: str) -> _Known | None:
        if not claims_shape(token):
            return None
        unverified = unverified_claims(token)
        issuer = unverified.get("iss")
        provider = self._providers.get(issuer) if isinstance(issuer, str) else None
        if provider is None:
            return None
        now = self._clock.now()
        person = said.access_token(
            header_of(token), unverified, settings=provider.settings, token=token, now=now
        )
        signed = await provider.verify(token)
        if signed.claims() != unverified:  # pragma: no cover - one text is read by one reader
            raise said.refused("read in two ways")
        known = _Known(person, await self._admission.admit(person), signed.kid, provider)
        self._known[key] = known
        while len(self._known) > self._remember:
            self._known.popitem(last=False)
        return known


def _principal(person: Person, facts: SubjectFacts, presented: Presented) -> Principal:
    workload = presented.workload
    app = workload.id if workload is not None and workload.kind is WorkloadKind.APP else ""
    return Principal(
        subject=facts.subject,
        kind=facts.kind,
        name=facts.name,
        email=facts.email,
        credential=Credential(
            CredentialKind.OIDC_TOKEN, person.id, attested=bool(app), expires_at=person.expires_at
        ),
        actors=(Actor(ActorKind.APP, app),) if app else (),
    )
