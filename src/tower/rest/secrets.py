"""The routes of secrets. A value goes in and never comes out, except to running work that declared it."""

from __future__ import annotations

import base64
import binascii
from datetime import datetime

from fastapi import APIRouter, Response
from pydantic import BaseModel, ConfigDict, Field, SecretStr

from tower.clock import utc
from tower.control.secrets import MAX_VALUE, SecretPlace, SecretRow, level
from tower.errors import Invalid
from tower.rest.routes import Call, Caller

router = APIRouter(prefix="/api/v1")

_LONGEST = -(-MAX_VALUE // 3) * 4


class _Value(BaseModel):
    """The value in base64: a secret may be any bytes."""

    model_config = ConfigDict(extra="forbid", strict=True)

    value: SecretStr = Field(max_length=_LONGEST, json_schema_extra={"contentEncoding": "base64"})

    def content(self) -> bytes:
        """The bytes. Raises Invalid."""
        try:
            return base64.b64decode(self.value.get_secret_value(), validate=True)
        except (ValueError, binascii.Error):
            raise Invalid("The value is not base64.") from None


class NewSecret(_Value):
    """A secret on its way in: in a project and domain, in a project, in neither, or one's own."""

    name: str = Field(max_length=512)
    project: str = Field(default="", max_length=512)
    domain: str = Field(default="", max_length=512)
    personal: bool = False


class ChangedSecret(_Value):
    """The value that takes the place of the former one."""


class Secret(BaseModel):
    """All about a secret but its value. `level` says how far it reaches: personal, domain, project or org."""

    id: str
    name: str
    level: str
    project: str
    domain: str
    version: int
    created_at: datetime
    created_by: str
    updated_at: datetime
    updated_by: str

    @classmethod
    def of(cls, row: SecretRow) -> Secret:
        """From the row."""
        return cls(
            id=row.id,
            name=row.name,
            level=level(row),
            project=row.project,
            domain=row.domain,
            version=row.version,
            created_at=utc(row.created_at),
            created_by=row.created_by,
            updated_at=utc(row.updated_at),
            updated_by=row.updated_by,
        )


class SecretList(BaseModel):
    """Secrets by place and name, and the position of the next ones, or none."""

    secrets: list[Secret]
    next: int | None


class SealingKey(BaseModel):
    """The id of the key that secrets are sealed with from now on."""

    key_id: str


@router.post("/secrets", status_code=201, summary="Keep a new secret")
async def add_secret(call: Caller, new: NewSecret) -> Secret:
    place = _place(call, new.name, new.project, new.domain, personal=new.personal)
    row = await call.rooms.confidences.secrets.create(
        call.principal, place, new.content(), request_id=call.request_id
    )
    return Secret.of(row)


@router.get("/secrets", summary="List secrets that the caller may know of, the caller's own included")
async def list_secrets(
    call: Caller, project: str = "", domain: str = "", after: int = 0, limit: int = 1000
) -> SecretList:
    page = await call.rooms.confidences.secrets.page(
        call.principal, project=project, domain=domain, personal=True, after=max(0, after), limit=limit
    )
    return SecretList(
        secrets=[Secret.of(row) for row in page.rows], next=int(page.token) if page.token else None
    )


@router.get("/secrets/{name}", summary="One secret, without its value")
async def get_secret(
    call: Caller, name: str, project: str = "", domain: str = "", personal: bool = False
) -> Secret:
    place = _place(call, name, project, domain, personal=personal)
    return Secret.of(
        await call.rooms.confidences.secrets.get(call.principal, place, request_id=call.request_id)
    )


@router.put("/secrets/{name}", summary="Put another value in place of the former one")
async def change_secret(  # noqa: PLR0917 - the parameters of one route
    call: Caller,
    name: str,
    changed: ChangedSecret,
    project: str = "",
    domain: str = "",
    personal: bool = False,
) -> Secret:
    place = _place(call, name, project, domain, personal=personal)
    row = await call.rooms.confidences.secrets.update(
        call.principal, place, changed.content(), request_id=call.request_id
    )
    return Secret.of(row)


@router.delete("/secrets/{name}", status_code=204, summary="Forget a secret")
async def delete_secret(
    call: Caller, name: str, project: str = "", domain: str = "", personal: bool = False
) -> Response:
    place = _place(call, name, project, domain, personal=personal)
    await call.rooms.confidences.secrets.delete(call.principal, place, request_id=call.request_id)
    return Response(status_code=204)


@router.post("/sealing-keys/rotate", summary="Seal all secrets with a new key; on the machine itself alone")
async def rotate_sealing_key(call: Caller) -> SealingKey:
    made = await call.rooms.confidences.secrets.rotate_key(call.principal, request_id=call.request_id)
    return SealingKey(key_id=made)


def _place(call: Call, name: str, project: str, domain: str, *, personal: bool) -> SecretPlace:
    return SecretPlace(name, project, domain, call.principal.subject if personal else "")
