"""One's own account: the password changed by its person, who proves with the current one to be it."""

from __future__ import annotations

from starlette.requests import Request
from starlette.responses import Response

from tower.console.parts import Parts
from tower.console.requests import Visit, form, own_page, source, visit
from tower.console.signin import check_secure
from tower.console.templates import later, page
from tower.errors import Denied, Exhausted, Fault, Invalid, Unauthenticated

_STATUS = {Unauthenticated: 401, Exhausted: 429, Invalid: 400, Denied: 403}


class Account:
    """The handlers."""

    def __init__(self, parts: Parts) -> None:
        self._parts = parts

    async def ask(self, request: Request) -> Response:
        """The page with the form."""
        return _page(await visit(request, self._parts.chain))

    async def change(self, request: Request) -> Response:
        """Change the password: the other sessions and all logins of the person end, this one stays.

        A key or a token is not enough, nor a session alone: whoever finds a browser open may look, not take
        over.
        """
        own_page(request)
        check_secure(request)
        found = await visit(request, self._parts.chain)
        fields = await form(request)
        new = fields.get("new", "")
        try:
            if new != fields.get("again", ""):
                raise Invalid("The new password is not the same both times.")
            await self._parts.accounts.change_password(
                found.principal,
                current=fields.get("current", ""),
                new=new,
                source=source(request),
                request_id=found.request_id,
            )
        except (Unauthenticated, Exhausted, Invalid, Denied) as fault:
            return later(_page(found, wrong=_wrong(fault), status=_STATUS[type(fault)]), fault)
        return _page(found, done=True)


def _wrong(fault: Fault) -> str:
    if isinstance(fault, Unauthenticated):  # the session holds: it is the current password that does not
        return "The current password is wrong."
    return fault.public


def _page(found: Visit, *, wrong: str = "", done: bool = False, status: int = 200) -> Response:
    return page("account.html", found, status=status, wrong=wrong, done=done, session=found.has_session)
