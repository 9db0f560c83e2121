"""The routes of the administration API: translate, call the use-case, translate back. They decide nothing."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Annotated

from fastapi import APIRouter, Depends, Query, Request, Response

from tower.control.access import Access
from tower.control.accounts import Accounts
from tower.control.apikeys import ApiKeys, NewKey
from tower.control.asking import Asking
from tower.control.auditing import Auditing
from tower.control.ceilings import Ceilings
from tower.control.groups import Groups
from tower.control.identities import Identities
from tower.control.logins import SIGN_IN_PATH, Logins
from tower.control.outside import Outside
from tower.control.policies import Policies
from tower.control.redaction import Redaction
from tower.control.schedules import Schedules
from tower.control.secrets import Secrets
from tower.control.secretuse import SecretUse
from tower.control.signingkeys import SigningKeys
from tower.control.standinggrants import StandingGrants
from tower.control.starting import Starting
from tower.control.webhooks import Webhooks
from tower.errors import Invalid
from tower.identity.principal import Kind, Principal
from tower.rest import shapes

PAGE = 1000


@dataclass(frozen=True, slots=True)
class Governance:
    """Policies, groups, limits of apps, questions about decisions, and the audit chain."""

    policies: Policies
    groups: Groups
    ceilings: Ceilings
    asking: Asking
    auditing: Auditing


@dataclass(frozen=True, slots=True)
class Confidences:
    """What is given to running work alone, and which of it that work's output must not show."""

    secrets: Secrets
    use: SecretUse
    starting: Starting
    outside: Outside
    redaction: Redaction


@dataclass(frozen=True, slots=True)
class Rooms:
    """What the routes call. `base_url` gives Tower's public URL for a Host header value."""

    access: Access
    identities: Identities
    api_keys: ApiKeys
    logins: Logins
    accounts: Accounts
    signing_keys: SigningKeys
    standing_grants: StandingGrants
    schedules: Schedules
    governance: Governance
    webhooks: Webhooks
    confidences: Confidences
    base_url: Callable[[str], str]
    org: str


@dataclass(frozen=True, slots=True)
class Call:
    """The authenticated call that a route serves."""

    principal: Principal
    request_id: str
    base_url: str
    rooms: Rooms


def _call(request: Request) -> Call:
    call = request.scope["tower.rest.call"]
    assert isinstance(call, Call)
    return call


Caller = Annotated[Call, Depends(_call)]

router = APIRouter(prefix="/api/v1")


@router.get("/whoami", summary="Who am I, shown how, acting through what")
async def whoami(call: Caller) -> shapes.Who:
    roles = await call.rooms.access.roles(call.principal)
    return shapes.Who.of(call.principal, roles=[str(role) for role in roles])


@router.post("/users", status_code=201, summary="Add a person or service identity")
async def add_user(call: Caller, new: shapes.NewUser) -> shapes.User:
    row = await call.rooms.identities.add_user(
        call.principal,
        subject=new.name,
        kind=Kind.SERVICE if new.service else Kind.USER,
        name=new.display_name,
        email=new.email,
        role=new.role,
        project=new.project,
        domain=new.domain,
        request_id=call.request_id,
    )
    return shapes.User.of(row)


@router.get("/users", summary="List people and service identities")
async def list_users(call: Caller, after: str = "") -> shapes.Users:
    rows = await call.rooms.identities.users(call.principal, after=after, request_id=call.request_id)
    return shapes.Users(
        users=[shapes.User.of(row) for row in rows], next=rows[-1].subject if len(rows) == PAGE else None
    )


@router.get("/users/{name}", summary="One person or service identity")
async def get_user(call: Caller, name: str) -> shapes.User:
    return shapes.User.of(await call.rooms.identities.user(call.principal, name, request_id=call.request_id))


@router.patch("/users/{name}", summary="Change what is shown of them")
async def change_user(call: Caller, name: str, changed: shapes.ChangedUser) -> shapes.User:
    row = await call.rooms.identities.change_user(
        call.principal,
        name,
        name=changed.display_name,
        email=changed.email,
        request_id=call.request_id,
    )
    return shapes.User.of(row)


@router.delete("/users/{name}", status_code=204, summary="End them for good; the name stays taken")
async def delete_user(call: Caller, name: str) -> Response:
    await call.rooms.identities.delete_user(call.principal, name, request_id=call.request_id)
    return Response(status_code=204)


@router.post("/users/{name}/disable", summary="Refuse everything of theirs from the next call on")
async def disable_user(call: Caller, name: str) -> shapes.User:
    return await _set_disabled(call, name, disabled=True)


@router.post("/users/{name}/enable", summary="Undo a disable")
async def enable_user(call: Caller, name: str) -> shapes.User:
    return await _set_disabled(call, name, disabled=False)


@router.get("/bindings", summary="List roles given")
async def list_bindings(call: Caller, user: str | None = None, group: str | None = None) -> shapes.Bindings:
    subject = None if user is None and group is None else shapes.holder(user, group)
    rows = await call.rooms.identities.bindings(call.principal, subject=subject, request_id=call.request_id)
    return shapes.Bindings(bindings=[shapes.Binding.of(row) for row in rows])


@router.post("/bindings", status_code=201, summary="Give a role")
async def add_binding(call: Caller, new: shapes.NewBinding) -> shapes.Binding:
    kind, name = new.thing()
    row = await call.rooms.identities.add_binding(
        call.principal,
        subject=new.subject(),
        role=new.role,
        project=new.project,
        domain=new.domain,
        kind=kind,
        name=name,
        request_id=call.request_id,
    )
    return shapes.Binding.of(row)


@router.delete("/bindings", status_code=204, summary="Take a role away")
async def remove_binding(
    call: Caller,
    *,
    role: str,
    user: str | None = None,
    group: str | None = None,
    project: str = "*",
    domain: str = "*",
    task: str | None = None,
    app: str | None = None,
    service: str | None = None,
) -> Response:
    kind, name = shapes.one_thing(task=task, app=app, service=service)
    await call.rooms.identities.remove_binding(
        call.principal,
        subject=shapes.holder(user, group),
        role=role,
        project=project,
        domain=domain,
        kind=kind,
        name=name,
        request_id=call.request_id,
    )
    return Response(status_code=204)


@router.post("/keys", status_code=201, summary="Make an API key; its text is in this answer only")
async def create_key(call: Caller, new: shapes.NewKey, response: Response) -> shapes.MadeKey:
    _known_format(new.format)
    made = await call.rooms.api_keys.create(
        call.principal,
        name=new.name,
        subject=new.user,
        role=new.role,
        project=new.project,
        domain=new.domain,
        actions=new.actions,
        expires_in=shapes.seconds(new.expires_in),
        request_id=call.request_id,
    )
    return _shown_once(call, made, new.format, response)


@router.get("/keys", summary="List keys: all for who manages keys, else one's own")
async def list_keys(call: Caller, user: str | None = None) -> shapes.Keys:
    rows = await call.rooms.api_keys.list(call.principal, subject=user, request_id=call.request_id)
    return shapes.Keys(keys=[shapes.Key.of(row) for row in rows])


@router.get("/keys/{name}", summary="One key, without its text")
async def get_key(call: Caller, name: str, user: str | None = None) -> shapes.Key:
    row = await call.rooms.api_keys.get(call.principal, name, subject=user, request_id=call.request_id)
    return shapes.Key.of(row)


@router.delete("/keys/{name}", summary="End a key; its next call is refused")
async def delete_key(call: Caller, name: str, user: str | None = None) -> shapes.Key:
    row = await call.rooms.api_keys.delete(call.principal, name, subject=user, request_id=call.request_id)
    return shapes.Key.of(row)


@router.post(
    "/keys/{name}/rotate", status_code=201, summary="A new key under the name; the old one ends soon"
)
async def rotate_key(
    call: Caller, name: str, how: shapes.Rotation, response: Response, user: str | None = None
) -> shapes.MadeKey:
    _known_format(how.format)
    made = await call.rooms.api_keys.rotate(
        call.principal,
        name,
        subject=user,
        overlap=shapes.seconds(how.overlap) or 0.0,
        expires_in=shapes.seconds(how.expires_in),
        request_id=call.request_id,
    )
    return _shown_once(call, made, how.format, response)


@router.post("/keys/{name}/disable", summary="Refuse a key from its next call on")
async def disable_key(call: Caller, name: str, user: str | None = None) -> shapes.Key:
    row = await call.rooms.api_keys.set_disabled(
        call.principal, name, disabled=True, subject=user, request_id=call.request_id
    )
    return shapes.Key.of(row)


@router.post("/keys/{name}/enable", summary="Let a key that was disabled hold again")
async def enable_key(call: Caller, name: str, user: str | None = None) -> shapes.Key:
    row = await call.rooms.api_keys.set_disabled(
        call.principal, name, disabled=False, subject=user, request_id=call.request_id
    )
    return shapes.Key.of(row)


@router.post("/links", status_code=201, summary="Make a sign-in link that works once")
async def create_link(call: Caller, new: shapes.NewLink, response: Response) -> shapes.Link:
    code = await call.rooms.logins.create_link(call.principal, new.user, request_id=call.request_id)
    response.headers["cache-control"] = "no-store"
    return shapes.Link(url=f"{call.base_url}{SIGN_IN_PATH}{code}")


@router.get("/audit", summary="The audit trail, newest first")
async def audit(
    call: Caller,
    *,
    subject: str | None = None,
    app: str | None = None,
    run: str | None = None,
    action: str | None = None,
    resource: str | None = None,
    event: str | None = None,
    outcome: str | None = None,
    since: float | None = None,
    until: float | None = None,
    before: Annotated[int | None, Query(ge=0, lt=2**63)] = None,
    limit: Annotated[int, Query(ge=1, le=500)] = 100,
) -> shapes.Records:
    entries = await call.rooms.access.audit_page(
        call.principal,
        subject=subject,
        app=app,
        run=run,
        action=action,
        resource=resource,
        event=event,
        outcome=outcome,
        since=since,
        until=until,
        before=before,
        limit=limit,
        request_id=call.request_id,
    )
    return shapes.Records(
        records=[shapes.Record.of(entry) for entry in entries],
        next=entries[-1].seq if len(entries) == limit else None,
    )


def _known_format(name: str) -> None:
    if name not in {"twr", "flyte"}:
        raise Invalid("The field format is neither twr nor flyte.")


def _shown_once(call: Call, made: NewKey, form: str, response: Response) -> shapes.MadeKey:
    response.headers["cache-control"] = "no-store"
    text = made.key.text
    if form == "flyte":
        # a port only where it is not the default one: clients that split at the colon know no ports
        endpoint = call.base_url.partition("://")[2].removesuffix(":443")
        text = made.key.wrapped(endpoint=endpoint, org=call.rooms.org)
    return shapes.MadeKey.made(made.row, text)


async def _set_disabled(call: Call, name: str, *, disabled: bool) -> shapes.User:
    row = await call.rooms.identities.set_disabled(
        call.principal, name, disabled=disabled, request_id=call.request_id
    )
    return shapes.User.of(row)
