"""The routes of roles, groups, policies, limits of apps, and of questions about decisions."""

from __future__ import annotations

import json
from datetime import datetime
from typing import Any

from fastapi import APIRouter, Response
from pydantic import BaseModel, ConfigDict, Field

from tower.clock import utc
from tower.control.asking import Answer
from tower.control.ceilings import CeilingRow, Limits
from tower.control.groups import GroupRow
from tower.control.policies import PolicyRow, RevisionRow, RoleRow
from tower.policy.rulebook import MAX_TEXT, Written
from tower.rest import forms
from tower.rest.routes import Caller

router = APIRouter(prefix="/api/v1")


class _Request(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True, str_max_length=512)


class Question(_Request):
    """May the caller do `action` on `resource` (as `task:PROJECT/DOMAIN/NAME`)? Or somebody else: `as`."""

    action: forms.ActionName
    resource: forms.Place
    as_: str | None = Field(default=None, alias="as")


class RoleSeen(BaseModel):
    """A role that reaches the thing, and whether it allows the action by itself."""

    role: str
    project: str
    domain: str
    kind: str
    name: str
    group: str
    allows: bool


class LimitSeen(BaseModel):
    """A limit of the credential, an app or a run on the way, and whether it leaves the action."""

    source: str
    allows: bool


class Explained(BaseModel):
    """A decision: the policies that decided, of which revision, and what led there."""

    allowed: bool
    reason: str
    subject: str
    action: str
    resource: str
    policies: list[str]
    policy_revision: str
    roles: list[RoleSeen]
    limits: list[LimitSeen]

    @classmethod
    def of(cls, answer: Answer) -> Explained:
        """From the answer."""
        decision = answer.explanation.decision
        return cls(
            allowed=decision.allowed,
            reason=answer.reason,
            subject=answer.subject,
            action=decision.action,
            resource=decision.resource,
            policies=list(decision.policies),
            policy_revision=decision.revision,
            roles=[
                RoleSeen(
                    role=each.role,
                    project=each.project,
                    domain=each.domain,
                    kind=each.kind,
                    name=each.name,
                    group=each.group,
                    allows=allows,
                )
                for each, allows in answer.explanation.roles
            ],
            limits=[
                LimitSeen(source=each.source, allows=allows) for each, allows in answer.explanation.ceilings
            ],
        )


class ChangedRole(_Request):
    """A role as a list of actions."""

    actions: list[forms.ActionName]
    description: str = Field(default="", max_length=1000)


class NewRole(ChangedRole):
    """A new role."""

    name: forms.LowerName


class Role(BaseModel):
    """A role that administrators made."""

    name: str
    actions: list[str]
    description: str
    updated_at: datetime
    updated_by: str

    @classmethod
    def of(cls, row: RoleRow) -> Role:
        """From its row."""
        return cls(
            name=row.name,
            actions=list(row.actions),
            description=row.description,
            updated_at=utc(row.updated_at),
            updated_by=row.updated_by,
        )


class Roles(BaseModel):
    """Roles by name."""

    roles: list[Role]


class NewGroup(_Request):
    """A new group. `external` is the name that an identity provider's claim has for it."""

    name: forms.LowerName
    members: list[str] = Field(default_factory=list, max_length=10_000)
    external: str = ""
    description: str = Field(default="", max_length=1000)


class ChangedGroup(_Request):
    """What to change of a group; what is left out stays."""

    add: list[str] = Field(default_factory=list, max_length=10_000)
    remove: list[str] = Field(default_factory=list, max_length=10_000)
    external: str | None = None
    description: str | None = Field(default=None, max_length=1000)


class Group(BaseModel):
    """A group and its members; those whom an identity provider names are not among them."""

    name: str
    members: list[str]
    external: str
    description: str
    created_at: datetime
    created_by: str

    @classmethod
    def of(cls, row: GroupRow) -> Group:
        """From its row."""
        return cls(
            name=row.name,
            members=list(row.members),
            external=row.external,
            description=row.description,
            created_at=utc(row.created_at),
            created_by=row.created_by,
        )


class Groups(BaseModel):
    """Groups by name."""

    groups: list[Group]


class ChangedPolicy(_Request):
    """Cedar policies and the scope they hold in. With `dry_run` they are checked and tried, and not kept."""

    text: str = Field(max_length=MAX_TEXT)
    project: forms.Project = "*"
    domain: forms.Domain = "*"
    task: str | None = None
    app: str | None = None
    description: str = Field(default="", max_length=1000)
    dry_run: bool = False

    def written(self, name: str) -> Written:
        """The document of this name."""
        kind = "task" if self.task is not None else "app" if self.app is not None else ""
        target = self.task if self.task is not None else self.app or ""
        return Written(name, self.text, self.project, self.domain, kind, target)


class NewPolicy(ChangedPolicy):
    """A new document of policies."""

    name: forms.LowerName


class Policy(BaseModel):
    """A document of policies."""

    name: str
    text: str
    project: str
    domain: str
    task: str
    app: str
    description: str
    updated_at: datetime
    updated_by: str

    @classmethod
    def of(cls, row: PolicyRow) -> Policy:
        """From its row."""
        return cls(
            name=row.name,
            text=row.text,
            project=row.project,
            domain=row.domain,
            task=row.target if row.kind == "task" else "",
            app=row.target if row.kind == "app" else "",
            description=row.description,
            updated_at=utc(row.updated_at),
            updated_by=row.updated_by,
        )


class Policies(BaseModel):
    """Documents by name."""

    policies: list[Policy]


class Revision(BaseModel):
    """A rule book that was in force from `created_at` on: what `policy_revision` of a record names."""

    number: int
    revision: str
    document: dict[str, Any]
    created_at: datetime
    created_by: str

    @classmethod
    def of(cls, row: RevisionRow) -> Revision:
        """From its row."""
        return cls(
            number=row.number,
            revision=row.revision,
            document=json.loads(row.document),
            created_at=utc(row.created_at),
            created_by=row.created_by,
        )


class Revisions(BaseModel):
    """Rule books, newest first."""

    revisions: list[Revision]


class AppLimits(_Request):
    """What an app may do for people at most; what is left out is not limited. Tasks: PROJECT/DOMAIN/NAME."""

    actions: list[forms.ActionName] | None = None
    projects: list[str] | None = None
    tasks: list[str] | None = None

    def limits(self) -> Limits:
        """As the use-case takes them."""
        return Limits(
            **{name: None if value is None else frozenset(value) for name, value in self.model_dump().items()}
        )


class Ceiling(AppLimits):
    """The limits of an app from one source: `deploy` or `admin`. All hold together."""

    source: str
    updated_at: datetime
    updated_by: str

    @classmethod
    def of(cls, row: CeilingRow) -> Ceiling:
        """From its row."""
        return cls(
            **json.loads(row.limits),
            source=row.source,
            updated_at=utc(row.updated_at),
            updated_by=row.updated_by,
        )


class Ceilings(BaseModel):
    """The limits of one app."""

    ceilings: list[Ceiling]


@router.post("/authorize", summary="May I, or may they, and why")
async def authorize(call: Caller, question: Question) -> Explained:
    answer = await call.rooms.governance.asking.ask(
        call.principal,
        question.action,
        question.resource,
        subject=question.as_,
        request_id=call.request_id,
    )
    return Explained.of(answer)


@router.get("/roles", summary="List the roles that administrators made")
async def list_roles(call: Caller) -> Roles:
    rows = await call.rooms.governance.policies.roles(call.principal, request_id=call.request_id)
    return Roles(roles=[Role.of(row) for row in rows])


@router.post("/roles", status_code=201, summary="Make a role")
async def add_role(call: Caller, new: NewRole) -> Role:
    return await _put_role(call, new.name, new, create=True)


@router.get("/roles/{name}", summary="One role")
async def get_role(call: Caller, name: str) -> Role:
    row = await call.rooms.governance.policies.role(call.principal, name, request_id=call.request_id)
    return Role.of(row)


@router.put("/roles/{name}", summary="Change a role for all who have it")
async def change_role(call: Caller, name: str, changed: ChangedRole) -> Role:
    return await _put_role(call, name, changed, create=False)


@router.delete("/roles/{name}", status_code=204, summary="Remove a role that nobody has")
async def remove_role(call: Caller, name: str) -> Response:
    await call.rooms.governance.policies.delete_role(call.principal, name, request_id=call.request_id)
    return Response(status_code=204)


@router.get("/groups", summary="List groups with their members")
async def list_groups(call: Caller) -> Groups:
    rows = await call.rooms.governance.groups.groups(call.principal, request_id=call.request_id)
    return Groups(groups=[Group.of(row) for row in rows])


@router.post("/groups", status_code=201, summary="Make a group")
async def add_group(call: Caller, new: NewGroup) -> Group:
    row = await call.rooms.governance.groups.create(
        call.principal,
        new.name,
        members=new.members,
        external=new.external,
        description=new.description,
        request_id=call.request_id,
    )
    return Group.of(row)


@router.get("/groups/{name}", summary="One group")
async def get_group(call: Caller, name: str) -> Group:
    row = await call.rooms.governance.groups.group(call.principal, name, request_id=call.request_id)
    return Group.of(row)


@router.patch("/groups/{name}", summary="Add and remove members")
async def change_group(call: Caller, name: str, changed: ChangedGroup) -> Group:
    row = await call.rooms.governance.groups.update(
        call.principal,
        name,
        add=changed.add,
        remove=changed.remove,
        external=changed.external,
        description=changed.description,
        request_id=call.request_id,
    )
    return Group.of(row)


@router.delete("/groups/{name}", status_code=204, summary="Remove a group and what it was given")
async def remove_group(call: Caller, name: str) -> Response:
    await call.rooms.governance.groups.delete(call.principal, name, request_id=call.request_id)
    return Response(status_code=204)


@router.get("/policies", summary="List the policies that one may view")
async def list_policies(call: Caller) -> Policies:
    rows = await call.rooms.governance.policies.policies(call.principal)
    return Policies(policies=[Policy.of(row) for row in rows])


@router.post("/policies", status_code=201, summary="Write a policy; it is checked and tried first")
async def add_policy(call: Caller, new: NewPolicy) -> Policy:
    return await _put_policy(call, new.name, new, create=True)


@router.get("/policies/{name}", summary="One document of policies")
async def get_policy(call: Caller, name: str) -> Policy:
    row = await call.rooms.governance.policies.policy(call.principal, name, request_id=call.request_id)
    return Policy.of(row)


@router.put("/policies/{name}", summary="Rewrite a policy; it is checked and tried first")
async def change_policy(call: Caller, name: str, changed: ChangedPolicy) -> Policy:
    return await _put_policy(call, name, changed, create=False)


@router.delete("/policies/{name}", status_code=204, summary="Remove a policy")
async def remove_policy(call: Caller, name: str) -> Response:
    await call.rooms.governance.policies.delete_policy(call.principal, name, request_id=call.request_id)
    return Response(status_code=204)


@router.get("/policy-revisions", summary="The rule books there were, newest first")
async def list_revisions(call: Caller) -> Revisions:
    rows = await call.rooms.governance.policies.revisions(call.principal, request_id=call.request_id)
    return Revisions(revisions=[Revision.of(row) for row in rows])


@router.get("/ceilings/{project}/{domain}/{name}", summary="The limits of an app")
async def get_ceilings(call: Caller, project: str, domain: str, name: str) -> Ceilings:
    rows = await call.rooms.governance.ceilings.of(
        call.principal, project, domain, name, request_id=call.request_id
    )
    return Ceilings(ceilings=[Ceiling.of(row) for row in rows])


@router.put("/ceilings/{project}/{domain}/{name}", status_code=204, summary="Limit an app")
async def set_ceiling(call: Caller, project: str, domain: str, name: str, new: AppLimits) -> Response:
    await call.rooms.governance.ceilings.set(
        call.principal, project, domain, name, new.limits(), request_id=call.request_id
    )
    return Response(status_code=204)


@router.delete("/ceilings/{project}/{domain}/{name}", status_code=204, summary="Lift the limit of an app")
async def lift_ceiling(call: Caller, project: str, domain: str, name: str) -> Response:
    await call.rooms.governance.ceilings.set(
        call.principal, project, domain, name, None, request_id=call.request_id
    )
    return Response(status_code=204)


async def _put_role(call: Caller, name: str, given: ChangedRole, *, create: bool) -> Role:
    row = await call.rooms.governance.policies.put_role(
        call.principal,
        name,
        frozenset(given.actions),
        description=given.description,
        create=create,
        request_id=call.request_id,
    )
    return Role.of(row)


async def _put_policy(call: Caller, name: str, given: ChangedPolicy, *, create: bool) -> Policy:
    row = await call.rooms.governance.policies.put_policy(
        call.principal,
        given.written(name),
        description=given.description,
        create=create,
        dry_run=given.dry_run,
        request_id=call.request_id,
    )
    return Policy.of(row)
