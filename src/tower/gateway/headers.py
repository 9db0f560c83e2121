"""Headers on the way in and out: what is refused, what is dropped, what the gateway writes itself.

The gateway is the only writer of identity and forwarding headers (T11): every inbound copy is dropped, in any
case and with '_' for '-', because CGI-style servers read both as the same name.
"""

from __future__ import annotations

import re
from collections.abc import Iterable

from tower.errors import Exhausted, Invalid
from tower.identity.sessions import PLAIN_COOKIE, SECURE_COOKIE

Headers = Iterable[tuple[bytes, bytes]]

MAX_HEADERS = 128
MAX_HEADER_BYTES = 64 * 1024
HOP_COOKIE = "tower_hop"
"""Binds the login hop to the browser that began it; over TLS with the prefix `__Host-`."""

PLATFORM_COOKIES = frozenset({PLAIN_COOKIE, SECURE_COOKIE, HOP_COOKIE, f"__Host-{HOP_COOKIE}"})

_SINGLE = frozenset(
    {
        b"authorization",
        b"content-length",
        b"content-type",
        b"cookie",
        b"host",
        b"origin",
        b"sec-fetch-site",
        b"sec-fetch-mode",
        b"transfer-encoding",
        b"upgrade",
        b"x-api-key",
        b"x-flyte-token",
    }
)
_HOP = frozenset(
    {
        b"connection",
        b"keep-alive",
        b"proxy-connection",
        b"te",
        b"trailer",
        b"transfer-encoding",
        b"upgrade",
        b"http2-settings",
    }
)
_DROPPED = _HOP | {
    b"authorization",
    b"cookie",  # rebuilt without the platform's own
    b"host",
    b"expect",
    b"forwarded",
    b"via",
    b"x-api-key",
    b"x-real-ip",
    b"x-client-ip",
    b"x-cluster-client-ip",
    b"true-client-ip",
    b"cf-connecting-ip",
    b"x-request-id",
    b"x-correlation-id",
    b"x-original-url",
    b"x-original-uri",
    b"x-original-host",
    b"x-original-method",
    b"x-rewrite-url",
    b"x-http-host-override",
    b"x-host",
    b"remote-user",
    b"x-remote-user",
    b"x-webauth-user",
    b"x-authenticated-user",
    b"x-authenticated-userid",
}
_DROPPED_PREFIXES = (
    b"x-forwarded-",
    b"x-auth-request-",
    b"x-amzn-oidc-",
    b"x-goog-authenticated-user-",
    b"x-goog-iap-",
    b"x-ms-client-principal",
    b"x-ms-token-",
    b"x-envoy-",
    b"x-flyte-",
    b"x-tower-",
    b"x-ssl-",
    b"cf-access-",
    b"proxy-",
)
_SERVER_OWN = _HOP | {b"date", b"server", b"alt-svc", b"proxy-authenticate", b"proxy-authentication-info"}
_SHARED_ORIGIN = frozenset(
    {
        # what a browser keeps for the whole origin
        b"set-cookie",
        b"clear-site-data",
        b"strict-transport-security",
        b"public-key-pins",
        b"nel",
        b"report-to",
        b"reporting-endpoints",
        b"service-worker-allowed",
        b"speculation-rules",
        b"set-login",
        b"accept-ch",
        b"origin-trial",
        b"x-permitted-cross-domain-policies",
    }
)
_TOKEN = re.compile(rb"[!#$%&'*+.^_`|~0-9a-z-]+")
_CONTROLS = re.compile(rb"[\x00-\x08\x0a-\x1f\x7f]")
_HOST = re.compile(
    r"(?:[a-z0-9](?:[a-z0-9-]*[a-z0-9])?(?:\.[a-z0-9](?:[a-z0-9-]*[a-z0-9])?)*|\[[0-9a-f:.]+\])(?::\d{1,5})?"
)
_COOKIE_CONTROLS = re.compile(rb"[\x00-\x1f\x7f]")


def check(headers: Headers) -> str:
    """The Host of a request whose headers hold together, in lower case. Raises Invalid or Exhausted.

    Repeated single headers, joined credentials and two ways of saying where the body ends are how one server
    is made to see another request than the next (T21).
    """
    seen: dict[bytes, bytes] = {}
    count = size = 0
    for name, value in headers:
        count += 1
        size += len(name) + len(value) + 4
        if name in _SINGLE and name in seen:
            raise Invalid(f"The header {name.decode('ascii')} came more than once.")
        seen[name] = value
    if count > MAX_HEADERS or size > MAX_HEADER_BYTES:
        raise Exhausted(f"A request has at most {MAX_HEADERS} headers and {MAX_HEADER_BYTES} bytes of them.")
    if b"content-length" in seen and b"transfer-encoding" in seen:
        raise Invalid("The request says in two ways where its body ends.")
    if b"transfer-encoding" in seen and seen[b"transfer-encoding"].strip().lower() != b"chunked":
        raise Invalid("The transfer encoding of the request is not 'chunked'.")
    if not seen.get(b"content-length", b"0").isdigit():
        raise Invalid("The content-length of the request is not a number.")
    for name in (b"authorization", b"x-api-key", b"x-flyte-token"):
        if b"," in seen.get(name, b""):
            raise Invalid(f"The header {name.decode('ascii')} carries more than one value.")
    host = seen.get(b"host", b"").decode("latin-1").lower()
    if not _HOST.fullmatch(host):
        raise Invalid("The Host header is missing or malformed.")
    return host


def first(headers: Headers, wanted: bytes) -> bytes | None:
    """The value of the first header of this name (lower case), or None."""
    return next((value for name, value in headers if name == wanted), None)


def inbound(headers: Headers, *, keep_cookies: bool) -> list[tuple[bytes, bytes]]:
    """What the app may see of a request's own headers, in order."""
    headers = tuple(headers)
    listed = _listed(headers)
    kept = []
    for name, value in headers:
        plain = name.replace(b"_", b"-")
        if name == b"cookie" and keep_cookies:
            own = _foreign_cookies(value)
            if own:
                kept.append((name, own))
        elif plain not in _DROPPED and name not in listed and not plain.startswith(_DROPPED_PREFIXES):
            kept.append((name, value))
    return kept


def outbound(headers: Headers, *, host: str, shared_origin: bool) -> list[tuple[bytes, bytes]]:
    """What a caller may see of an app's headers.

    An app sets cookies for its own host only and never one of the platform's names (T19). On a shared origin
    (the path form lives on the console's host) it sets none, and its pages run in a sandbox of their own.
    """
    headers = tuple((name.lower(), value) for name, value in headers)
    listed = _listed(headers)
    kept = []
    for name, value in headers:
        if name in _SERVER_OWN or name in listed or name == b"x-request-id":
            continue
        if not _TOKEN.fullmatch(name) or _CONTROLS.search(value):
            continue
        if shared_origin and name in _SHARED_ORIGIN:
            continue
        if name == b"set-cookie" and not _harmless_cookie(value, host):
            continue
        kept.append((name, value))
    if shared_origin:
        kept.append(
            (b"content-security-policy", b"sandbox allow-scripts allow-forms allow-popups allow-downloads")
        )
        kept.append((b"x-content-type-options", b"nosniff"))
    return kept


def _listed(headers: Headers) -> frozenset[bytes]:
    return frozenset(
        token.strip().lower()
        for name, value in headers
        if name == b"connection"
        for token in value.split(b",")
    )


def _foreign_cookies(value: bytes) -> bytes:
    """The Cookie header without the platform's cookies, whichever way they are spelled."""
    pairs = [pair.strip() for pair in value.split(b";")]
    return b"; ".join(pair for pair in pairs if pair and not _platform(pair.partition(b"=")[0]))


def _platform(name: bytes) -> bool:
    return name.strip().strip(b'"').decode("latin-1").lower() in _LOWER


_LOWER = frozenset(name.lower() for name in PLATFORM_COOKIES)


def _harmless_cookie(value: bytes, host: str) -> bool:
    if _COOKIE_CONTROLS.search(value):
        return False
    pair, *attributes = value.split(b";")
    name, equals, _ = pair.partition(b"=")
    # a cookie without a name can carry "__Host-tower_session=x" as its value and is sent back like that
    if not equals or not name.strip() or _platform(name):
        return False
    own = host.rsplit(":", 1)[0] if not host.endswith("]") else host
    for attribute in attributes:
        key, _, domain = attribute.partition(b"=")
        if key.strip().lower() == b"domain" and domain.strip().decode("latin-1").lower().lstrip(".") != own:
            return False
    return True
