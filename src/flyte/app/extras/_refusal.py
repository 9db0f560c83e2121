"""A request that goes no further: its answer over http, and before a websocket is accepted."""

from __future__ import annotations

from typing import Any, Self

from starlette.responses import JSONResponse, Response
from starlette.types import Receive, Scope, Send

POLICY_VIOLATION = 1008  # RFC 6455 section 7.4.1


class Refusal(Exception):
    """The status and the public text of the answer."""

    def __init__(self, status: int, detail: str, headers: dict[str, str] | None = None) -> None:
        super().__init__(detail)
        self.status = status
        self.detail = detail
        self.headers = headers or {}

    @classmethod
    def missing(cls) -> Self:
        """No usable credential came."""
        return cls(401, "Authentication credentials required", {"WWW-Authenticate": "Bearer"})

    @classmethod
    def invalid(cls) -> Self:
        """The control plane does not know the credential (RFC 6750 section 3.1)."""
        challenge = {"WWW-Authenticate": 'Bearer error="invalid_token"'}
        return cls(401, "Authentication credentials are not valid", challenge)

    @classmethod
    def ambiguous(cls, name: str) -> Self:
        """One header names two callers."""
        return cls(400, f"More than one {name}: the request names more than one caller")

    @classmethod
    def foreign_origin(cls) -> Self:
        """A page of another origin may have caused this request with the visitor's cookie."""
        return cls(403, "A session cookie alone is accepted from pages of this app only")

    @classmethod
    def unavailable(cls) -> Self:
        """The credential cannot be checked now."""
        return cls(503, "The control plane cannot be reached", {"Retry-After": "1"})

    @classmethod
    def forbidden(cls) -> Self:
        """The caller is known, and may not call."""
        return cls(403, "The caller may not do this")

    def response(self) -> Response:
        """The answer as a JSON response; never cached."""
        headers = {"Cache-Control": "no-store", **self.headers}
        return JSONResponse({"detail": self.detail}, self.status, headers)

    async def answer(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Send the answer; a websocket is refused before it is accepted."""
        if scope["type"] == "http" or "websocket.http.response" in (scope.get("extensions") or {}):
            await self.response()(scope, receive, send)
        else:
            close: dict[str, Any] = {
                "type": "websocket.close",
                "code": POLICY_VIOLATION,
                "reason": self.detail,
            }
            await send(close)
