"""The page that asks a person whether a program on their machine may act for them.

It always asks (RFC 8252 section 8.6): anything on the machine can open the address and listen on loopback.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import urlencode, urlsplit

from starlette.requests import Request
from starlette.responses import HTMLResponse, RedirectResponse, Response

from tower.control.oauth import Asked, Authorisations, Refusal
from tower.control.oauth.authorisations import check_person, check_target, read
from tower.errors import Denied, Unauthenticated
from tower.identity.chain import Chain
from tower.identity.principal import Principal
from tower.oauth.requests import form, host, own_page, presented, query, source

if TYPE_CHECKING:
    from jinja2 import Environment

_POLICY = (
    "default-src 'none'; style-src 'self'; base-uri 'none'; frame-ancestors 'none'; "
    "form-action 'self'{target}"
)


class Authorize:
    """The handlers of the authorisation endpoint (RFC 6749 section 3.1)."""

    def __init__(self, chain: Chain, authorisations: Authorisations, issuer: Callable[[str], str]) -> None:
        self._chain = chain
        self._authorisations = authorisations
        self._issuer = issuer

    async def ask(self, request: Request) -> Response:
        """Show who asks for what; a browser without a session signs in first."""
        checked = self._checked(request)
        if isinstance(checked, Response):
            return checked
        fields, asked = checked
        try:
            principal = await self._person(request)
        except Unauthenticated:
            if fields.get("prompt") == "none":
                return self._back(request, fields, {"error": "login_required"})
            return RedirectResponse(f"/login?{urlencode({'next': _address(request)})}", 303)
        target = urlsplit(asked.redirect_uri).netloc
        # the browser must be allowed to follow the answer to the program, and nowhere else
        return _page(
            "consent.html",
            target=f" http://{target}",
            who=principal.subject,
            client=asked.client,
            place=target,
            scopes=[name for name in asked.scope.names if ":" in name],
            action=_address(request),
        )

    async def answer(self, request: Request) -> Response:
        """The person's yes or no, from our own page only."""
        if not own_page(request):
            return _wrong("Another site made this request. Start again at the program.", status=403)
        checked = self._checked(request)
        if isinstance(checked, Response):
            return checked
        fields, asked = checked
        principal = await self._person(request)
        if (await form(request)).get("answer") != "allow":
            return self._back(request, fields, {"error": "access_denied"})
        code = await self._authorisations.allow(
            principal, asked, place=source(request), request_id=request.state.request_id
        )
        return self._back(request, fields, {"code": code})

    def _checked(self, request: Request) -> tuple[dict[str, str], Asked] | Response:
        """The request, or its answer: a page while the target is in doubt, else an error sent back to it."""
        try:
            fields = query(request)
            check_target(fields)
        except Refusal as refusal:
            return _wrong(refusal.description)
        try:
            return fields, read(fields)
        except Refusal as refusal:
            error = {"error": refusal.error, "error_description": refusal.description}
            return self._back(request, fields, error)

    def _back(self, request: Request, fields: dict[str, str], answer: dict[str, str]) -> Response:
        """RFC 6749 section 4.1.2, with the issuer against mix-ups (RFC 9207)."""
        state = {"state": fields["state"]} if fields.get("state") else {}
        told = urlencode({**answer, **state, "iss": self._issuer(host(request))})
        return RedirectResponse(f"{fields['redirect_uri']}?{told}", 303)

    async def _person(self, request: Request) -> Principal:
        principal = await self._chain.authenticate(presented(request))
        request.state.visitor = principal  # for the door: whose call it is that is given up
        try:
            check_person(principal)
        except Denied as fault:
            raise Unauthenticated(fault.message, hint=fault.hint) from fault
        return principal


def _address(request: Request) -> str:
    query_string: bytes = request.scope.get("query_string", b"")
    return f"{request.scope['path']}?{query_string.decode('latin-1')}"


def _wrong(text: str, *, status: int = 400) -> Response:
    return _page("wrong.html", status=status, text=text)


def _page(template: str, *, status: int = 200, target: str = "", **values: Any) -> Response:
    answer = HTMLResponse(_environment().get_template(template).render(**values), status)
    answer.headers["content-security-policy"] = _POLICY.format(target=target)
    answer.headers["x-frame-options"] = "DENY"
    answer.headers["cross-origin-opener-policy"] = "same-origin"
    return answer


@cache
def _environment() -> Environment:
    # not at the top of this file: the engine is megabytes that a Tower without visitors never needs
    from jinja2 import Environment, FileSystemLoader, StrictUndefined

    return Environment(
        loader=FileSystemLoader(Path(__file__).parent / "templates"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
