"""The door: one request from its headers to the app, in the order in which refusing is cheapest."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass
from urllib.parse import urlsplit

import structlog

from tower.clock import Clock
from tower.control import appspecs
from tower.control.access import Access
from tower.control.apps import Processes
from tower.control.grants import Grants
from tower.control.logins import Logins
from tower.control.places import Place, Places
from tower.control.uses import Uses
from tower.control.webhooks import Webhooks
from tower.errors import (
    Broken,
    Code,
    Denied,
    Exhausted,
    Fault,
    Invalid,
    NotFound,
    Precondition,
    Unauthenticated,
    retry_after,
)
from tower.gateway import hop, origins, paths
from tower.gateway.answers import Receive, Scope, Send, redirect, refuse, respond
from tower.gateway.carrying import Carrier
from tower.gateway.metrics import REQUESTS
from tower.gateway.passage import RECHECK_SECONDS, Gone, Passage
from tower.gateway.request import Request, presented, read
from tower.gateway.webhooks import Delivered, Inlet, signatures
from tower.identity.chain import Chain, NoCredential
from tower.identity.guesses import Guesses
from tower.identity.offers import KEY_HEADERS
from tower.identity.principal import CredentialKind, Principal
from tower.identity.sessions import set_cookie
from tower.policy.actions import Action
from tower.routes import Table
from tower.settings import Settings

WAKE_SECONDS = 30.0

log = structlog.get_logger("tower.gateway")


@dataclass(frozen=True, slots=True)
class Parts:
    """The rooms that the gateway works with. `console` gives the console's base URL for a Host header."""

    places: Places
    chain: Chain
    access: Access
    grants: Grants
    processes: Processes
    logins: Logins
    webhooks: Webhooks
    settings: Settings
    clock: Clock
    console: Callable[[str], str]
    wake_seconds: float = WAKE_SECONDS
    recheck_seconds: float = RECHECK_SECONDS


class Gateway:
    """An ASGI application for http and websocket."""

    def __init__(self, parts: Parts) -> None:
        self._parts = parts
        self._guesses = parts.chain.guesses or Guesses(clock=parts.clock)
        self._uses = Uses(access=parts.access, clock=parts.clock)
        self._carrier = Carrier(
            processes=parts.processes,
            access=parts.access,
            limit=parts.settings.max_body,
            wake_seconds=parts.wake_seconds,
            recheck_seconds=parts.recheck_seconds,
        )
        self._inlet = Inlet(parts.webhooks, clock=parts.clock)
        self._suffix = "." + parts.settings.apps_domain

    def claims(self, scope: Scope) -> bool:
        """Whether a request is the gateway's: by its host below the apps domain, or by its path."""
        raw: bytes = scope.get("raw_path") or b""
        if raw.startswith(paths.PREFIX):
            return True
        for name, value in scope["headers"]:
            if name == b"host":
                host = value.decode("latin-1").lower().rsplit(":", 1)[0].rstrip(".")
                return bool(host.endswith(self._suffix))
        return False

    async def close(self) -> None:
        """Close the connections to the apps, and record what was counted of their use."""
        await self._uses.close()
        await self._carrier.close()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request or websocket."""
        if scope["type"] not in {"http", "websocket"}:
            return
        request_id = self._parts.clock.name("q")
        request: Request | None = None
        try:
            request = read(scope, request_id, places=self._parts.places, suffix=self._suffix)
            await self._serve(request, scope, receive, send)
        except Gone:
            REQUESTS["gone"].inc()
        except Fault as fault:
            REQUESTS[fault.code.value].inc()
            if fault.code is Code.INTERNAL or fault.cause:
                log.warning(
                    "gateway.refused", request_id=request_id, message=fault.message, cause=fault.cause
                )
            html = request is not None and request.wants_page
            await refuse(scope, send, fault, request_id=request_id, html=html, headers=_with(fault, request))
        except Exception:
            REQUESTS["broken"].inc()
            log.exception("gateway.broken", request_id=request_id)
            await refuse(scope, send, Broken("Something went wrong here."), request_id=request_id)

    async def _serve(self, request: Request, scope: Scope, receive: Receive, send: Send) -> None:
        if await self._own(request, scope, send):
            return
        if self._inlet.claims(request):
            await self._deliver(request, scope, receive, send)
            return
        try:
            principal = await self._name(request)
        except Unauthenticated:
            if not request.wants_page or request.shows_key:
                raise
            await self._sign_in(request, scope, send, ended=True)
            return
        if principal is None:
            if await self._greet(request, scope, send):
                return
        elif principal.credential.kind is CredentialKind.SESSION:
            origin = f"{request.scheme}://{request.host}"
            origins.check(request.headers, method=request.method, origin=origin, websocket=request.websocket)
        place = await self._allow(request, principal)
        passage = await self._passage(request, place, principal)
        await self._carrier.carry(passage, scope, receive, send, method=request.method)

    async def _deliver(self, request: Request, scope: Scope, receive: Receive, send: Send) -> None:
        """A signed delivery of a third party: it goes on as whom it is mapped to, once."""
        delivered = await self._checked(request, receive)
        principal = delivered.delivery.principal
        place = await self._allow(request, principal)
        passage = await self._passage(request, place, principal)
        await delivered.take()
        failed = True
        try:
            await self._carrier.carry(
                passage, scope, delivered.receive, delivered.watching(send), method=request.method
            )
            failed = False
        finally:
            await asyncio.shield(delivered.settle(failed=failed))

    async def _checked(self, request: Request, receive: Receive) -> Delivered:
        shown = signatures(request)
        self._patience(request, shown)
        try:
            return await self._inlet.check(request, receive)
        except Unauthenticated:
            self._failed(request, shown)
            raise

    async def _own(self, request: Request, scope: Scope, send: Send) -> bool:
        """Answer what the gateway answers itself, the same for every app."""
        if request.moved and request.wants_page and not request.shows_key:
            there = f"{request.scheme}://{request.moved}{request.target.line or '/'}"
            await redirect(scope, send, there, status=308)
            return True
        if request.prefix and not request.target.raw:
            if request.wants_page:
                await redirect(scope, send, f"{request.prefix}/", status=308)
                return True
        elif not request.prefix and request.target.path.startswith(hop.RESERVED):
            found = None if request.websocket else _RESERVED.find(request.method, request.target.path)
            if found is None:
                raise NotFound("There is nothing here.")
            await found[0](self, request, scope, send)
            return True
        if origins.preflight(request.headers, method=request.method) and not self._public(request):
            # no credential comes with a preflight and none is needed to say that we grant nothing (T49)
            await respond(scope, send, 204, b"", [(b"vary", b"Origin"), (b"cache-control", b"no-store")])
            return True
        return False

    async def _finish(self, request: Request, scope: Scope, send: Send) -> None:
        """A browser comes back from the console with a code for this host."""
        self._patience(request, request.target.query)
        try:
            following, cookies = await hop.finish(
                request.target,
                request.headers,
                host=request.host,
                secure=request.secure,
                logins=self._parts.logins,
                request_id=request.id,
            )
        except (Denied, NotFound, Unauthenticated):
            self._failed(request, request.target.query)
            raise
        await redirect(scope, send, following, headers=cookies)

    async def _name(self, request: Request) -> Principal | None:
        """The caller, or None for a request without any credential."""
        try:
            return await self._parts.chain.authenticate(presented(request))
        except NoCredential:
            return None

    async def _greet(self, request: Request, scope: Scope, send: Send) -> bool:
        """Let an anonymous request pass, or send it to sign in, whether the app exists or not."""
        if self._public(request):
            return False
        if request.wants_page and request.prefix:
            _, _, project, domain, name = request.prefix.split("/")
            label = request.place.host if request.place else appspecs.label(project, domain, name)
            base = appspecs.host_url(
                label,
                base_url=self._parts.console(request.host),
                apps_domain=self._parts.settings.apps_domain,
            )
            await redirect(scope, send, base + (request.target.line or "/"))
            return True
        if request.wants_page:
            await self._sign_in(request, scope, send)
            return True
        raise NoCredential(
            "Authentication credentials required.", hint="Send 'authorization: Bearer <API key>'."
        )

    async def _sign_in(self, request: Request, scope: Scope, send: Send, *, ended: bool = False) -> None:
        """Send the browser to the console for a session; the cookie of one that has ended is taken away."""
        location, cookies = hop.begin(
            request.target, host=request.host, console=self._console(request), secure=request.secure
        )
        if ended:
            cookies.append((b"set-cookie", set_cookie("", secure=request.secure, max_age=0).encode()))
        await redirect(scope, send, location, headers=cookies)

    def _console(self, request: Request) -> str:
        """The console for a browser at an app's own host: by its usual name, and the port that was used."""
        usual = urlsplit(self._parts.console(""))
        port = request.host.rpartition(":")[2] if ":" in request.host else ""
        name = usual.netloc.removesuffix(f":{usual.port}")
        return self._parts.console(f"{name}:{port}" if port else name)

    @staticmethod
    def _public(request: Request) -> bool:
        place = request.place
        return place is not None and (not place.requires_auth or request.target.path in place.public_paths)

    async def _allow(self, request: Request, principal: Principal | None) -> Place:
        place = request.place
        if principal is not None:
            # also where there is no app: what is hidden and what is absent are decided and refused alike
            try:
                decision = await self._parts.access.require(
                    principal, Action.APP_USE, request.asked, request_id=request.id, view=Action.APP_VIEW
                )
                if place is not None:
                    await self._uses.note(principal, decision, request_id=request.id)
            except NotFound:
                place = None
        if place is None:
            raise NotFound("There is no such app, or you may not view it.")
        return place

    async def _passage(self, request: Request, place: Place, principal: Principal | None) -> Passage:
        extra: tuple[tuple[bytes, bytes], ...] = ()
        if principal is not None and place.raw and principal.credential.kind is CredentialKind.API_KEY:
            extra = tuple(
                (name, value)
                for name, value in request.headers
                if name == b"authorization" or name.decode("latin-1") in KEY_HEADERS
            )
        elif principal is not None:
            try:
                token = await self._parts.grants.exchange(principal, place.id)
            except Precondition as error:  # the app is calling itself
                raise Invalid(error.message, hint=error.hint) from error
            extra = ((b"authorization", b"Bearer " + token.encode("ascii")),)

        async def holds() -> bool:
            current = self._parts.places.by_id(place.project, place.domain, place.name)
            if current is None:
                return False
            if principal is None:
                return not current.requires_auth or request.target.path in current.public_paths
            again = await self._again(request, principal)
            if again is None:
                return False
            decision = await self._parts.access.check(again, Action.APP_USE, place.resource)
            return decision.allowed

        return Passage(
            place=place,
            target=request.target if request.target.raw else paths.Target(b"/", "/", request.target.query),
            prefix=request.prefix,
            host=request.host,
            scheme=request.scheme,
            client=request.client,
            request_id=request.id,
            principal=principal,
            extra=extra,
            inbound=request.headers,
            holds=holds,
        )

    async def _again(self, request: Request, principal: Principal) -> Principal | None:
        """The caller as the credential names them now, None when it holds no more."""
        if principal.credential.kind is CredentialKind.WEBHOOK:
            return principal if await self._parts.webhooks.holds(principal) else None
        try:
            return await self._parts.chain.authenticate(presented(request))
        except (Unauthenticated, Exhausted):
            return None

    def _patience(self, request: Request, shown: bytes) -> None:
        """Raise Exhausted where an unknown signature or code is not to be looked at now."""
        self._guesses.check(source=request.client, values=[shown.decode("latin-1")])

    def _failed(self, request: Request, shown: bytes) -> None:
        self._guesses.failed(source=request.client, values=[shown.decode("latin-1")])


def _with(fault: Fault, request: Request | None) -> list[tuple[bytes, bytes]]:
    """What goes with a refusal: when to try again, and the end of a session cookie that does not hold."""
    found: list[tuple[bytes, bytes]] = []
    if wait := retry_after(fault):
        found.append((b"retry-after", wait.encode()))
    if (
        request is not None
        and request.wants_page
        and isinstance(fault, Unauthenticated)
        and not isinstance(fault, NoCredential)
    ):
        found.append((b"set-cookie", set_cookie("", secure=request.secure, max_age=0).encode()))
    return found


_RESERVED = Table("gateway", [("GET", hop.RETURN, Gateway._finish)])
"""What an app's host serves itself; everything else there, and at an app's path, goes to the app."""

ROUTES = (
    f"gateway ANY {paths.TEMPLATE}",
    "gateway ANY <app host>/{path}",
    *(name.replace(" /", " <app host>/") for name in _RESERVED.names),
)


def build(parts: Parts) -> Gateway:
    """The gateway over its parts."""
    return Gateway(parts)
