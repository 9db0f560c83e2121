"""Signing in with a name and a password."""

from __future__ import annotations

from starlette.requests import Request
from starlette.responses import Response

from tower.console.parts import Parts
from tower.console.requests import form, host, local, own_page, source
from tower.console.signin import check_secure, signed_in
from tower.console.templates import later, page
from tower.errors import Exhausted, Unauthenticated


class Passwords:
    """The handler of the form on the sign-in page."""

    def __init__(self, parts: Parts) -> None:
        self._parts = parts

    async def enter(self, request: Request) -> Response:
        """Open a session, or show the page again with one sentence that fits every way of being wrong."""
        own_page(request)
        check_secure(request)
        fields = await form(request)
        following = local(fields.get("next", "/"))
        try:
            opened = await self._parts.accounts.sign_in(
                fields.get("name", "").strip(),
                fields.get("password", ""),
                host=host(request),
                source=source(request),
                request_id=request.state.request_id,
            )
        except (Unauthenticated, Exhausted) as fault:
            status = 429 if isinstance(fault, Exhausted) else 401
            answer = page(
                "signin.html",
                status=status,
                following=following,
                wrong=fault.public,
                providers=self._parts.federation.offered,
            )
            return later(answer, fault)
        return signed_in(request, opened, following, by_form=True)
