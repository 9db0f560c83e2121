"""The routes of passwords and signing keys."""

from __future__ import annotations

from fastapi import APIRouter, Response
from pydantic import BaseModel, ConfigDict, SecretStr

from tower.rest.routes import Caller

router = APIRouter(prefix="/api/v1")


class NewPassword(BaseModel):
    """A password on its way in. It is never shown."""

    model_config = ConfigDict(extra="forbid")

    password: SecretStr


class RotatedKey(BaseModel):
    """The public id of the key that signs from now on."""

    kid: str


@router.put("/users/{name}/password", status_code=204, summary="Give a person a password; ends their logins")
async def set_password(call: Caller, name: str, new: NewPassword) -> Response:
    await call.rooms.accounts.set_password(
        call.principal, name, new.password.get_secret_value(), request_id=call.request_id
    )
    return Response(status_code=204)


@router.delete("/users/{name}/password", status_code=204, summary="Take a person's password away")
async def delete_password(call: Caller, name: str) -> Response:
    await call.rooms.accounts.delete_password(call.principal, name, request_id=call.request_id)
    return Response(status_code=204)


@router.post("/users/{name}/logout", status_code=204, summary="End a person's sessions and logins")
async def end_logins(call: Caller, name: str) -> Response:
    await call.rooms.accounts.end_logins(call.principal, name, request_id=call.request_id)
    return Response(status_code=204)


@router.post("/signing-keys/rotate", summary="Sign with a new key; on the machine itself only")
async def rotate_signing_key(call: Caller) -> RotatedKey:
    return RotatedKey(kid=await call.rooms.signing_keys.rotate(call.principal, request_id=call.request_id))
