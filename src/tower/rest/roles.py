"""The routes of roles that administrators made."""

from __future__ import annotations

from datetime import datetime

from fastapi import APIRouter, Response
from pydantic import BaseModel, Field

from tower.clock import utc
from tower.control.policies import RoleRow
from tower.rest import forms
from tower.rest.routes import Caller

router = APIRouter(prefix="/api/v1")


class ChangedRole(forms.Request):
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
