"""The console as one ASGI application: routes, refusals as pages, and the headers that every answer has."""

from __future__ import annotations

import secrets
from collections.abc import Awaitable, Callable
from typing import Any

import structlog
from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect, Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from tower.arrival import Arrival
from tower.console.account import Account
from tower.console.device import DevicePages
from tower.console.pages import AppPages, Runs
from tower.console.parts import Parts
from tower.console.passwords import Passwords
from tower.console.providers import RETURN, SIGN_IN, Providers
from tower.console.requests import shows_key, visit
from tower.console.signin import SignIn, to_sign_in
from tower.console.templates import STATIC, later, nothing, page
from tower.console.triggers import TriggerPages
from tower.errors import HTTP_STATUS, Code, Fault, Unauthenticated, retry_after
from tower.identity.chain import NoCredential
from tower.policy.actions import ROUTES, Action, Resource, ResourceType

log = structlog.get_logger("tower.console")

Handler = Callable[[Request], Awaitable[Response]]
_RUN = "/v2/domain/{domain}/project/{project}/runs/{name}"
_APP = "/v2/domain/{domain}/project/{project}/apps/{name}"
_TRIGGER = "/v2/domain/{domain}/project/{project}/triggers/{task}/{name}"
_HEADERS = (
    (
        b"content-security-policy",
        b"default-src 'none'; style-src 'self'; script-src 'self'; img-src 'self'; connect-src 'self'; "
        b"form-action 'self'; base-uri 'none'; frame-ancestors 'none'",
    ),
    (b"x-content-type-options", b"nosniff"),
    (b"x-frame-options", b"DENY"),
    # not no-referrer: with that browsers send `Origin: null` with a page's own forms, which own_page refuses
    (b"referrer-policy", b"same-origin"),
    (b"cross-origin-opener-policy", b"same-origin"),
    (b"cross-origin-resource-policy", b"same-origin"),
    (b"permissions-policy", b"camera=(), microphone=(), geolocation=()"),
)


class Console:
    """Serves what `ROUTES` lists; every other path is the page of nothing."""

    def __init__(self, parts: Parts) -> None:
        self._parts = parts
        table = _table(parts, self)
        self._paths = {handler: path for method, path, handler in table if method == "POST"}
        self.routes = tuple(f"console {method} {path}" for method, path, _ in table)
        handlers: dict[Any, Any] = {
            Fault: self._refused,
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
                    headers.append((b"cache-control", b"no-store"))
                message["headers"] = [*headers, *_HEADERS]
            await send(message)

        # a copy: nothing that runs here may change what other doors see
        inner = {**scope, "state": {**scope.get("state", {}), "request_id": secrets.token_hex(16)}}
        arrival = Arrival(scope, receive)
        try:
            await self._app(inner, arrival.receive, answering)
        finally:
            if arrival.waited_for:
                await self._left(inner, arrival.size)

    async def _left(self, scope: Any, size: int) -> None:
        """A known caller went away before all of a form was here: put it on record."""
        principal = scope["state"].get("visitor")
        route = f"console {scope['method']} {self._paths.get(scope.get('endpoint'), '')}"
        if principal is not None and route in ROUTES:
            await self._parts.access.gave_up(
                principal,
                ROUTES[route].action,
                request_id=scope["state"]["request_id"],
                detail={"method": route.removeprefix("console "), "bytes": str(size)},
            )

    async def health(self, request: Request) -> Response:
        """Whether Tower answers, and how it keeps tasks and apps apart."""
        isolation = self._parts.isolation
        return JSONResponse({"status": "ok"} | ({"isolation": isolation} if isolation else {}))

    async def metrics(self, request: Request) -> Response:
        """What Tower counts, for who may view the audit."""
        found = await visit(request, self._parts.chain)
        await self._parts.access.require(
            found.principal, Action.AUDIT_VIEW, Resource(ResourceType.ORG), request_id=found.request_id
        )
        from tower import exposition  # not at the top of this file: see there

        return Response(exposition.text(), media_type=exposition.MEDIA_TYPE)

    async def static(self, request: Request) -> Response:
        """The style sheet, the script and the icon."""
        return _static(request.path_params["file"])

    async def icon(self, request: Request) -> Response:
        """Where browsers look for an icon when what they show is no page that names one."""
        return _static("icon.svg")

    async def _refused(self, request: Request, fault: Fault) -> Response:
        if (
            isinstance(fault, Unauthenticated)
            and request.method in {"GET", "HEAD"}
            and not shows_key(request)
        ):
            if isinstance(fault, NoCredential):
                return to_sign_in(request)
            if not request.scope["path"].startswith("/signin"):
                return to_sign_in(request, ended=True)
        if fault.code is Code.NOT_FOUND:
            return nothing()
        status = HTTP_STATUS[fault.code]
        text = fault.public
        if fault.code is Code.INTERNAL:
            text = self._reference(request, fault)
        if shows_key(request):
            headers = {"www-authenticate": "Bearer"} if status == 401 else {}
            if wait := retry_after(fault):
                headers["retry-after"] = wait
            return JSONResponse({"detail": text}, status, headers=headers)
        return later(page("message.html", status=status, title="That did not work", text=text), fault)

    async def _absent(self, request: Request, error: HTTPException) -> Response:
        if error.status_code == 405:
            return page("message.html", status=405, title="That did not work", text="No such method here.")
        return nothing()

    async def _broken(self, request: Request, error: Exception) -> Response:
        text = self._reference(request, error)
        return page("message.html", status=500, title="That did not work", text=text)

    @staticmethod
    def _reference(request: Request, error: Exception) -> str:
        reference = request.state.request_id
        cause = error.cause if isinstance(error, Fault) else ""
        log.error("broken", request_id=reference, cause=cause, exc_info=error)
        return f"Something went wrong here; the reference is {reference}."


def _static(name: str) -> Response:
    found = STATIC.get(name)
    if found is None:
        return nothing()
    kind, content = found
    return Response(content, headers={"content-type": kind, "cache-control": "public, max-age=300"})


async def _gone(request: Request, error: Exception) -> Response:
    """Nobody waits for this answer."""
    return Response(status_code=499)


def _table(parts: Parts, console: Console) -> list[tuple[str, str, Handler]]:
    signin, runs, apps, triggers = SignIn(parts), Runs(parts), AppPages(parts), TriggerPages(parts)
    passwords, devices, providers = Passwords(parts), DevicePages(parts), Providers(parts)
    account = Account(parts)
    return [
        ("GET", "/", runs.index),
        ("GET", "/v2/domain/{domain}/project/{project}/runs", runs.index),
        ("GET", "/v2/domain/{domain}/project/{project}/tasks/{name}", runs.index),
        ("GET", _RUN, runs.one),
        ("GET", f"{_RUN}/events", runs.events),
        ("GET", f"{_RUN}/logs", runs.logs),
        ("POST", f"{_RUN}/abort", runs.abort),
        ("POST", f"{_RUN}/revoke", runs.revoke),
        ("GET", "/v2/apps", apps.index),
        ("GET", _APP, apps.one),
        ("GET", f"{_APP}/events", apps.events),
        ("GET", "/v2/triggers", triggers.index),
        ("GET", "/v2/domain/{domain}/project/{project}/triggers", triggers.index),
        ("GET", _TRIGGER, triggers.one),
        ("GET", "/signin", signin.ask),
        ("POST", "/signin", signin.paste),
        ("GET", "/signin/{code}", signin.follow),
        ("POST", "/signin/{code}", signin.confirm),
        ("GET", SIGN_IN, providers.begin),
        ("GET", RETURN, providers.finish),
        ("GET", "/login", signin.ask),
        ("POST", "/login", passwords.enter),
        ("GET", "/account", account.ask),
        ("POST", "/account", account.change),
        ("GET", "/device", devices.ask),
        ("POST", "/device", devices.answer),
        ("POST", "/signout", signin.leave),
        ("GET", "/apps-login", signin.carry),
        ("GET", "/static/{file}", console.static),
        ("GET", "/favicon.ico", console.icon),
        ("GET", "/healthz", console.health),
        ("GET", "/metrics", console.metrics),
    ]


def build(parts: Parts) -> Console:
    """The console over its parts."""
    return Console(parts)
