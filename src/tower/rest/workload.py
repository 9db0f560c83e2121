"""The routes that running tasks and apps call for themselves: the secrets they declared, and who they are."""

from __future__ import annotations

import base64

from fastapi import APIRouter
from pydantic import BaseModel

from tower.rest.routes import Caller

router = APIRouter(prefix="/api/v1/workload")


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
async def give_secrets(call: Caller) -> GivenSecrets:
    found = await call.rooms.confidences.use.deliver(call.principal, request_id=call.request_id)
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
