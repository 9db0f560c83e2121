"""The routes of groups."""

from __future__ import annotations

from datetime import datetime

from fastapi import APIRouter, Response
from pydantic import BaseModel, Field

from tower.clock import utc
from tower.control.groups import GroupRow
from tower.rest import forms
from tower.rest.routes import Caller

router = APIRouter(prefix="/api/v1")


class NewGroup(forms.Request):
    """A new group. `external` is the name that an identity provider's claim has for it."""

    name: forms.LowerName
    members: list[str] = Field(default_factory=list, max_length=10_000)
    external: str = ""
    description: str = Field(default="", max_length=1000)


class ChangedGroup(forms.Request):
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
