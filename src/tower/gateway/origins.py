"""Whether a browser's request with a cookie was meant by the app's own page (T18).

A cookie travels by itself, so its request must prove where it was made: by Fetch Metadata and by Origin. All
apps are one site to SameSite, hence only the same origin counts.
"""

from __future__ import annotations

from tower.errors import Denied
from tower.gateway.headers import Headers, first

SAFE = frozenset({"GET", "HEAD", "OPTIONS"})


def check(headers: Headers, *, method: str, origin: str, websocket: bool) -> None:
    """Let a request pass that the app's own page or the person's own navigation made. Raises Denied."""
    headers = tuple(headers)
    site = first(headers, b"sec-fetch-site")
    claimed = first(headers, b"origin")
    if claimed is not None and claimed.decode("latin-1").lower() != origin:
        raise _foreign()
    if websocket or method not in SAFE:
        if site is None and claimed is None:
            raise _foreign()
        if site not in {None, b"same-origin"}:
            raise _foreign()
        return
    if site in {None, b"same-origin", b"none"}:
        return
    # another site may link to the app, but neither embed it nor load from it with this person's rights
    navigates = first(headers, b"sec-fetch-mode") == b"navigate"
    if not navigates or first(headers, b"sec-fetch-dest") != b"document":
        raise _foreign()


def preflight(headers: Headers, *, method: str) -> bool:
    """Whether this is the question that a browser asks before a cross-origin request."""
    headers = tuple(headers)
    return (
        method == "OPTIONS"
        and first(headers, b"origin") is not None
        and first(headers, b"access-control-request-method") is not None
    )


def _foreign() -> Denied:
    return Denied(
        "This request was made by another site with your session.",
        hint="Use the app's own page, or send an API key in the authorization header.",
    )
