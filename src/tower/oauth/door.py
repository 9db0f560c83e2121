"""The door as one ASGI application: its routes, its refusals, and the headers that every answer has."""

from __future__ import annotations

import json
import secrets
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Any

import structlog
from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response
from starlette.routing import Route

from tower.arrival import Arrival
from tower.control.access import Access
from tower.control.oauth import Authorisations, Devices, Refusal, Tokens, discovery
from tower.errors import Code, Exhausted, Fault, retry_after
from tower.identity.chain import Chain
from tower.identity.keyring import KeyRing
from tower.identity.outside import OutsideRing
from tower.oauth.authorize import Authorize
from tower.oauth.token import Endpoints
from tower.policy.actions import ROUTES, check_complete

log = structlog.get_logger("tower.oauth")

PREFIXES = (
    f"{discovery.PREFIX}/",
    "/.well-known/oauth-authorization-server",
    "/.well-known/openid-configuration",
)
Handler = Callable[[Request], Awaitable[Response]]

_STATUS = {Code.RESOURCE_EXHAUSTED: 429, Code.UNAVAILABLE: 503, Code.PERMISSION_DENIED: 403}


@dataclass(frozen=True, slots=True)
class Parts:
    """The rooms that the door works with. `issuer` gives Tower's public base URL for a Host header."""

    chain: Chain
    access: Access
    authorisations: Authorisations
    devices: Devices
    tokens: Tokens
    keys: tuple[KeyRing | OutsideRing, ...]
    issuer: Callable[[str], str]


class Door:
    """Serves what `routes` lists."""

    def __init__(self, parts: Parts) -> None:
        self._parts = parts
        table = self._table()
        self.routes = tuple(f"oauth {method} {path}" for method, path, _ in table)
        check_complete(self.routes)
        handlers: dict[Any, Any] = {
            Refusal: self._refused,
            Fault: self._fault,
            HTTPException: self._absent,
            ClientDisconnect: _gone,
            Exception: self._broken,
        }
        self._app = Starlette(
            routes=[Route(path, handler, methods=[method]) for method, path, handler in table],
            exception_handlers=handlers,
        )
        self._app.router.redirect_slashes = False

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        """Serve one request."""
        if scope["type"] != "http":
            if scope["type"] == "websocket":
                await send({"type": "websocket.close", "code": 1008})
            return

        async def answering(message: Any) -> None:
            if message["type"] == "http.response.start":
                headers = list(message.get("headers", ()))
                if not any(name == b"cache-control" for name, _ in headers):
                    headers += [(b"cache-control", b"no-store"), (b"pragma", b"no-cache")]
                # not no-referrer: with that browsers send `Origin: null` with the form of the consent page
                headers += [(b"x-content-type-options", b"nosniff"), (b"referrer-policy", b"same-origin")]
                message["headers"] = headers
            await send(message)

        inner = {**scope, "state": {**scope.get("state", {}), "request_id": secrets.token_hex(16)}}
        arrival = Arrival(scope, receive)
        try:
            await self._app(inner, arrival.receive, answering)
        finally:
            principal = inner["state"].get("visitor")
            if arrival.waited_for and principal is not None:
                route = f"{scope['method']} {scope['path']}"
                await self._parts.access.gave_up(
                    principal,
                    ROUTES[f"oauth {route}"].action,
                    request_id=inner["state"]["request_id"],
                    detail={"method": route, "bytes": str(arrival.size)},
                )

    async def configuration(self, request: Request) -> Response:
        """RFC 8414 section 3, OpenID Connect Discovery section 4."""
        issuer = self._parts.issuer(request.headers.get("host", ""))
        return _json(discovery.metadata(issuer), headers={"cache-control": "public, max-age=60"})

    async def jwks(self, request: Request) -> Response:
        """The public keys of every token that is still good."""
        found = [key for ring in self._parts.keys for key in ring.jwks()["keys"]]
        return _json({"keys": found}, headers={"cache-control": "public, max-age=60"})

    def _table(self) -> list[tuple[str, str, Handler]]:
        pages = Authorize(self._parts.chain, self._parts.authorisations, self._parts.issuer)
        endpoints = Endpoints(
            chain=self._parts.chain,
            authorisations=self._parts.authorisations,
            devices=self._parts.devices,
            tokens=self._parts.tokens,
            issuer=self._parts.issuer,
        )
        return [
            ("GET", "/.well-known/oauth-authorization-server", self.configuration),
            ("GET", "/.well-known/openid-configuration", self.configuration),
            ("GET", discovery.JWKS, self.jwks),
            ("GET", discovery.AUTHORIZE, pages.ask),
            ("POST", discovery.AUTHORIZE, pages.answer),
            ("POST", discovery.TOKEN, endpoints.token),
            ("POST", discovery.DEVICE, endpoints.device),
            ("POST", discovery.REVOKE, endpoints.revoke),
            ("POST", discovery.INTROSPECT, endpoints.introspect),
            ("GET", discovery.USERINFO, endpoints.userinfo),
        ]

    async def _refused(self, request: Request, refusal: Refusal) -> Response:
        headers = {"www-authenticate": 'Basic realm="tower"'} if refusal.status == 401 else None
        return refused(refusal.error, refusal.description, status=refusal.status, headers=headers)

    async def _fault(self, request: Request, fault: Fault) -> Response:
        if fault.code is Code.INTERNAL:
            return await self._broken(request, fault)
        if fault.code is Code.UNAUTHENTICATED:  # of a bearer, RFC 6750 section 3.1
            headers = {"www-authenticate": 'Bearer error="invalid_token"'}
            return refused("invalid_token", fault.public, status=401, headers=headers)
        # "slow_down" is for devices that poll (RFC 8628 section 3.5); how long to wait is told by RFC 6585
        error = "temporarily_unavailable" if isinstance(fault, Exhausted) else "invalid_request"
        wait = retry_after(fault)
        later = {"retry-after": wait} if wait else {}
        return refused(error, fault.public, status=_STATUS.get(fault.code, 400), headers=later)

    async def _absent(self, request: Request, error: HTTPException) -> Response:
        return refused("invalid_request", str(error.detail), status=error.status_code, headers=error.headers)

    async def _broken(self, request: Request, error: Exception) -> Response:
        reference = request.state.request_id
        cause = error.cause if isinstance(error, Fault) else ""
        log.error("broken", request_id=reference, cause=cause, exc_info=error)
        return refused("server_error", f"Tower failed. Report the reference {reference}.", status=500)


async def _gone(request: Request, error: Exception) -> Response:
    """Nobody waits for this answer."""
    return Response(status_code=499)


def _json(content: Any, *, status: int = 200, headers: Any = None) -> Response:
    return Response(json.dumps(content), status, headers=headers, media_type="application/json")


def refused(error: str, description: str, *, status: int = 400, headers: Any = None) -> Response:
    """An error of RFC 6749 section 5.2; in its description stand only the characters allowed there."""
    plain = "".join(c if c.isascii() and c.isprintable() and c not in '"\\' else "'" for c in description)
    return _json({"error": error, "error_description": plain}, status=status, headers=headers)


def build(parts: Parts) -> Door:
    """The door over its parts."""
    return Door(parts)
