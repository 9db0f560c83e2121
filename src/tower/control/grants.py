"""What Tower hands on: an app token instead of a caller's credential, a ticket instead of a right to upload.

And the form in which a run keeps its caller's actors and limits (`actions.actors`, `actions.ceilings`).
"""

from __future__ import annotations

import json
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass

from tower.clock import Clock
from tower.control.privileges import IDENTITY_ACTIONS
from tower.errors import Denied, Exhausted, Precondition
from tower.identity.principal import Actor, ActorKind, Ceiling, Credential, CredentialKind, Kind, Principal
from tower.identity.signing import SigningKey
from tower.identity.tickets import Tickets
from tower.identity.tokens import (
    MAX_ACTORS,
    AppTokens,
    actor_from_text,
    ceiling_from_json,
    ceiling_to_json,
)
from tower.policy.actions import Resource, ResourceType
from tower.settings import Settings

ISSUER = "tower"
_REMEMBERED = 4096
_FRESH_PART = 0.5  # a token is handed out again while at least this part of its life is left


@dataclass(frozen=True, slots=True)
class Upload:
    """One object that may be written once: where, which content and how long at most (bytes).

    And for the record, who asked for it: the person, the kind and public id of what was shown, the actors on
    the way as `actors_to_text` writes them.
    """

    project: str
    domain: str
    key: str
    md5: str
    length: int
    subject: str = ""
    kind: str = ""
    credential: str = ""
    actors: str = "[]"

    @property
    def asker(self) -> Principal:
        """Who asked for it, as far as a record needs it: no limits, and no more of the person."""
        kind = CredentialKind(self.kind)
        shown = Credential(kind, self.credential, parent=self.credential)
        person = Kind.MACHINE if kind is CredentialKind.MACHINE else Kind.USER
        return Principal(self.subject, person, "", shown, actors=actors_from_text(self.actors))

    @property
    def place(self) -> Resource:
        """The domain that it is for."""
        return Resource(ResourceType.DOMAIN, project=self.project, domain=self.domain)


@dataclass(frozen=True, slots=True)
class Download:
    """One object that may be read."""

    project: str
    domain: str
    key: str


class Grants:
    """Exchanges credentials and signs tickets."""

    def __init__(
        self,
        *,
        key: SigningKey,
        tokens: AppTokens,
        clock: Clock,
        settings: Settings,
        limits: Callable[[str], tuple[Ceiling, ...]] = lambda app: (),
    ) -> None:
        """`limits` (that of `Directory`) says what an app may do for people at most."""
        self._limits = limits
        self._tokens = tokens
        self._clock = clock
        self._life = settings.app_token_life
        self._uploads = Tickets(key=key, clock=clock, purpose="upload")
        self._downloads = Tickets(key=key, clock=clock, purpose="download")
        self._issued: OrderedDict[tuple[object, ...], tuple[str, float]] = OrderedDict()

    async def exchange(self, principal: Principal, app: str) -> str:
        """A token of minutes for `app` (`project/domain/name`) to act as the caller, limits included.

        The same caller with the same credential gets the same token until half of its life is over. Raises
        Denied for a caller that may not be handed on, Precondition for an app that calls itself, Exhausted
        for too long a chain (T17).
        """
        credential = principal.credential
        if credential.kind in {CredentialKind.MACHINE, CredentialKind.APP_TOKEN}:
            raise Denied("This credential cannot be handed on to an app.", hint="Use your own credential.")
        limits = self._limits(app)
        key = (
            principal.subject,
            credential.kind,
            credential.id,
            app,
            principal.actors,
            principal.ceilings,
            limits,
        )
        now = self._clock.now()
        known = self._issued.get(key)
        if known is not None and known[1] > now:
            self._issued.move_to_end(key)
            return known[0]
        if Actor(ActorKind.APP, app) in principal.actors:
            raise Precondition(
                f"The app {app} calls itself through Tower.", hint="Call the function directly."
            )
        if len(principal.actors) >= MAX_ACTORS:
            raise Exhausted(f"More than {MAX_ACTORS} apps and runs act for one another.")
        life = self._life if credential.expires_at is None else min(self._life, credential.expires_at - now)
        token, _ = self._tokens.mint(
            subject=principal.subject,
            app=app,
            before=principal.actors,
            parent_kind=credential.kind,
            parent=credential.id,
            root=credential.root,
            ceilings=(*principal.ceilings, Ceiling(f"app:{app}", forbidden=IDENTITY_ACTIONS), *limits),
            life=life,
        )
        self._issued[key] = (token, now + life * _FRESH_PART)
        while len(self._issued) > _REMEMBERED:
            self._issued.popitem(last=False)
        return token

    def life_of(self, token: str) -> float:
        """Seconds that a token made by `exchange` still lives."""
        return self._tokens.verify(token).expires_at - self._clock.now()

    def allow_upload(self, upload: Upload, *, life: float) -> tuple[str, float]:
        """A ticket for one upload, and when it ends (seconds since the epoch)."""
        fields: dict[str, str | int] = {
            "project": upload.project,
            "domain": upload.domain,
            "key": upload.key,
            "md5": upload.md5,
            "length": upload.length,
            "subject": upload.subject,
            "kind": upload.kind,
            "credential": upload.credential,
            "actors": upload.actors,
        }
        return self._uploads.seal(fields, life=life)

    def open_upload(self, ticket: str) -> Upload:
        """What a ticket allows. Raises Denied for a forged or ended one."""
        return Upload(**self._uploads.open(ticket))

    def allow_download(self, download: Download, *, life: float) -> tuple[str, float]:
        """A ticket for one download, and when it ends (seconds since the epoch)."""
        fields: dict[str, str | int] = {
            "project": download.project,
            "domain": download.domain,
            "key": download.key,
        }
        return self._downloads.seal(fields, life=life)

    def open_download(self, ticket: str) -> Download:
        """What a ticket allows. Raises Denied for a forged or ended one."""
        return Download(**self._downloads.open(ticket))


def actors_to_text(actors: tuple[Actor, ...]) -> str:
    """The column `actions.actors`: a JSON list of "kind:id", oldest first."""
    return json.dumps([str(actor) for actor in actors], separators=(",", ":"))


def actors_from_text(text: str) -> tuple[Actor, ...]:
    """The inverse. Raises ValueError."""
    return tuple(actor_from_text(actor) for actor in json.loads(text))


def ceilings_to_text(ceilings: tuple[Ceiling, ...]) -> str:
    """The column `actions.ceilings`."""
    return json.dumps([ceiling_to_json(ceiling) for ceiling in ceilings], separators=(",", ":"))


def ceilings_from_text(text: str) -> tuple[Ceiling, ...]:
    """The inverse. Raises ValueError: a limit that cannot be read is not the absence of one."""
    return tuple(ceiling_from_json(value) for value in json.loads(text))
