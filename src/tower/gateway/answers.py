"""What the gateway itself answers, in place of an app."""

from __future__ import annotations

import json
from collections.abc import Awaitable, Callable, Iterable, MutableMapping
from html import escape
from typing import Any, TypeAlias

from tower.errors import HTTP_STATUS, Code, Fault, Unavailable

Message: TypeAlias = MutableMapping[str, Any]
Scope: TypeAlias = MutableMapping[str, Any]
Receive: TypeAlias = Callable[[], Awaitable[Message]]
Send: TypeAlias = Callable[[Message], Awaitable[None]]
Pairs: TypeAlias = Iterable[tuple[bytes, bytes]]
_OWN = (
    (b"cache-control", b"no-store"),
    (b"x-content-type-options", b"nosniff"),
    (b"content-security-policy", b"default-src 'none'; frame-ancestors 'none'"),
    (b"referrer-policy", b"no-referrer"),
)


class TooLarge(Fault):
    """The body of the request is larger than an app may be sent."""

    code = Code.RESOURCE_EXHAUSTED


class Unreachable(Unavailable):
    """Nobody listens on the app's socket: nothing of the request was sent."""


class BadAnswer(Fault):
    """The app's process broke off or answered with something that is no HTTP."""

    code = Code.INTERNAL


class TimedOut(Fault):
    """The app's process did not answer in time."""

    code = Code.UNAVAILABLE


def status_of(fault: Fault) -> int:
    """The HTTP status of a refusal."""
    match fault:
        case TooLarge():
            return 413
        case BadAnswer():
            return 502
        case TimedOut():
            return 504
        case _:
            return HTTP_STATUS[fault.code]


async def refuse(
    scope: Scope, send: Send, fault: Fault, *, request_id: str, html: bool = False, headers: Pairs = ()
) -> None:
    """Answer with a fault's public words. The same fault gives the same bytes whatever the app."""
    status = status_of(fault)
    detail = fault.public
    if fault.code is Code.INTERNAL and not isinstance(fault, BadAnswer):
        detail = f"Something went wrong here; the reference is {request_id}."
    extra = list(headers)
    if status == 401:
        extra.append((b"www-authenticate", b"Bearer"))
    if status == 503 and not any(name == b"retry-after" for name, _ in extra):
        extra.append((b"retry-after", b"2"))
    if html:
        body, kind = _page(status, detail), b"text/html; charset=utf-8"
    else:
        body, kind = json.dumps({"detail": detail}).encode(), b"application/json"
    await respond(scope, send, status, body, [(b"content-type", kind), *_OWN, *extra])


async def redirect(
    scope: Scope, send: Send, location: str, *, status: int = 303, headers: Pairs = ()
) -> None:
    """Send the browser elsewhere."""
    await respond(scope, send, status, b"", [(b"location", location.encode("ascii")), *_OWN, *headers])


async def respond(scope: Scope, send: Send, status: int, body: bytes, headers: Pairs) -> None:
    """Answer a request, or refuse a websocket handshake with the same status where the server can."""
    sent = [*headers, (b"content-length", str(len(body)).encode())]
    kind = "http.response"
    if scope["type"] == "websocket":
        if "websocket.http.response" not in (scope.get("extensions") or {}):
            await send({"type": "websocket.close", "code": 1008})
            return
        kind = "websocket.http.response"
    await send({"type": f"{kind}.start", "status": status, "headers": sent})
    await send({"type": f"{kind}.body", "body": b"" if scope.get("method") == "HEAD" else body})


def _page(status: int, detail: str) -> bytes:
    refresh = '<meta http-equiv="refresh" content="2">' if status == 503 else ""
    return (
        f'<!doctype html><html lang="en"><meta charset="utf-8">{refresh}<title>{status}</title>'
        f"<h1>{status}</h1><p>{escape(detail)}</p></html>"
    ).encode()
