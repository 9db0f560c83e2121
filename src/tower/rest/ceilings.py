"""The routes of the limits of apps."""

from __future__ import annotations

import json
from datetime import datetime

from fastapi import APIRouter, Response
from pydantic import BaseModel

from tower.clock import utc
from tower.control.ceilings import CeilingRow, Limits
from tower.rest import forms
from tower.rest.routes import Caller

router = APIRouter(prefix="/api/v1")


class AppLimits(forms.Request):
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
