"""A request as the gateway reads it: to which app, from where, with what that may name its caller."""

from __future__ import annotations

from dataclasses import dataclass

from tower.control.places import Place, Places
from tower.gateway import headers, paths
from tower.gateway.answers import Scope
from tower.identity.offers import KEY_HEADERS, Presented
from tower.policy.actions import Resource, ResourceType

_NAMING = frozenset({b"authorization", b"cookie", *(name.encode() for name in KEY_HEADERS)})


@dataclass(frozen=True, slots=True)
class Request:
    """A request after the first checks; the app may be unknown."""

    place: Place | None
    target: paths.Target
    prefix: str
    host: str
    secure: bool
    client: str
    method: str
    websocket: bool
    headers: tuple[tuple[bytes, bytes], ...]
    credential: bytes
    """What names the caller; b"" for an anonymous request."""
    id: str
    moved: str = ""
    """Where a browser finds the app instead, a host with its port; "" where it is right."""

    @property
    def asked(self) -> Resource:
        """The app that was asked for, as far as the address tells, whether or not there is one."""
        if self.place is not None:
            return self.place.resource
        if self.prefix:
            return Resource(ResourceType.APP, *self.prefix.split("/")[2:])
        return Resource(ResourceType.APP, name=self.host.partition(".")[0])

    @property
    def scheme(self) -> str:
        """http or https, as the browser sees it, also for a websocket."""
        return "https" if self.secure else "http"

    @property
    def wants_page(self) -> bool:
        """Whether a person in a browser asked for a page."""
        accepts = headers.first(self.headers, b"accept") or b""
        return self.method == "GET" and not self.websocket and b"text/html" in accepts

    @property
    def shows_key(self) -> bool:
        """Whether a program asks, which is refused and not sent to sign in."""
        return any(name in _NAMING and name != b"cookie" for name, _ in self.headers)


def read(scope: Scope, request_id: str, *, places: Places, suffix: str) -> Request:
    """The request of an ASGI scope. `suffix` ends the hosts of apps. Raises Invalid, Exhausted."""
    pairs = tuple((bytes(name), bytes(value)) for name, value in scope["headers"])
    host = headers.check(pairs)
    raw: bytes = scope.get("raw_path") or scope["path"].encode()
    target = paths.read(raw, scope.get("query_string", b""))
    place, prefix, moved = None, "", ""
    name = host.rsplit(":", 1)[0]
    if name.endswith(suffix):
        label, _, below = name.removesuffix(suffix).partition(".")
        if not below:
            place = places.by_label(label)
        elif (below, suffix) == ("apps", ".localhost"):
            # the form that hosts have over TLS: here a site could plant cookies for all of them (T19)
            place = places.by_label(label)
            pairs = tuple(pair for pair in pairs if pair[0] != b"cookie")
            moved = label + suffix + host[len(name) :]
    elif (mounted := paths.mounted(target)) is not None:
        place = places.by_id(mounted.project, mounted.domain, mounted.name)
        prefix, target = mounted.prefix, mounted.target
        # an app under the console's host neither sees nor uses the console's cookies
        pairs = tuple(pair for pair in pairs if pair[0] != b"cookie")
    client = scope.get("client")
    return Request(
        place=place,
        target=target,
        prefix=prefix,
        host=host,
        secure=scope.get("scheme") in {"https", "wss"},
        client=client[0] if client else "",
        method=scope.get("method", "GET"),
        websocket=scope["type"] == "websocket",
        headers=pairs,
        credential=b"\0".join(value for name, value in pairs if name in _NAMING),
        id=request_id,
        moved=moved,
    )


def presented(request: Request) -> Presented:
    """It as the chain of authenticators reads it."""
    return Presented(
        headers=request.headers,
        secure=request.secure,
        host=request.host,
        audience="gateway",
        client=request.client,
    )
