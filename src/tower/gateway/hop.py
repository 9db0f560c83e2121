"""The login hop of an app's host: to the console, back with a one-time code, then a cookie for this host.

The browser carries a random state in a cookie of the app's host, and the code comes back with the same state
in the address: a code that somebody else was given signs nobody in (login CSRF).
"""

from __future__ import annotations

import hmac
import secrets
from urllib.parse import parse_qs, urlencode

from tower.control.logins import Logins
from tower.errors import Denied, Invalid
from tower.gateway import paths
from tower.gateway.headers import HOP_COOKIE, Headers
from tower.identity.sessions import set_cookie

RESERVED = "/.tower/"
"""Paths of an app's host that belong to Tower; an app never sees them."""

RETURN = "/.tower/session"
_HOP_SECONDS = 600


def begin(
    target: paths.Target, *, host: str, console: str, secure: bool
) -> tuple[str, list[tuple[bytes, bytes]]]:
    """Where to send the browser, and the header that makes it remember the state."""
    state = secrets.token_urlsafe(24)
    query = urlencode({"host": host, "next": target.line, "state": state})
    cookie = _cookie(state, secure=secure, max_age=_HOP_SECONDS)
    return f"{console}/apps-login?{query}", [(b"set-cookie", cookie.encode())]


async def finish(
    target: paths.Target, headers: Headers, *, host: str, secure: bool, logins: Logins, request_id: str
) -> tuple[str, list[tuple[bytes, bytes]]]:
    """Spend the code in the address; where to go next, and the session cookie. Raises Denied."""
    fields = parse_qs(target.query.decode("ascii"), max_num_fields=8)
    code, state, following = (fields.get(name, [""])[0] for name in ("code", "state", "next"))
    if not state or not hmac.compare_digest(state.encode(), _remembered(headers, secure=secure).encode()):
        raise Denied("This sign-in was not begun in this browser.", hint="Open the app's page again.")
    signed_in = await logins.sign_in(code, host=host, handover=True, request_id=request_id)
    life = int(signed_in.row.expires_at - signed_in.row.created_at)
    return local(following), [
        (b"set-cookie", set_cookie(signed_in.text, secure=secure, max_age=life).encode()),
        (b"set-cookie", _cookie("", secure=secure, max_age=0).encode()),
    ]


def local(following: str) -> str:
    """The address to go on to if it is a path of this host, else "/": never another site."""
    raw, _, query = following.partition("?")
    try:
        target = paths.read(raw.encode("ascii"), query.encode("ascii"))
    except (Invalid, UnicodeEncodeError):
        return "/"
    return "/" if target.path.startswith(RESERVED) else target.line


def _cookie(value: str, *, secure: bool, max_age: int) -> str:
    flags = "; Secure" if secure else ""
    return f"{_name(secure=secure)}={value}; Path=/; Max-Age={max_age}; HttpOnly; SameSite=Lax{flags}"


def _name(*, secure: bool) -> str:
    return f"__Host-{HOP_COOKIE}" if secure else HOP_COOKIE


def _remembered(headers: Headers, *, secure: bool) -> str:
    for name, value in headers:
        if name == b"cookie":
            for pair in value.decode("latin-1").split(";"):
                key, _, state = pair.strip().partition("=")
                if key == _name(secure=secure):
                    return state
    return ""
