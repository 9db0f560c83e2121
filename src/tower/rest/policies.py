"""The routes of policies, and of the rule books that there were."""

from __future__ import annotations

import json
from datetime import datetime
from typing import Any

from fastapi import APIRouter, Response
from pydantic import BaseModel, Field

from tower.clock import utc
from tower.control.policies import PolicyRow, RevisionRow
from tower.policy.rulebook import MAX_TEXT, Written
from tower.rest import forms
from tower.rest.routes import Caller

router = APIRouter(prefix="/api/v1")


class ChangedPolicy(forms.Request):
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


@router.get("/policy-revisions", summary="The rule books there were, newest first")
async def list_revisions(call: Caller) -> Revisions:
    rows = await call.rooms.governance.policies.revisions(call.principal, request_id=call.request_id)
    return Revisions(revisions=[Revision.of(row) for row in rows])
