"""The routes of the audit chain: as it is stored, as JSON lines, and its pruning."""

from __future__ import annotations

from typing import Annotated, Any

from fastapi import APIRouter, Query
from fastapi.responses import StreamingResponse
from pydantic import BaseModel, ConfigDict

from tower.control.auditing import PART
from tower.control.proving import checkpoint_line, record_line
from tower.control.vouching import line as key_line
from tower.rest.routes import Caller

router = APIRouter(prefix="/api/v1")


class Chain(BaseModel):
    """Records exactly as stored, in the order of the chain, with the signed checkpoints among them.

    `next` is the value of `after` for the part behind it. `keys` are the public keys that signed, each
    vouched for by the installation's own.
    """

    records: list[dict[str, Any]]
    checkpoints: list[dict[str, Any]]
    keys: list[dict[str, Any]] = []
    next: int | None = None


class Prune(BaseModel):
    """Remove what a checkpoint signed before this time (seconds since the epoch) vouches for."""

    model_config = ConfigDict(extra="forbid")

    before: float


class Pruned(BaseModel):
    """How many records went, and the number of the last of them."""

    records: int
    through: int


class Signed(BaseModel):
    """The number of the last record that is under a signature."""

    signed_through: int


@router.get("/audit/chain", summary="A part of the audit chain, oldest first, as stored")
async def chain(
    call: Caller,
    after: Annotated[int, Query(ge=0)] = 0,
    limit: Annotated[int, Query(ge=1, le=PART)] = PART,
) -> Chain:
    part = await call.rooms.governance.auditing.part(
        call.principal, after=after, limit=limit, request_id=call.request_id
    )
    return Chain(
        records=[record_line(entry) for entry in part.entries],
        checkpoints=[checkpoint_line(each) for each in part.checkpoints],
        keys=[key_line(each) for each in call.rooms.governance.auditing.public_keys()],
        next=part.next,
    )


@router.get(
    "/audit/export",
    summary="The whole audit chain as JSON lines",
    response_class=StreamingResponse,
    responses={200: {"content": {"application/x-ndjson": {}}}},
)
async def export(call: Caller) -> StreamingResponse:
    lines = await call.rooms.governance.auditing.export(call.principal, request_id=call.request_id)
    return StreamingResponse(lines, media_type="application/x-ndjson")


@router.post("/audit/checkpoint", summary="Sign the end of the audit chain now")
async def checkpoint(call: Caller) -> Signed:
    through = await call.rooms.governance.auditing.signed(call.principal, request_id=call.request_id)
    return Signed(signed_through=through)


@router.post("/audit/prune", summary="Remove old records behind a signed checkpoint")
async def prune(call: Caller, wanted: Prune) -> Pruned:
    done = await call.rooms.governance.auditing.prune(
        call.principal, before=wanted.before, request_id=call.request_id
    )
    return Pruned(records=done.records, through=done.through)
