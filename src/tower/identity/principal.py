"""The caller, as every room below the doors sees it."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum


class Kind(StrEnum):
    """What sort of subject this is."""

    USER = "user"
    SERVICE = "service"
    MACHINE = "machine"
    """The operator on the machine itself, attested by the kernel on the administration socket."""


class CredentialKind(StrEnum):
    """How the caller showed who they are."""

    API_KEY = "api_key"
    SESSION = "session"
    APP_TOKEN = "app_token"  # noqa: S105  (a name of a kind, not a secret)
    ACCESS_TOKEN = "access_token"  # noqa: S105  (a name of a kind, not a secret)
    OIDC_TOKEN = "oidc_token"  # noqa: S105  (a name of a kind, not a secret)
    WEBHOOK = "webhook"
    """A signed delivery of a third party."""
    SCHEDULE = "schedule"
    """A trigger that its person activated; what they showed then is the parent."""
    WORKLOAD = "workload"
    MACHINE = "machine"


class ActorKind(StrEnum):
    """What sort of thing acts for the subject."""

    APP = "app"
    RUN = "run"
    SCHEDULE = "schedule"


@dataclass(frozen=True, slots=True)
class Actor:
    """One hop of the delegation chain, oldest first in `Principal.actors`.

    `id` is `project/domain/name` for an app, `project/domain/run/action/attempt` for a run and
    `project/domain/task/name/revision` for a schedule.
    """

    kind: ActorKind
    id: str

    def __str__(self) -> str:
        return f"{self.kind}:{self.id}"


@dataclass(frozen=True, slots=True)
class Ceiling:
    """A limit that a credential, an app or a run puts on its subject: rights are never above it.

    `role` None means no limit by role; project and domain "*" mean everywhere. `forbidden` names
    actions (values of `tower.policy.actions.Action`) that are off below this ceiling. `actions`, `projects`
    and `tasks` are all that is left of them, None for no such limit; a task is `project/domain/name`.
    `person`, where it is named, is somebody whose own rights at the time of use are the limit: the maker of
    a key for somebody else (T35), or who gave work a privilege (T1); `key` is the public id of the API key
    that they gave it with, and ends it. `about` names the only actions that this limits, None for all.
    """

    source: str
    role: str | None = None
    project: str = "*"
    domain: str = "*"
    forbidden: frozenset[str] = frozenset()
    actions: frozenset[str] | None = None
    projects: frozenset[str] | None = None
    tasks: frozenset[str] | None = None
    person: str = ""
    key: str = ""
    about: frozenset[str] | None = None

    def limits(self, action: str) -> bool:
        """Whether it says anything of this action."""
        return self.about is None or action in self.about


@dataclass(frozen=True, slots=True)
class Credential:
    """The thing presented: its kind, its public id (never the secret) and whether the kernel vouched.

    `attested` is True where the kernel named the process on the socket. `parent` is the public id of the
    credential that an exchanged token was made from, for example the API key behind an app token.
    """

    kind: CredentialKind
    id: str
    attested: bool = False
    expires_at: float | None = None
    parent: str = ""

    @property
    def root(self) -> str:
        """The public id to record: of what the person showed, also behind an app token or a running task."""
        exchanged = self.kind in {
            CredentialKind.APP_TOKEN,
            CredentialKind.ACCESS_TOKEN,
            CredentialKind.SCHEDULE,
            CredentialKind.WORKLOAD,
        }
        return self.parent if exchanged else self.id


@dataclass(frozen=True, slots=True)
class Principal:
    """Who calls, shown how, through whom, limited by what. Frozen: rooms pass it as an argument."""

    subject: str
    kind: Kind
    name: str
    credential: Credential
    email: str = ""
    actors: tuple[Actor, ...] = ()
    ceilings: tuple[Ceiling, ...] = ()

    @property
    def via_app(self) -> str:
        """`project/domain/name` of the app nearest to the person, or "" for a direct caller."""
        if not self.actors:
            return ""
        return next((actor.id for actor in self.actors if actor.kind is ActorKind.APP), "")
