"""The routes that running tasks and apps call for themselves: the secrets they declared, and who they are."""

from __future__ import annotations

import base64
from datetime import datetime

from fastapi import APIRouter
from pydantic import BaseModel, ConfigDict

from tower.clock import utc
from tower.rest.routes import Caller

router = APIRouter(prefix="/api/v1/workload")


class Audience(BaseModel):
    """Whom the token is for."""

    model_config = ConfigDict(extra="forbid", strict=True, str_max_length=1024)

    audience: str


class IdentityToken(BaseModel):
    """A token on its way out, and when it ends."""

    token: str
    expires_at: datetime


class Asked(BaseModel):
    """The ticket of an app that is being started; a task has none."""

    model_config = ConfigDict(extra="forbid", strict=True, str_max_length=128)

    ticket: str = ""


class GivenSecret(BaseModel):
    """One secret: its value in base64 goes into `variable`, or with `file` into a file named there."""

    name: str
    variable: str
    file: bool
    value: str


class GivenSecrets(BaseModel):
    """What the caller declared, in the order of the declaration."""

    secrets: list[GivenSecret]


@router.post("/secrets", summary="The secrets that the calling task or app declared")
async def give_secrets(call: Caller, asked: Asked) -> GivenSecrets:
    found = await call.rooms.confidences.use.deliver(
        call.principal, ticket=asked.ticket, request_id=call.request_id
    )
    return GivenSecrets(
        secrets=[
            GivenSecret(
                name=each.name,
                variable=each.variable,
                file=each.file,
                value=base64.b64encode(each.value).decode(),
            )
            for each in found
        ]
    )


@router.post("/identity-token", summary="Whom the calling task acts for, said to one audience outside")
async def give_identity(call: Caller, asked: Audience) -> IdentityToken:
    made = await call.rooms.confidences.outside.identify(
        call.principal, asked.audience, issuer=call.base_url, request_id=call.request_id
    )
    return IdentityToken(token=made.text, expires_at=utc(made.expires_at))
