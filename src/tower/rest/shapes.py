"""What goes over the wire, as pydantic models: they check the requests and describe both ways in OpenAPI.

A key's text is in one answer only, that of its making; no shape here has room for a secret besides that.
"""

from __future__ import annotations

import json
import re
from datetime import datetime
from typing import Any

from pydantic import BaseModel, ConfigDict, Field

from tower.audit import Entry
from tower.clock import utc
from tower.control.apikeys import KeyRow
from tower.control.identities import BindingRow, UserRow
from tower.errors import Invalid
from tower.identity.principal import Ceiling, Principal
from tower.rest import forms

_SECONDS = {"s": 1, "m": 60, "h": 3600, "d": 86400, "w": 7 * 86400}
_SPAN = re.compile(r"([0-9]{1,9})([smhdw])")


class _Request(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True, str_max_length=512)


class NewUser(_Request):
    """A person, or a service identity. With `role` it gets that role in `project` and `domain` at once."""

    name: forms.Subject
    service: bool = False
    display_name: str | None = None
    email: str = ""
    role: forms.RoleName | None = None
    project: forms.Project = "*"
    domain: forms.Domain = "*"


class NewBinding(_Request):
    """A role for a user or a group in a scope; "*" is every project or domain.

    With `task`, `app` or `service` for that one thing alone.
    """

    user: str | None = None
    group: str | None = None
    role: forms.RoleName
    project: forms.Project = "*"
    domain: forms.Domain = "*"
    task: str | None = None
    app: str | None = None
    service: str | None = None

    def subject(self) -> str:
        """Who gets it. Raises Invalid."""
        return holder(self.user, self.group)

    def thing(self) -> tuple[str, str]:
        """Kind and name of the one thing it is for, or two empty texts. Raises Invalid."""
        return one_thing(task=self.task, app=self.app, service=self.service)


class ChangedUser(_Request):
    """What to change of a user; what is left out stays."""

    display_name: str | None = None
    email: str | None = None


class NewKey(_Request):
    """A key for the caller, or for `user`. `expires_in` in seconds or like "30d"; `format` twr or flyte.

    `role`, `project`, `domain` and `actions` are its ceiling.
    """

    name: forms.KeyName
    user: str | None = None
    role: forms.RoleName | None = None
    project: forms.Project = "*"
    domain: forms.Domain = "*"
    actions: list[forms.ActionName] | None = Field(default=None, max_length=100)
    expires_in: int | forms.Span | None = None
    format: forms.Format = "twr"


class Rotation(_Request):
    """How to rotate a key: the old one holds for `overlap` more, in seconds or like "1h"."""

    overlap: int | forms.Span = 3600
    expires_in: int | forms.Span | None = None
    format: forms.Format = "twr"


class NewLink(_Request):
    """A one-time sign-in link for a person."""

    user: str


class User(BaseModel):
    """A person or service identity."""

    name: str
    kind: str
    display_name: str
    email: str
    disabled: bool
    created_at: datetime
    created_by: str

    @classmethod
    def of(cls, row: UserRow) -> User:
        """From its row."""
        return cls(
            name=row.subject,
            kind=row.kind,
            display_name=row.name,
            email=row.email,
            disabled=row.disabled_at is not None,
            created_at=utc(row.created_at),
            created_by=row.created_by,
        )


class Users(BaseModel):
    """A page of users; `next` is the value of `after` for the page behind it."""

    users: list[User]
    next: str | None = None


class Binding(BaseModel):
    """A role given to a user or service, or to a group; `kind` and `name` say the one thing it is for."""

    user: str
    group: str
    role: str
    project: str
    domain: str
    kind: str
    name: str
    created_at: datetime
    created_by: str

    @classmethod
    def of(cls, row: BindingRow) -> Binding:
        """From its row."""
        group = row.subject.removeprefix("group:") if row.subject.startswith("group:") else ""
        return cls(
            user="" if group else row.subject,
            group=group,
            role=row.role,
            project=row.project,
            domain=row.domain,
            kind=row.kind,
            name=row.name,
            created_at=utc(row.created_at),
            created_by=row.created_by,
        )


class Bindings(BaseModel):
    """Roles given."""

    bindings: list[Binding]


class Key(BaseModel):
    """A key without its text: `id` is public; `role`, `project`, `domain` and `actions` are its ceiling.

    It is not above `maker` either, who made it for its user. One that was rotated names its successor in
    `replaced_by`, and ends soon.
    """

    id: str
    name: str
    user: str
    role: str | None
    project: str
    domain: str
    actions: list[str] | None
    maker: str
    disabled: bool
    replaced_by: str
    created_at: datetime
    created_by: str
    expires_at: datetime | None
    last_used_at: datetime | None

    @classmethod
    def of(cls, row: KeyRow) -> Key:
        """From its row."""
        return cls(**_key_fields(row))


class MadeKey(Key):
    """A key just made, with its text: the only answer that has it."""

    key: str = Field(description="Shown once. Tower keeps a hash of its secret half.")

    @classmethod
    def made(cls, row: KeyRow, text: str) -> MadeKey:
        """From its row and its text."""
        return cls(**_key_fields(row), key=text)


class Keys(BaseModel):
    """Live keys by name."""

    keys: list[Key]


class Link(BaseModel):
    """A one-time sign-in link."""

    url: str


class Credential(BaseModel):
    """What the caller showed, by its public id."""

    kind: str
    id: str
    attested: bool
    expires_at: datetime | None


def _limit(ceiling: Ceiling) -> str:
    role = f"at most {ceiling.role} " if ceiling.role else ""
    everywhere = (ceiling.project, ceiling.domain) == ("*", "*")
    place = "" if everywhere else f"in {ceiling.project}/{ceiling.domain} "
    about = "" if ceiling.about is None else f"for {', '.join(sorted(ceiling.about))} "
    if ceiling.person:
        return f"{about}at most what {ceiling.person} may ({ceiling.source})"
    only = f"only {', '.join(sorted(ceiling.actions))} " if ceiling.actions is not None else ""
    off = f"without {', '.join(sorted(ceiling.forbidden))} " if ceiling.forbidden else ""
    return f"{about}{role}{place}{only}{off}({ceiling.source})"


class Who(BaseModel):
    """The caller as Tower sees them."""

    subject: str
    kind: str
    name: str
    email: str
    credential: Credential
    via_app: str
    actors: list[str]
    roles: list[str] = []
    limits: list[str] = []

    @classmethod
    def of(cls, principal: Principal, *, roles: list[str]) -> Who:
        """From the principal. `roles` and limits are for people to read."""
        shown = principal.credential
        return cls(
            subject=principal.subject,
            kind=principal.kind.value,
            name=principal.name,
            email=principal.email,
            credential=Credential(
                kind=shown.kind.value,
                id=shown.root,
                attested=shown.attested,
                expires_at=_time(shown.expires_at),
            ),
            via_app=principal.via_app,
            actors=[str(actor) for actor in principal.actors],
            roles=roles,
            limits=[_limit(ceiling) for ceiling in principal.ceilings],
        )


class Record(BaseModel):
    """One audit record. `hash` covers all the rest and `previous`, the hash of the record before it."""

    seq: int
    at: datetime
    event: str
    outcome: str
    subject: str
    credential_kind: str
    credential_id: str
    actors: list[str]
    app: str
    action: str
    resource: str
    request_id: str
    decision: str
    policy_revision: str
    detail: dict[str, Any]
    run: str
    previous: str
    hash: str

    @classmethod
    def of(cls, entry: Entry) -> Record:
        """From its entry."""
        fields = {name: getattr(entry, name) for name in Entry.__dataclass_fields__}
        return cls.model_validate(
            {
                **fields,
                "at": utc(entry.at),
                "actors": json.loads(entry.actors),
                "detail": json.loads(entry.detail),
            }
        )


class Records(BaseModel):
    """A page of audit records, newest first; `next` is the value of `before` for the page behind it."""

    records: list[Record]
    next: int | None = None


class Error(BaseModel):
    """Why a request was refused."""

    code: str
    message: str
    hint: str
    request_id: str


class Refusal(BaseModel):
    """The body of every answer that is not a success."""

    error: Error


def holder(user: str | None, group: str | None) -> str:
    """The subject of a binding: a user, or `group:` and the name of one. Raises Invalid for both or none."""
    if (user is None) is (group is None):
        raise Invalid("Name either a user or a group.")
    return str(user) if group is None else f"group:{group}"


def one_thing(**named: str | None) -> tuple[str, str]:
    """The one of these that has a name. Raises Invalid for several."""
    found = [(kind, name) for kind, name in named.items() if name is not None]
    if len(found) > 1:
        raise Invalid("A role is for one task, one app or one service.")
    return found[0] if found else ("", "")


def seconds(span: int | str | None) -> float | None:
    """A span of time as seconds: a number, or a number with s, m, h, d or w. Raises Invalid."""
    if span is None or isinstance(span, int):
        return span
    if span.isdecimal() and span.isascii():
        return float(span[:12])
    if found := _SPAN.fullmatch(span):
        return float(found[1]) * _SECONDS[found[2]]
    raise Invalid(f"{span[:60]!r} is no span of time.", hint="Write 3600, 12h, 30d or 4w.")


def _key_fields(row: KeyRow) -> dict[str, Any]:
    return {
        "id": row.id,
        "name": row.name,
        "user": row.subject,
        "role": row.role,
        "project": row.project,
        "domain": row.domain,
        "actions": None if row.actions is None else json.loads(row.actions),
        "maker": row.maker,
        "disabled": row.disabled_at is not None,
        "replaced_by": row.replaced_by,
        "created_at": utc(row.created_at),
        "created_by": row.created_by,
        "expires_at": _time(row.expires_at),
        "last_used_at": _time(row.last_used_at),
    }


def _time(seconds_: float | None) -> datetime | None:
    return None if seconds_ is None else utc(seconds_)
