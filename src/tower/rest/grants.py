"""The routes of standing grants: how long each run may act for its person."""

from __future__ import annotations

from datetime import datetime

from fastapi import APIRouter
from pydantic import BaseModel

from tower.clock import utc
from tower.control.standinggrants import PAGE, Run, Seen
from tower.errors import Invalid
from tower.rest.routes import Caller

router = APIRouter(prefix="/api/v1")


class Grant(BaseModel):
    """The grant of one run. `ended` says why it holds no more, "" while it holds."""

    project: str
    domain: str
    run: str
    user: str
    task: str
    app: str
    credential: str
    phase: str
    created_at: datetime
    expires_at: datetime
    revoked_at: datetime | None
    revoked_by: str
    ended: str

    @classmethod
    def of(cls, seen: Seen) -> Grant:
        """From the row."""
        row = seen.row
        return cls(
            project=row.project,
            domain=row.domain,
            run=row.run,
            user=row.executed_by,
            task=row.task_name,
            app=row.via_app,
            credential=f"{row.credential_kind}:{row.credential_id}",
            phase=row.phase.name,
            created_at=utc(row.created_at),
            expires_at=utc(seen.expires_at),
            revoked_at=None if row.revoked_at is None else utc(row.revoked_at),
            revoked_by=row.revoked_by,
            ended=seen.ended,
        )


class GrantList(BaseModel):
    """Grants by the place of their runs; `next` is the value of `after` for the part behind it."""

    grants: list[Grant]
    next: str | None = None


@router.get("/grants", summary="List the grants of open runs: all for who manages keys, else one's own")
async def list_grants(call: Caller, user: str | None = None, after: str = "") -> GrantList:
    start = None
    if after:
        parts = after.split("/")
        if len(parts) != 3:
            raise Invalid("The field after is no project/domain/run.")
        start = Run(*parts)
    found = await call.rooms.standing_grants.list(
        call.principal, subject=user, after=start, request_id=call.request_id
    )
    last = "/".join(found[-1].row.key[:3]) if len(found) == PAGE else None
    return GrantList(grants=[Grant.of(each) for each in found], next=last)


@router.delete(
    "/grants/{project}/{domain}/{run}", summary="End a grant: the run acts for nobody from its next call on"
)
async def revoke_grant(call: Caller, project: str, domain: str, run: str) -> Grant:
    seen = await call.rooms.standing_grants.revoke(
        call.principal, Run(project, domain, run), request_id=call.request_id
    )
    return Grant.of(seen)
