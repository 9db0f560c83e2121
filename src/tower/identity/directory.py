"""What the authenticators need to know about subjects, keys, sessions and attempts; others supply it."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Protocol

from tower.identity.principal import Ceiling, CredentialKind, Kind, Principal


@dataclass(frozen=True, slots=True)
class SubjectFacts:
    """A user or service identity as it stands now."""

    subject: str
    kind: Kind
    name: str = ""
    email: str = ""
    disabled: bool = False


@dataclass(frozen=True, slots=True)
class KeyFacts:
    """An API key as it stands now; `role`, `project`, `domain` and `actions` are its ceiling.

    `maker` is who made it for its owner, when that was somebody else: it is never above them either.
    """

    id: str
    name: str
    subject: str
    hash: bytes = field(repr=False)
    role: str | None = None
    project: str = "*"
    domain: str = "*"
    expires_at: float | None = None
    deleted: bool = False
    disabled: bool = False
    actions: frozenset[str] | None = None
    maker: str = ""

    @property
    def off(self) -> bool:
        """Whether it was deleted or disabled: nothing that came from it holds either."""
        return self.deleted or self.disabled

    @property
    def limited(self) -> bool:
        """Whether the key carries a ceiling of its own."""
        somewhere = self.project != "*" or self.domain != "*"
        return self.role is not None or somewhere or self.actions is not None

    @property
    def ceilings(self) -> tuple[Ceiling, ...]:
        """The limits that it puts on its owner."""
        found = []
        if self.limited:
            found.append(
                Ceiling(
                    f"key:{self.id}",
                    role=self.role,
                    project=self.project,
                    domain=self.domain,
                    actions=self.actions,
                )
            )
        if self.maker:
            found.append(Ceiling(f"maker:{self.maker}", person=self.maker))
        return tuple(found)


@dataclass(frozen=True, slots=True)
class SessionFacts:
    """A browser session as it stands now. `host` is the only Host header value it is good for."""

    id: str
    subject: str
    host: str
    expires_at: float
    parent: str = ""
    revoked: bool = False


@dataclass(frozen=True, slots=True)
class LoginFacts:
    """A login of a command line as it stands now: what its access and refresh tokens live from."""

    id: str
    subject: str
    client: str
    expires_at: float
    ceilings: tuple[Ceiling, ...] = ()
    revoked: bool = False


class Subjects(Protocol):
    """Looks up people and service identities."""

    async def subject(self, subject: str) -> SubjectFacts | None:
        """The subject as of the last commit, or None."""


class Keys(Subjects, Protocol):
    """Looks up API keys."""

    @property
    def epoch(self) -> int:
        """Another one after each change of a person or a key: until then what was looked up holds."""

    async def key(self, key_id: str) -> KeyFacts | None:
        """The key of this public id as of the last commit, those that are off included, or None."""

    def used(self, key_id: str) -> None:
        """Note that the key was used now. Returns at once; the store learns of it later."""


class Sessions(Subjects, Protocol):
    """Looks up sessions."""

    async def session(self, digest: bytes) -> SessionFacts | None:
        """The session whose text has this SHA-256, or None."""


class Logins(Subjects, Protocol):
    """Looks up what access tokens live from."""

    def login(self, login_id: str) -> LoginFacts | None:
        """The login of this public id as of the last commit, revoked ones included, or None."""

    def token_revoked(self, token_id: str) -> bool:
        """Whether this one access token was revoked, whatever it lives from."""


class OAuth(Keys, Logins, Protocol):
    """Looks up both of what an access token can live from."""


class Parents(Subjects, Protocol):
    """Tells whether the credential behind an exchanged token still holds."""

    async def alive(self, kind: CredentialKind, public_id: str, subject: str) -> bool:
        """Whether the credential of this public id exists, is the subject's, unexpired and not revoked."""


class AppOwners(Protocol):
    """Looks up whom an app belongs to."""

    async def owner(self, app: str) -> Principal | None:
        """Who deployed `project/domain/name`, limited to giving the app its secrets; None for nobody."""


class Attempts(Protocol):
    """Looks up who a running attempt acts for."""

    async def attempt(self, attempt_id: str) -> Principal | None:
        """The executor of `project/domain/run/action/attempt` with actors and ceilings; None once over.

        Raises Unauthenticated, saying why, where the attempt goes on but acts for nobody any more.
        """

    def held(self, attempt_id: str, agent: bytes) -> bool:
        """Whether this is the key of the one agent that may hold tokens of the attempt."""
