"""The page on which a person answers a device that waits (RFC 8628 section 3.3).

A code may have been sent by somebody who wants a login of this person's. So the page names what asked, from
where and when, says what it would get, and takes a press of a button on this very page (T41, RFC 8628 5.4).
"""

from __future__ import annotations

from starlette.requests import Request
from starlette.responses import Response

from tower.console.parts import Parts
from tower.console.requests import Visit, form, own_page, source, visit
from tower.console.templates import later, page
from tower.errors import Exhausted, NotFound, Precondition


class DevicePages:
    """The handlers."""

    def __init__(self, parts: Parts) -> None:
        self._parts = parts

    async def ask(self, request: Request) -> Response:
        """Ask for the code; with a code, show what waits for an answer."""
        found = await visit(request, self._parts.chain)
        code = request.query_params.get("code", "")[:32]
        if not code:
            return page("device_code.html", found, wrong="")
        here = source(request)
        try:
            row = await self._parts.devices.look(found.principal, code, place=here)
        except (NotFound, Exhausted) as fault:
            return _again(found, fault)
        return page(
            "device.html",
            found,
            device=row.device,
            place=row.place,
            same_place=row.place == here,
            client=row.client,
            scopes=[name for name in row.scope.split() if ":" in name],
            code=f"{row.user_code[:4]}-{row.user_code[4:]}",
        )

    async def answer(self, request: Request) -> Response:
        """The person's yes or no."""
        own_page(request)
        found = await visit(request, self._parts.chain)
        fields = await form(request)
        allow = fields.get("answer") == "allow"
        try:
            row = await self._parts.devices.answer(
                found.principal,
                fields.get("code", ""),
                allow=allow,
                place=source(request),
                request_id=found.request_id,
            )
        except (NotFound, Exhausted, Precondition) as fault:
            return _again(found, fault)
        text = f"{row.device} acts as you until it logs out." if allow else f"{row.device} gets nothing."
        return page(
            "message.html", title="Allowed" if allow else "Refused", text=f"{text} You can close this page."
        )


def _again(found: Visit, fault: NotFound | Exhausted | Precondition) -> Response:
    status = 429 if isinstance(fault, Exhausted) else 404
    return later(page("device_code.html", found, status=status, wrong=fault.public), fault)
