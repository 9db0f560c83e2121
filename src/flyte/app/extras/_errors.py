"""Flyte errors as HTTP answers: one table, and no internals in any of them."""

from __future__ import annotations

import logging
from typing import Any

from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.websockets import WebSocket

from flyte import errors

log = logging.getLogger("flyte.app")

STATUS: dict[type[errors.FlyteError], int] = {
    errors.RemoteUsageError: 400,
    errors.UnauthenticatedError: 401,
    errors.PermissionDeniedError: 403,
    errors.RemoteNotFoundError: 404,
    errors.AlreadyExistsError: 409,
    errors.FailedPreconditionError: 412,
    errors.ResourceExhaustedError: 429,
    errors.UnavailableError: 503,
    errors.DeadlineExceededError: 504,
}
"""The classes that say something about the request. Everything else is the app's or the platform's failure
and stays a 500 that tells nothing."""

_FIXED = {
    401: "Authentication credentials are missing or not valid",
    503: "The control plane cannot be reached; try again later",
    504: "The control plane did not answer in time",
}
_HEADERS = {
    401: {"WWW-Authenticate": "Bearer"},
    429: {"Retry-After": "1"},
    503: {"Retry-After": "1"},
}


async def flyte_error_handler(request: Request | WebSocket, error: Exception) -> Response | None:
    """Answer a Flyte error with its status and `{"detail": ...}`; for `app.add_exception_handler`.

    401 carries `WWW-Authenticate: Bearer`. The text of 401, 503 and 504 is fixed, because their cause
    (an address, a token's fault) is nothing for the caller. A websocket is closed instead: 1008 when the
    caller is at fault, 1013 when trying again may help (RFC 6455 section 7.4, IANA registry).
    """
    for kind in type(error).__mro__:
        status = STATUS.get(kind)
        if status is not None:
            break
    else:
        raise error
    message = error.message if isinstance(error, errors.FlyteError) else ""
    log.info("%r answered %d for a %s", request.scope["path"], status, type(error).__name__)
    detail = _FIXED.get(status) or message or "The request cannot be served"
    if isinstance(request, WebSocket):
        reason = detail.encode()[:120].decode(errors="ignore")  # a close frame holds 123 bytes of it
        await request.close(1008 if status < 500 else 1013, reason)
        return None
    return JSONResponse({"detail": detail}, status, {"Cache-Control": "no-store", **_HEADERS.get(status, {})})


def install_error_handlers(app: Any) -> None:
    """Make a FastAPI or Starlette app answer Flyte errors of its handlers as 400, 401, 403, 404, 409, 412,
    429, 503 and 504.

    Call it once, before the app starts. A handler that catches an error itself is not touched.
    """
    for kind in STATUS:
        app.add_exception_handler(kind, flyte_error_handler)
