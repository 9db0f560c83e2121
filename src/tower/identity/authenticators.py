"""The authenticators of one Tower, and which credential is good at which door.

| credential             | rpc            | rest           | gateway | console |
|------------------------|----------------|----------------|---------|---------|
| API key                | yes            | yes            | yes     | yes     |
| access token           | yes            | yes            | yes     | yes     |
| session cookie         | same site      | same site      | yes     | yes     |
| app token, own socket  | yes            | yes            | no      | no      |
| app token, over TLS    | yes, a bearer  | yes, a bearer  | no      | no      |
| app token, plain HTTP  | no             | no             | no      | no      |
| socket of an attempt   | yes            | yes            | yes     | no      |
| run token, over TLS    | yes, a bearer  | yes, a bearer  | yes     | no      |
| administration socket  | yes            | yes            | no      | no      |

The socket of an app names nobody: it only attests which app carries its caller's credential. At one route
alone, where an app that starts gets its secrets, it stands for whoever deployed the app.
"""

from __future__ import annotations

from typing import TypeAlias

from tower.clock import Clock
from tower.errors import Counterfeit, Unauthenticated
from tower.identity import keys, sessions, signed
from tower.identity.directory import AppOwners, Attempts, KeyFacts, Keys, Parents, Sessions, SubjectFacts
from tower.identity.offers import Offer, Presented, Source
from tower.identity.principal import (
    Actor,
    ActorKind,
    Credential,
    CredentialKind,
    Kind,
    Principal,
)
from tower.identity.tokens import AppTokens
from tower.identity.workload import WorkloadKind

MACHINE = Principal(
    subject="machine",
    kind=Kind.MACHINE,
    name="the operator of this machine",
    credential=Credential(CredentialKind.MACHINE, "admin-socket", attested=True),
)
"""The caller on the administration socket. No user may take this subject."""

_NO_SUCH_KEY = keys.digest("")
_KEY_PLACES = frozenset({Source.AUTHORIZATION, Source.KEY_HEADER})
_REMEMBERED = 16_384

_Known: TypeAlias = tuple[KeyFacts, SubjectFacts, Principal]
"""A key that is on, its owner, and whom it names: always the same principal, known again by identity."""


class ApiKeys:
    """A key in `authorization`, `x-api-key` or `x-flyte-token`."""

    def __init__(self, *, directory: Keys, clock: Clock) -> None:
        self._directory = directory
        self._clock = clock
        self._known: dict[bytes, _Known] = {}
        self._epoch = directory.epoch

    async def authenticate(self, offer: Offer, presented: Presented) -> Principal | None:
        """The owner of the key, limited by the key's ceiling."""
        if offer.source not in _KEY_PLACES or not keys.claims(offer.value):
            return None
        if self._epoch != self._directory.epoch:
            self._epoch = self._directory.epoch
            self._known.clear()
        # by its digest, as the store knows it: no key stays in memory
        digest = keys.digest(offer.value)
        known = self._known.get(digest)
        if known is None:
            known = await self._look_up(offer.value)
            if self._epoch == self._directory.epoch:
                if len(self._known) >= _REMEMBERED:
                    self._known.clear()
                self._known[digest] = known
        facts, owner, principal = known
        if facts.expires_at is not None and facts.expires_at <= self._clock.now():
            raise Unauthenticated("The API key has expired.", hint="Make a new one: tower keys create.")
        self._directory.used(facts.id)
        workload = presented.workload
        if workload is not None and workload.kind is WorkloadKind.APP:
            return owner_of_key(facts, owner, app=workload.id)
        return principal

    async def _look_up(self, text: str) -> _Known:
        """What a genuine key names now, of those that are on; it may have expired. Raises Unauthenticated."""
        key = keys.parse(text)
        if key is None:
            raise _no_key()
        facts = await self._directory.key(key.id)
        genuine = keys.matches(key.secret, _NO_SUCH_KEY if facts is None else facts.hash)
        if facts is None or facts.deleted or not genuine:
            raise _no_key()
        if facts.disabled:
            raise Unauthenticated(
                "The API key is disabled.", hint="Its owner or an administrator enables it."
            )
        owner = _enabled(await self._directory.subject(facts.subject))
        return facts, owner, owner_of_key(facts, owner)


def owner_of_key(facts: KeyFacts, owner: SubjectFacts, *, app: str = "") -> Principal:
    """Whom a key names, limited by its ceilings; `app` where it came over an app's socket."""
    return Principal(
        subject=owner.subject,
        kind=owner.kind,
        name=owner.name,
        email=owner.email,
        credential=Credential(
            CredentialKind.API_KEY, facts.id, attested=bool(app), expires_at=facts.expires_at
        ),
        actors=(Actor(ActorKind.APP, app),) if app else (),
        ceilings=facts.ceilings,
    )


class BrowserSessions:
    """The session cookie, good for the one host it was made for."""

    def __init__(self, *, directory: Sessions, clock: Clock) -> None:
        self._directory = directory
        self._clock = clock

    async def authenticate(self, offer: Offer, presented: Presented) -> Principal | None:
        """The person who signed in."""
        if offer.source is not Source.COOKIE:
            return None
        if presented.workload is not None:
            raise Unauthenticated("A session is for browsers.", hint="Send the API key or the app's token.")
        if not presented.secure and not sessions.loopback(presented.host):
            raise Unauthenticated("Sessions need TLS away from this machine.", hint="Start Tower with --tls.")
        if presented.audience in {"rpc", "rest"} and not _same_site(presented):
            raise Unauthenticated("Another site made this call.", hint="Open the page itself.")
        if not sessions.well_formed(offer.value):
            raise _no_session()
        facts = await self._directory.session(sessions.digest(offer.value))
        if facts is None or facts.revoked or facts.host != presented.host.lower():
            raise _no_session()
        if facts.expires_at <= self._clock.now():
            raise Unauthenticated("The session has ended.", hint="Sign in again.")
        person = _enabled(await self._directory.subject(facts.subject))
        return Principal(
            subject=person.subject,
            kind=person.kind,
            name=person.name,
            email=person.email,
            credential=Credential(
                CredentialKind.SESSION, facts.id, expires_at=facts.expires_at, parent=facts.parent
            ),
        )


class ExchangedTokens:
    """An app token, on the socket of the app it was made for or as a bearer over TLS."""

    def __init__(self, *, tokens: AppTokens, directory: Parents) -> None:
        self._tokens = tokens
        self._directory = directory

    async def authenticate(self, offer: Offer, presented: Presented) -> Principal | None:
        """The person the app acts for, with the app in the chain of actors."""
        if offer.source is not Source.AUTHORIZATION or not signed.claims_shape(offer.value):
            return None
        if presented.audience not in {"rpc", "rest"}:
            raise Unauthenticated(
                "An app token is for Tower's API only.", hint="Send the caller's own credential."
            )
        claims = self._tokens.verify(offer.value)
        workload = presented.workload
        if workload is None:
            if not presented.secure:
                raise Unauthenticated(
                    "An app token is good on its app's own socket or over TLS.",
                    hint="Use the flyte SDK of this project, or start Tower with --tls.",
                )
        elif workload.kind is not WorkloadKind.APP or workload.id != claims.app:
            raise Unauthenticated(
                "The app token was made for another app.", hint="Call through the gateway again."
            )
        person = _enabled(await self._directory.subject(claims.subject))
        if not await self._directory.alive(claims.parent_kind, claims.parent, claims.subject):
            raise Unauthenticated(
                "The credential behind the app token no longer holds.", hint="Sign in or make a new key."
            )
        return Principal(
            subject=person.subject,
            kind=person.kind,
            name=person.name,
            email=person.email,
            credential=Credential(
                CredentialKind.APP_TOKEN,
                claims.id,
                attested=workload is not None,
                expires_at=claims.expires_at,
                parent=claims.root,
            ),
            actors=claims.actors,
            ceilings=claims.ceilings,
        )


class Sockets:
    """A socket that itself is the credential: an attempt's, or the administration socket."""

    def __init__(self, *, attempts: Attempts, owners: AppOwners | None = None) -> None:
        """`owners` names whom an app belongs to, at the one place where that counts: `offers.read` says."""
        self._attempts = attempts
        self._owners = owners

    async def authenticate(self, offer: Offer, presented: Presented) -> Principal | None:
        """The executor of the attempt, or the machine's operator."""
        workload = presented.workload
        if offer.source is not Source.SOCKET or workload is None:
            return None
        match workload.kind:
            case WorkloadKind.APP:
                if self._owners is None:
                    return None
                owner = await self._owners.owner(workload.id)
                if owner is None:
                    raise Unauthenticated("Whoever deployed this app is not here any more.")
                return owner
            case WorkloadKind.ADMIN:
                if presented.audience not in {"rpc", "rest"}:
                    raise Unauthenticated("The administration socket is for Tower's API only.")
                return MACHINE
            case WorkloadKind.ATTEMPT:
                if presented.audience == "console":
                    raise Unauthenticated("The console is for browsers.")
                if workload.agent and not self._attempts.held(workload.id, workload.agent):
                    raise Unauthenticated("The agent of this attempt holds nothing any more.")
                principal = await self._attempts.attempt(workload.id)
                if principal is None:
                    raise Unauthenticated(
                        "This attempt is over, and its identity with it.",
                        hint="Nothing can be done from here.",
                    )
                return principal


def _no_key() -> Counterfeit:
    return Counterfeit("The API key does not hold.", hint="It may be mistyped or deleted.")


def _no_session() -> Counterfeit:
    return Counterfeit("The session does not hold.", hint="Sign in again.")


def _enabled(facts: SubjectFacts | None) -> SubjectFacts:
    if facts is None or facts.disabled:
        raise Unauthenticated("This account is disabled.", hint="Ask an administrator.")
    return facts


def _same_site(presented: Presented) -> bool:
    """Whether no other site's page made the call (Fetch Metadata; only browsers send it)."""
    sent = [value for name, value in presented.headers if name.lower() == b"sec-fetch-site"]
    return all(value in {b"same-origin", b"none"} for value in sent)
