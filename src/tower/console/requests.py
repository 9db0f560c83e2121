"""What the console reads from a request: who asks, from where, and where to go on."""

from __future__ import annotations

import re
from dataclasses import dataclass
from urllib.parse import parse_qs

from starlette.requests import Request

from tower.errors import Denied, Exhausted, Invalid
from tower.identity.chain import Chain
from tower.identity.offers import KEY_HEADERS, Presented
from tower.identity.principal import CredentialKind, Principal

MAX_FORM = 16 * 1024

_LOCAL = re.compile(r"/(?![/\\])[\x21-\x5b\x5d-\x7e]*")


@dataclass(frozen=True, slots=True)
class Visit:
    """A request of somebody known."""

    principal: Principal
    request: Request
    request_id: str

    @property
    def has_session(self) -> bool:
        """Whether there is a session to end."""
        return self.principal.credential.kind is CredentialKind.SESSION


def presented(request: Request) -> Presented:
    """The request as the chain of authenticators reads it."""
    return Presented(
        headers=tuple(request.scope["headers"]),
        secure=secure(request),
        host=host(request),
        audience="console",
        client=source(request),
    )


async def visit(request: Request, chain: Chain) -> Visit:
    """Who asks. Raises Unauthenticated, NoCredential when nothing was shown."""
    found = Visit(await chain.authenticate(presented(request)), request, request.state.request_id)
    request.state.visitor = found.principal  # for the door: whose call it is that is given up
    return found


def host(request: Request) -> str:
    """The Host header in lower case, port included."""
    return request.headers.get("host", "").lower()


def address(request: Request) -> str:
    """Path and query as they were sent; never built from the Host header, which a caller chooses."""
    raw: bytes = request.scope.get("raw_path") or request.scope["path"].encode()
    query: bytes = request.scope.get("query_string", b"")
    return (raw + (b"?" + query if query else b"")).decode("latin-1")


def source(request: Request) -> str:
    """The address of the connection; a forwarding header is never believed (T11)."""
    return request.client.host if request.client is not None else ""


def secure(request: Request) -> bool:
    """Whether the request came over TLS."""
    return request.scope.get("scheme") == "https"


def shows_key(request: Request) -> bool:
    """Whether a program asks: its refusal is a status, not a page to sign in."""
    return any(name in request.headers for name in ("authorization", *KEY_HEADERS))


def local(following: str) -> str:
    """The address to go on to if it is a path of this host, else "/": never another site."""
    if _LOCAL.fullmatch(following) and not following.startswith(("/signin", "/login")):
        return following
    return "/"


def own_page(request: Request) -> None:
    """Raise Denied unless a page of the console itself made this request (T18)."""
    origin = request.headers.get("origin")
    site = request.headers.get("sec-fetch-site")
    expected = f"{request.scope.get('scheme', 'http')}://{host(request)}"
    if (origin is None and site is None) or (origin or expected).lower() != expected:
        raise Denied("Another site made this request.", hint="Use the console's own page.")
    if site not in {None, "same-origin"}:
        raise Denied("Another site made this request.", hint="Use the console's own page.")


def came_by_link(request: Request) -> bool:
    """Whether another site's page led here: then a person has to confirm what the address would do."""
    return request.headers.get("sec-fetch-site") in {"cross-site", "same-site"}


async def form(request: Request) -> dict[str, str]:
    """The fields of a small form."""
    if request.headers.get("content-type", "").partition(";")[0] != "application/x-www-form-urlencoded":
        raise Invalid("That is no form.")
    body = b""
    async for chunk in request.stream():
        body += chunk
        if len(body) > MAX_FORM:
            raise Exhausted("The form is too large.")
    try:
        fields = parse_qs(body.decode("ascii"), max_num_fields=16, keep_blank_values=True)
    except (UnicodeDecodeError, ValueError) as error:
        raise Invalid("The form cannot be read.") from error
    return {name: values[0] for name, values in fields.items()}
