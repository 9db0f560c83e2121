"""The door itself: request id, size, authenticate, route; and one shape for every refusal."""

from __future__ import annotations

import asyncio
import re
import secrets
from collections.abc import Awaitable, Callable, Iterator, MutableMapping
from importlib.metadata import version
from typing import Any

import structlog
from fastapi import FastAPI, Request, Response
from fastapi.exceptions import RequestValidationError
from fastapi.routing import APIRoute
from starlette.exceptions import HTTPException
from starlette.routing import Match

from tower.arrival import Arrival, again
from tower.control.access import Access
from tower.control.accounts import Accounts
from tower.control.apikeys import ApiKeys
from tower.control.identities import Identities
from tower.control.logins import Logins
from tower.control.schedules import Schedules
from tower.control.signingkeys import SigningKeys
from tower.control.standinggrants import StandingGrants
from tower.control.webhooks import Webhooks
from tower.errors import Code, Fault, Invalid, retry_after
from tower.identity.chain import Chain, Presented
from tower.identity.workload import Workload, WorkloadKind
from tower.policy.actions import ROUTES, Action
from tower.rest import accounts as account_routes
from tower.rest import (
    ceilings,
    description,
    faults,
    grants,
    groups,
    policies,
    questions,
    roles,
    shapes,
    trail,
)
from tower.rest import secrets as secret_routes
from tower.rest import triggers as trigger_routes
from tower.rest import webhooks as webhook_routes
from tower.rest import workload as workload_routes
from tower.rest.routes import Call, Confidences, Governance, Rooms, router

Scope = MutableMapping[str, Any]
Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]

PREFIX = "/api/"
OPENAPI = "/api/openapi.json"
STARTING = "/api/v1/workload/secrets"
"""Where an app is known by its socket alone: it gets its secrets there before it serves anybody."""

MAX_BODY = 128 * 1024
_MAX_PATH = 200

_ROUTERS = (
    router,
    account_routes.router,
    questions.router,
    roles.router,
    groups.router,
    policies.router,
    ceilings.router,
    trail.router,
    grants.router,
    webhook_routes.router,
    secret_routes.router,
    workload_routes.router,
    trigger_routes.router,
)
_SANE_ID = re.compile(r"[\x21-\x7e]{1,128}")
_log = structlog.get_logger("tower.rest")


class _Gone(Exception):
    """The client went away before all of its request was here."""


def build(
    *,
    chain: Chain,
    access: Access,
    identities: Identities,
    api_keys: ApiKeys,
    logins: Logins,
    accounts: Accounts,
    signing_keys: SigningKeys,
    standing_grants: StandingGrants,
    schedules: Schedules,
    governance: Governance,
    webhooks: Webhooks,
    confidences: Confidences,
    base_url: Callable[[str], str],
    org: str,
) -> Door:
    """The ASGI application below `/api/`. `base_url` maps a Host header to Tower's public URL."""
    rooms = Rooms(
        access=access,
        identities=identities,
        api_keys=api_keys,
        logins=logins,
        accounts=accounts,
        signing_keys=signing_keys,
        standing_grants=standing_grants,
        schedules=schedules,
        governance=governance,
        webhooks=webhooks,
        confidences=confidences,
        base_url=base_url,
        org=org,
    )
    return Door(chain=chain, rooms=rooms)


class Door:
    """An ASGI application for http; websockets are refused."""

    def __init__(self, *, chain: Chain, rooms: Rooms) -> None:
        self._chain = chain
        self._rooms = rooms
        self._app = _application()
        self.routes = tuple(_declared())
        """What `tower.policy.actions.check_complete` takes."""

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request."""
        if scope["type"] != "http":
            raise RuntimeError("The administration door serves HTTP only.")
        request_id = _request_id(scope)
        started = False

        async def answering(message: Message) -> None:
            nonlocal started
            if message["type"] == "http.response.start":
                started = True
                message["headers"] = [*message.get("headers", ()), (b"x-request-id", request_id.encode())]
            await send(message)

        try:
            state: dict[str, Any] = {"request_id": request_id}
            if scope["path"] != OPENAPI:
                state["call"] = await self._authenticate(scope, request_id)
            inner = {**scope, "tower.rest.request_id": request_id, "tower.rest.call": state.get("call")}
            arrival = Arrival(scope, receive)
            try:
                whole = await _whole(scope, arrival.receive)
            except (_Gone, asyncio.CancelledError):
                await self._left(scope, state.get("call"), arrival.size)
                raise
            await self._app(inner, whole, answering)
        except _Gone:
            _log.info("rest.cancelled", request_id=request_id, path=scope["path"])
        except Fault as fault:
            _note(fault, request_id)
            await _respond(answering, *faults.answer(fault, request_id=request_id), wait=retry_after(fault))
        except Exception:  # noqa: BLE001  (the boundary: nothing private may pass it)
            _log.exception("rest.broken", request_id=request_id, path=scope["path"])
            if not started:
                status, content = faults.broken(request_id=request_id)
                await _respond(answering, status, content)

    async def _left(self, scope: Scope, call: Call | None, size: int) -> None:
        """The client went away before all of its request was here: put it on record."""
        if call is not None:
            asked = f"{scope['method']} {scope['path'][:_MAX_PATH]}"
            await self._rooms.access.gave_up(
                call.principal,
                self._action(scope),
                request_id=call.request_id,
                detail={"method": asked, "bytes": str(size)},
            )

    def _action(self, scope: Scope) -> Action | None:
        """What the table says that the route of a request does; None where there is no such route."""
        for route in _routes():
            if route.matches(scope)[0] is Match.FULL:
                return ROUTES[f"rest {scope['method']} {route.path}"].action
        return None

    async def _authenticate(self, scope: Scope, request_id: str) -> Call:
        headers = tuple(scope["headers"])
        host = next((value.decode("latin-1") for name, value in headers if name == b"host"), "")
        client = scope.get("client")
        presented = Presented(
            client=client[0] if client else "",
            headers=headers,
            workload=(scope.get("state") or {}).get("workload"),
            secure=scope.get("scheme") == "https",
            host=host.lower(),
            audience="start" if scope["path"] == STARTING and _is_app(scope) else "rest",
        )
        principal = await self._chain.authenticate(presented)
        # over the administration socket the Host header names nothing that a browser could open
        named = "" if presented.workload is not None else host
        return Call(principal, request_id, self._rooms.base_url(named), self._rooms)


def _is_app(scope: Scope) -> bool:
    workload = (scope.get("state") or {}).get("workload")
    return isinstance(workload, Workload) and workload.kind is WorkloadKind.APP


def _application() -> FastAPI:
    app = FastAPI(
        title="Tower administration",
        version=version("flyte-tower"),
        openapi_url=OPENAPI,
        docs_url=None,
        redoc_url=None,
        responses={"default": {"model": shapes.Refusal, "description": "Why the request was refused"}},
    )
    for each in _ROUTERS:
        app.include_router(each)

    @app.exception_handler(Fault)
    async def fault(request: Request, error: Fault) -> Response:
        request_id = request.scope["tower.rest.request_id"]
        _note(error, request_id)
        status, content = faults.answer(error, request_id=request_id)
        wait = retry_after(error)
        headers = {"retry-after": wait} if wait else None
        return Response(content, status, headers=headers, media_type="application/json")

    @app.exception_handler(RequestValidationError)
    async def malformed(request: Request, error: RequestValidationError) -> Response:
        return await fault(request, Invalid(faults.field_message(error.errors())))

    @app.exception_handler(HTTPException)
    async def unrouted(request: Request, error: HTTPException) -> Response:
        request_id = request.scope["tower.rest.request_id"]
        code = Code.NOT_FOUND if error.status_code == 404 else Code.INVALID_ARGUMENT
        content = faults.body(code=code.value, message=str(error.detail), hint="", request_id=request_id)
        headers = dict(error.headers or {})
        if error.status_code == 405:  # each route knows its own methods only
            headers["allow"] = ", ".join(description.methods(app.routes, request))
        return Response(content, error.status_code, headers=headers, media_type="application/json")

    @app.exception_handler(Exception)
    async def broken(request: Request, error: Exception) -> Response:
        # the framework raises the error once more after this answer; the door logs it there
        status, content = faults.broken(request_id=request.scope["tower.rest.request_id"])
        return Response(content, status, media_type="application/json")

    described: dict[str, Any] = {}

    def openapi() -> dict[str, Any]:
        if not described:
            described.update(description.describe(app))
        return described

    app.openapi = openapi  # type: ignore[method-assign]  # FastAPI's own way to replace it
    return app


def _declared() -> list[str]:
    found = [f"rest GET {OPENAPI}"]
    for route in _routes():
        found += [f"rest {method} {route.path}" for method in sorted(route.methods or ())]
    return found


def _routes() -> Iterator[APIRoute]:
    for route in [route for each in _ROUTERS for route in each.routes]:
        assert isinstance(route, APIRoute)
        yield route


async def _whole(scope: Scope, receive: Receive) -> Receive:
    """Read the body, small as it must be, and give it out as one message. Raises Invalid for a larger one."""
    declared = next((value for name, value in scope["headers"] if name == b"content-length"), b"")
    size = int(declared) if declared.isdigit() and len(declared) < 16 else 0
    body, more = b"", True
    while more:
        if max(size, len(body)) > MAX_BODY:
            raise Invalid(f"The body is larger than {MAX_BODY} bytes.")
        message = await receive()
        if message["type"] != "http.request":
            raise _Gone
        body += message.get("body", b"")
        more = message.get("more_body", False)
    if len(body) > MAX_BODY:
        raise Invalid(f"The body is larger than {MAX_BODY} bytes.")
    return again(body, receive)


def _request_id(scope: Scope) -> str:
    sent = next((value.decode("latin-1") for name, value in scope["headers"] if name == b"x-request-id"), "")
    return sent if _SANE_ID.fullmatch(sent) else secrets.token_hex(16)


def _note(fault: Fault, request_id: str) -> None:
    if fault.code is Code.INTERNAL:
        _log.error("rest.fault", request_id=request_id, message=fault.message, cause=fault.cause)
    elif fault.cause:
        _log.info("rest.fault", request_id=request_id, message=fault.message, cause=fault.cause)


async def _respond(send: Send, status: int, content: bytes, *, wait: str = "") -> None:
    headers = [(b"content-type", b"application/json"), (b"content-length", str(len(content)).encode())]
    if status == 401:
        headers.append((b"www-authenticate", b"Bearer"))
    if wait:
        headers.append((b"retry-after", wait.encode()))
    await send({"type": "http.response.start", "status": status, "headers": headers})
    await send({"type": "http.response.body", "body": content})
