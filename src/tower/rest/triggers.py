"""The routes of triggers: looking at schedules, and switching them. They are set up along with their task."""

from __future__ import annotations

from datetime import datetime
from typing import Annotated

from fastapi import APIRouter, Query, Response
from pydantic import BaseModel

from tower.clock import utc
from tower.control import listing
from tower.control.schedules import TriggerKey, TriggerRow
from tower.control.triggerviews import spoken
from tower.rest.routes import Call, Caller

router = APIRouter(prefix="/api/v1")

_ONE = "/triggers/{project}/{domain}/{task}/{name}"


class Trigger(BaseModel):
    """A trigger. `run_as` is whom it runs as, "" while nobody activated it; `notice` says what is wrong."""

    project: str
    domain: str
    task: str
    name: str
    revision: int
    version: str
    schedule: str
    description: str
    state: str
    notice: str
    owner: str
    run_as: str
    deployed_by: str
    updated_by: str
    updated_at: datetime
    next_at: datetime | None
    last_at: datetime | None
    last_run: str

    @classmethod
    def of(cls, row: TriggerRow) -> Trigger:
        """From the row."""
        return cls(
            project=row.project,
            domain=row.domain,
            task=row.task,
            name=row.name,
            revision=row.revision,
            version=row.version,
            schedule=spoken(row),
            description=row.description,
            state=row.state.value,
            notice=row.notice,
            owner=row.owner,
            run_as=row.run_as,
            deployed_by=row.deployed_by,
            updated_by=row.updated_by,
            updated_at=utc(row.updated_at),
            next_at=None if row.next_at is None else utc(row.next_at),
            last_at=None if row.last_at is None else utc(row.last_at),
            last_run=row.last_run,
        )


class Triggers(BaseModel):
    """Triggers; `next` is the value of `token` for those behind them."""

    triggers: list[Trigger]
    next: str | None = None


@router.get("/triggers", summary="List the triggers of tasks that the caller may view")
async def list_triggers(
    call: Caller,
    *,
    project: str = "",
    domain: str = "",
    task: str = "",
    token: str = "",
    limit: Annotated[int, Query(ge=1, le=listing.MAX_PAGE)] = 100,
) -> Triggers:
    rows, following = await call.rooms.schedules.views.page(
        call.principal,
        listing.Query(limit=limit, token=token),
        project=project,
        domain=domain,
        task=task,
    )
    return Triggers(triggers=[Trigger.of(row) for row in rows], next=following or None)


@router.get(_ONE, summary="One trigger")
async def get_trigger(call: Caller, project: str, domain: str, task: str, name: str) -> Trigger:
    return await _shown(call, TriggerKey(project, domain, task, name))


@router.post(f"{_ONE}/activate", summary="Have a trigger run from now on, as the caller")
async def activate_trigger(call: Caller, project: str, domain: str, task: str, name: str) -> Trigger:
    return await _switched(call, TriggerKey(project, domain, task, name), active=True)


@router.post(f"{_ONE}/pause", summary="Have a trigger start nothing until somebody activates it")
async def pause_trigger(call: Caller, project: str, domain: str, task: str, name: str) -> Trigger:
    return await _switched(call, TriggerKey(project, domain, task, name), active=False)


@router.delete(_ONE, status_code=204, summary="Delete a trigger; its runs stay")
async def delete_trigger(call: Caller, project: str, domain: str, task: str, name: str) -> Response:
    key = TriggerKey(project, domain, task, name)
    await call.rooms.schedules.delete(call.principal, [key], request_id=call.request_id)
    return Response(status_code=204)


async def _switched(call: Call, key: TriggerKey, *, active: bool) -> Trigger:
    await call.rooms.schedules.set_active(call.principal, [key], active, request_id=call.request_id)
    return await _shown(call, key)


async def _shown(call: Call, key: TriggerKey) -> Trigger:
    shown = await call.rooms.schedules.views.get(call.principal, key, request_id=call.request_id)
    return Trigger.of(shown.row)
