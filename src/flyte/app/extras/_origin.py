"""Where a request comes from: CORS preflights, and whether a cookie alone may be believed."""

from __future__ import annotations

from typing import Any
from urllib.parse import urlsplit

_SAFE_METHODS = frozenset({"GET", "HEAD", "OPTIONS", "TRACE"})  # RFC 9110 section 9.2.1
_DEFAULT_PORTS = {"http": 80, "https": 443, "ws": 80, "wss": 443}
_SECURE = frozenset({"https", "wss"})


def is_preflight(scope: Any) -> bool:
    """Whether this is a CORS preflight as browsers make them, and nothing that only looks like one.

    `OPTIONS` with `Origin` and `Access-Control-Request-Method`, with no credential and no body
    (https://fetch.spec.whatwg.org/#cors-preflight-fetch).
    """
    if scope["type"] != "http" or scope["method"] != "OPTIONS":
        return False
    headers: dict[bytes, bytes] = {}
    for name, value in scope["headers"]:
        if name in headers and name in (b"origin", b"access-control-request-method"):
            return False
        headers[name] = value
    return (
        bool(headers.get(b"origin"))
        and bool(headers.get(b"access-control-request-method"))
        and headers.get(b"sec-fetch-mode", b"cors") == b"cors"
        and headers.get(b"content-length", b"0") == b"0"
        and not headers.keys() & {b"authorization", b"cookie", b"transfer-encoding"}
    )


def is_unsafe(scope: Any) -> bool:
    """Whether a foreign page could do harm by causing it: methods with effects, and every websocket."""
    return scope["type"] == "websocket" or scope["method"] not in _SAFE_METHODS


def is_same_origin(scope: Any) -> bool:
    """Whether the browser says that a page of this very origin caused the request.

    `Sec-Fetch-Site` decides where it is present; otherwise `Origin` must be this host. A request that has
    neither proves nothing, so the answer is False.
    """
    headers: dict[bytes, list[bytes]] = {}
    for name, value in scope["headers"]:
        if name in (b"origin", b"sec-fetch-site", b"host"):
            headers.setdefault(name, []).append(value)
    if any(len(values) > 1 for values in headers.values()):
        return False
    if b"sec-fetch-site" in headers:
        return headers[b"sec-fetch-site"][0] in (b"same-origin", b"none")
    if b"origin" not in headers or b"host" not in headers:
        return False
    scheme = str(scope.get("scheme", "http"))
    origin = _place(headers[b"origin"][0].decode("latin-1"))
    here = _place(f"{scheme}://{headers[b'host'][0].decode('latin-1')}")
    if origin is None or here is None:
        return False
    # Behind a proxy that ends TLS the app sees http; a plain page against a TLS app is never the same.
    if scheme in _SECURE and not origin[2]:
        return False
    if origin[2] and scheme not in _SECURE:
        return origin[0] == here[0] and (origin[1] == here[1] or (origin[1], here[1]) == (443, 80))
    return origin[:2] == here[:2]


def _place(url: str) -> tuple[str, int, bool] | None:
    """Host, port and whether it is secure; None for what is no plain origin (such as `null`)."""
    try:
        parts = urlsplit(url)
        port = parts.port or _DEFAULT_PORTS[parts.scheme]
    except (ValueError, KeyError):
        return None
    if not parts.hostname or parts.username is not None or parts.path or parts.query or parts.fragment:
        return None
    return parts.hostname, port, parts.scheme in _SECURE
