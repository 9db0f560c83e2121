"""Rendering: every value is escaped, a missing one is an error."""

from __future__ import annotations

from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from starlette.responses import HTMLResponse, Response

from tower.console.requests import Visit
from tower.errors import Fault, retry_after

if TYPE_CHECKING:
    from jinja2 import Environment

_HERE = Path(__file__).parent
STATIC = {
    "console.css": ("text/css; charset=utf-8", (_HERE / "static" / "console.css").read_bytes()),
    "console.js": ("text/javascript; charset=utf-8", (_HERE / "static" / "console.js").read_bytes()),
    "icon.svg": ("image/svg+xml", (_HERE / "static" / "icon.svg").read_bytes()),
}


def fragment(template: str, **values: Any) -> str:
    """A part of a page."""
    return _environment().get_template(template).render(**values)


def page(template: str, visit: Visit | None = None, *, status: int = 200, **values: Any) -> HTMLResponse:
    """A whole page, with the name of who is signed in."""
    who = visit.principal.subject if visit is not None else ""
    leave = visit is not None and visit.has_session
    return HTMLResponse(fragment(template, who=who, leave=leave, **values), status)


def later(answer: Response, fault: Fault) -> Response:
    """The answer, which says how long to wait where the fault does."""
    if wait := retry_after(fault):
        answer.headers["retry-after"] = wait
    return answer


def nothing() -> HTMLResponse:
    """The page of what is absent or hidden: the same bytes for both and for everyone (T43)."""
    return page(
        "message.html", status=404, title="Not found", text="There is nothing here that you may view."
    )


@cache
def _environment() -> Environment:
    # not at the top of this file: the engine is megabytes that a Tower without visitors never needs
    from jinja2 import Environment, FileSystemLoader, StrictUndefined

    return Environment(
        loader=FileSystemLoader(_HERE / "templates"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
