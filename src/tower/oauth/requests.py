"""What the OAuth door reads from a request: a small form, the client's credentials, where it came from."""

from __future__ import annotations

import base64
import binascii
from urllib.parse import parse_qs, unquote_plus

from starlette.requests import Request

from tower.control.oauth import Refusal
from tower.identity.chain import Presented

MAX_FORM = 16 * 1024
_FORM = "application/x-www-form-urlencoded"


async def form(request: Request) -> dict[str, str]:
    """The fields of a form. Raises Refusal; a field that comes twice is refused (RFC 6749 section 3.2)."""
    if request.headers.get("content-type", "").partition(";")[0].strip().lower() != _FORM:
        raise Refusal("invalid_request", f"The body must be {_FORM}.")
    body = b""
    async for chunk in request.stream():
        body += chunk
        if len(body) > MAX_FORM:
            raise Refusal("invalid_request", "The form is too large.")
    try:
        return _single(body.decode("ascii"))
    except UnicodeDecodeError as error:
        raise Refusal("invalid_request", "The form cannot be read.") from error


def query(request: Request) -> dict[str, str]:
    """The fields of the address (RFC 6749 section 3.1). Raises Refusal."""
    raw: bytes = request.scope.get("query_string", b"")
    if len(raw) > MAX_FORM:
        raise Refusal("invalid_request", "The address is too long.")
    return _single(raw.decode("latin-1"))


def _single(text: str) -> dict[str, str]:
    try:
        fields = parse_qs(text, max_num_fields=40, keep_blank_values=True, errors="strict")
    except ValueError as error:
        raise Refusal("invalid_request", "The fields cannot be read.") from error
    if any(len(values) > 1 for values in fields.values()):
        raise Refusal("invalid_request", "A field came more than once.")
    return {name: values[0] for name, values in fields.items()}


def client_credentials(request: Request, fields: dict[str, str]) -> tuple[str, str | None]:
    """Client id and secret (None: a public client), from one place only (RFC 6749 section 2.3).

    In the header both halves are form-encoded (section 2.3.1). Clients that forget to encode them mean the
    same here: the ids and secrets of API keys have no character that the encoding would change.
    """
    sent = request.headers.getlist("authorization")
    if not sent:
        return fields.get("client_id", ""), fields.get("client_secret")
    if len(sent) > 1 or "client_secret" in fields:
        raise Refusal("invalid_request", "Client credentials came more than once.")
    scheme, _, encoded = sent[0].partition(" ")
    try:
        if scheme.lower() != "basic":
            raise ValueError
        plain = base64.b64decode(encoded.strip(), validate=True).decode("ascii")
        client, separator, secret = plain.partition(":")
        if not separator:
            raise ValueError
    except (binascii.Error, ValueError):
        raise Refusal("invalid_client", "The authorization header must be Basic.", status=401) from None
    client, secret = unquote_plus(client), unquote_plus(secret)
    if fields.get("client_id", client) != client:
        raise Refusal("invalid_request", "Two clients are named.")
    return client, secret


def presented(request: Request) -> Presented:
    """The request of a browser, as the chain of authenticators reads it."""
    return Presented(
        headers=tuple(request.scope["headers"]),
        secure=secure(request),
        host=host(request),
        audience="console",
        client=source(request),
    )


def host(request: Request) -> str:
    """The Host header in lower case, port included."""
    return request.headers.get("host", "").lower()


def secure(request: Request) -> bool:
    """Whether the request came over TLS."""
    return request.scope.get("scheme") == "https"


def source(request: Request) -> str:
    """The address of the connection; a forwarding header is never believed (T11)."""
    return request.client.host if request.client is not None else ""


def device(request: Request, fields: dict[str, str]) -> str:
    """What the client calls the thing that it runs on, or its user agent: shown to people, proves nothing."""
    named = fields.get("device_name") or request.headers.get("user-agent") or "unknown"
    return "".join(letter for letter in named if letter.isprintable())[:120]


def own_page(request: Request) -> bool:
    """Whether a page of this very origin made the request, by Fetch Metadata and Origin (T18)."""
    origin, site = request.headers.get("origin"), request.headers.get("sec-fetch-site")
    expected = f"{request.scope.get('scheme', 'http')}://{host(request)}"
    if origin is None and site is None:
        return False
    return (origin or expected).lower() == expected and site in {None, "same-origin"}
