"""The OpenAPI description: what FastAPI derives from the routes, made true where the door differs from it.

The door authenticates before anything else, refuses in one shape, and answers a malformed request with 400.
"""

from __future__ import annotations

from collections.abc import Iterable
from http import HTTPStatus
from typing import Any

from fastapi import FastAPI
from fastapi.openapi.utils import get_openapi
from starlette.requests import Request
from starlette.routing import BaseRoute, Match

from tower.errors import HTTP_STATUS, Code

REFUSAL = "#/components/schemas/Refusal"

_SCHEMES: dict[str, dict[str, str]] = {
    "bearer": {
        "type": "http",
        "scheme": "bearer",
        "description": "An API key, an access token, or an app token on its app's socket.",
    },
    "apiKey": {"type": "apiKey", "in": "header", "name": "x-api-key"},
    "flyteToken": {"type": "apiKey", "in": "header", "name": "x-flyte-token"},
    "session": {"type": "apiKey", "in": "cookie", "name": "__Host-tower_session"},
}


def describe(app: FastAPI) -> dict[str, Any]:
    """The description as it is served."""
    found = get_openapi(
        title=app.title,
        version=app.version,
        routes=app.routes,
        description="Every route needs a credential. The operator of the machine also has the socket.",
    )
    found["components"]["securitySchemes"] = _SCHEMES
    found["security"] = [{name: []} for name in _SCHEMES]
    for item in found["paths"].values():
        for operation in item.values():
            operation["responses"] = _responses(operation["responses"])
    schemas = found["components"]["schemas"]
    for name in ("HTTPValidationError", "ValidationError"):
        schemas.pop(name, None)
    return found


def methods(routes: Iterable[BaseRoute], request: Request) -> list[str]:
    """What may be asked of the path of this request, whichever route it stands in."""
    matching = [route for route in routes if route.matches(request.scope)[0] is not Match.NONE]
    return sorted({method for route in matching for method in getattr(route, "methods", None) or ()})


def _responses(declared: dict[str, Any]) -> dict[str, Any]:
    """The successes as declared, and every refusal there is, each in its one shape."""
    succeeding = {status: answer for status, answer in declared.items() if status.startswith("2")}
    for answer in succeeding.values():
        answer["headers"] = {"x-request-id": _REQUEST_ID}
    refusing = {}
    for status in sorted({HTTP_STATUS[code] for code in Code} | {405}):
        headers: dict[str, Any] = {"x-request-id": _REQUEST_ID}
        if status == HTTPStatus.UNAUTHORIZED:
            headers["www-authenticate"] = {"required": True, "schema": {"type": "string"}}
        refusing[str(status)] = {
            "description": HTTPStatus(status).phrase,
            "headers": headers,
            "content": {"application/json": {"schema": {"$ref": REFUSAL}}},
        }
    return {**succeeding, **refusing}


_REQUEST_ID = {
    "description": "The request's own, or one made for it; the log and the audit trail have it too.",
    "required": True,
    "schema": {"type": "string", "minLength": 1, "maxLength": 128},
}
