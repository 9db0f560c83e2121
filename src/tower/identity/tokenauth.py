"""The authenticator of access tokens: a login of a person, or a program with a key.

Good at every door, as the API key and the session behind it are. The token itself proves only that Tower made
it; login or key, person and revocation are looked at in each call, so that each of them ends it at once.
"""

from __future__ import annotations

from tower.clock import Clock
from tower.errors import Unauthenticated
from tower.identity.accesstokens import LOGIN_PREFIX, AccessTokens
from tower.identity.directory import KeyFacts, LoginFacts, OAuth
from tower.identity.offers import Offer, Presented, Source
from tower.identity.principal import Actor, ActorKind, Ceiling, Credential, CredentialKind, Principal
from tower.identity.workload import WorkloadKind


class AccessTokenBearers:
    """An access token in `authorization`."""

    def __init__(self, *, tokens: AccessTokens, directory: OAuth, clock: Clock) -> None:
        self._tokens = tokens
        self._directory = directory
        self._clock = clock

    async def authenticate(self, offer: Offer, presented: Presented) -> Principal | None:
        """The person or service behind the token, within the limits of its login or key."""
        if offer.source is not Source.AUTHORIZATION or not self._tokens.recognises(offer.value):
            return None
        claims = self._tokens.verify(offer.value)
        if self._directory.token_revoked(claims.id):
            raise _ended()
        if claims.holder.startswith(LOGIN_PREFIX):
            login = self._directory.login(claims.holder)
            ceilings = self._of_login(login, claims.subject)
        else:
            ceilings = self._of_key(await self._directory.key(claims.holder), claims.subject)
        person = await self._directory.subject(claims.subject)
        if person is None or person.disabled:
            raise Unauthenticated("This account is disabled.", hint="Ask an administrator.")
        workload = presented.workload
        app = workload.id if workload is not None and workload.kind is WorkloadKind.APP else ""
        return Principal(
            subject=person.subject,
            kind=person.kind,
            name=person.name,
            email=person.email,
            credential=Credential(
                CredentialKind.ACCESS_TOKEN,
                claims.id,
                attested=bool(app),
                expires_at=float(claims.expires_at),
                parent=claims.holder,
            ),
            actors=(Actor(ActorKind.APP, app),) if app else (),
            ceilings=ceilings,
        )

    def _of_login(self, login: LoginFacts | None, subject: str) -> tuple[Ceiling, ...]:
        if login is None or login.revoked or login.subject != subject:
            raise _ended()
        if login.expires_at <= self._clock.now():
            raise Unauthenticated("The login has ended.", hint="Sign in again: flyte login.")
        return login.ceilings

    def _of_key(self, key: KeyFacts | None, subject: str) -> tuple[Ceiling, ...]:
        if key is None or key.off or key.subject != subject:
            raise _ended()
        if key.expires_at is not None and key.expires_at <= self._clock.now():
            raise Unauthenticated("The API key behind the access token has expired.")
        return key.ceilings


def _ended() -> Unauthenticated:
    return Unauthenticated(
        "The access token does not hold.", hint="Its login or key has ended. Sign in again."
    )
