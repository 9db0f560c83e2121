"""Faults to HTTP: one table, complete by test, and the one shape of every refusal."""

from __future__ import annotations

import json
from collections.abc import Iterable

from tower.errors import HTTP_STATUS, Code, Fault


def body(*, code: str, message: str, hint: str, request_id: str) -> bytes:
    """The JSON of a refusal."""
    error = {"code": code, "message": message, "hint": hint, "request_id": request_id}
    return json.dumps({"error": error}).encode()


def answer(fault: Fault, *, request_id: str) -> tuple[int, bytes]:
    """Status and body of a fault. Of a bug the caller sees the reference alone; the log has the rest."""
    if fault.code is Code.INTERNAL:
        return broken(request_id=request_id)
    return HTTP_STATUS[fault.code], body(
        code=fault.code.value, message=fault.message, hint=fault.hint, request_id=request_id
    )


def broken(*, request_id: str) -> tuple[int, bytes]:
    """The answer to anything unforeseen."""
    return 500, body(
        code=Code.INTERNAL.value,
        message=f"Tower failed. Report the reference {request_id}.",
        hint="",
        request_id=request_id,
    )


def field_message(errors: Iterable[object]) -> str:
    """What is wrong with which field of a request, from pydantic's first error; never the value itself."""
    first = next(iter(errors), {})
    assert isinstance(first, dict)
    place = ".".join(str(part) for part in first.get("loc", ())[1:])[:80]
    return f"The field {place}: {first.get('msg', 'not valid')}." if place else "The body is no JSON object."
