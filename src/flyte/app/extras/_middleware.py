"""The caller of a request becomes the caller of every Flyte call that its handler makes."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Sequence
from typing import Any, Literal

from starlette.middleware.base import BaseHTTPMiddleware, RequestResponseEndpoint
from starlette.requests import Request
from starlette.responses import Response
from starlette.types import ASGIApp, Receive, Scope, Send

from flyte._context import caller_scope, enter_caller, leave_caller

from ._extract import SESSION_COOKIES, HeaderExtractor, Lift, NamedHeader, Pair
from ._origin import is_preflight, is_same_origin, is_unsafe
from ._refusal import Refusal
from ._verify import Verifier


class FastAPIPassthroughAuthMiddleware:
    """Lifts the caller's credentials out of each request into the caller metadata of its Flyte calls.

    ::

        app.add_middleware(FastAPIPassthroughAuthMiddleware, excluded_paths={"/health"})

    A request without a usable credential is answered 401 with `WWW-Authenticate: Bearer` and reaches no
    handler and no dependency. It is a plain ASGI class, for Starlette as well as FastAPI, over http and
    websocket alike (a handshake without credentials is refused before it is accepted), and needs
    `flyte.init_passthrough` to have been called when a handler first uses Flyte. It may be added before or
    after the routes.

    The identity is in force in async and sync handlers, dependencies, streaming bodies and background
    tasks, also in those that run on after the response: a background task keeps its caller. A thread that
    the handler starts by hand has none, so its Flyte calls are refused (`flyte.remote.carry_context`
    carries it over).

    What is a credential:

    - Extractors run in their order; all pairs found are forwarded. A list given replaces the defaults.
    - An extractor that raises, or answers anything but a tuple of a header name and a value, is skipped
      with a warning that shows no values. Coroutine functions are awaited. When none yields a usable pair
      the answer is 401; an empty value, a scheme without a token and a value with control characters are
      none, and neither is a name that `flyte.remote.auth_metadata` refuses (`host`, `x-request-id`, …).
    - A header of a credential that comes twice, or two extractors with two values for one name, is 400.
    - Of a `Cookie` header only the platform's session cookie counts and is forwarded.

    What is excluded: a path that equals an entry exactly, as the router of the app that has the middleware
    sees it (percent-decoded, not normalised, without a mount's or server's prefix). `/health/`, `/HEALTH`,
    `//health` and `/health/x` are not `/health`. There, no identity is in force even if credentials came.
    A CORS preflight passes without identity, so that the app can answer it.

    A subclass may override `dispatch(request, call_next)` as with Starlette's `BaseHTTPMiddleware`: the
    override then decides over http alone (`await super().dispatch(request, call_next)` is the check),
    while websockets stay checked by this class.

    :param app: the ASGI app behind.
    :param header_extractors: callables `Request -> (name, value) | None`; by default
        `[extract_authorization_header, extract_cookie_header]`. They see no body.
    :param excluded_paths: paths that are served without credentials; each begins with "/".
    :param required: False lets requests without credentials through, without identity.
    :param verify: True asks the control plane who the caller is before the handler runs: 401 when it does
        not know the credential, 503 when it cannot be reached. Presence alone is checked otherwise, so a
        handler that makes no Flyte call should either verify or sit behind a gateway that does.
    :param verify_ttl: seconds for which a verified credential is not asked about again.
    :param forward_cookies: names of the cookies to forward instead of the session cookie, or "all".
    :param csrf: False accepts a cookie as the only credential of an unsafe request (POST, websocket, …) from
        pages of any origin. By default `Sec-Fetch-Site` or `Origin` must say same origin, or it is 403.
    :raises ValueError: for an excluded path that can never match.
    """

    def __init__(
        self,
        app: ASGIApp,
        header_extractors: list[HeaderExtractor] | None = None,
        excluded_paths: set[str] | None = None,
        *,
        required: bool = True,
        verify: bool = False,
        verify_ttl: float = 5.0,
        forward_cookies: Iterable[str] | Literal["all"] = SESSION_COOKIES,
        csrf: bool = True,
    ) -> None:
        self.app = app
        self.header_extractors: list[HeaderExtractor] = (
            [self.extract_authorization_header, self.extract_cookie_header]
            if header_extractors is None
            else list(header_extractors)
        )
        self.excluded_paths = _paths(excluded_paths)
        self.required = required
        self.csrf = csrf
        self._lift = Lift(_by_name(self.header_extractors), _cookie_names(forward_cookies))
        self._verifier = Verifier(ttl=verify_ttl) if verify else None
        self._at_once = self._lift.asks_nobody and self._verifier is None
        # `call_next` of a subclass's dispatch needs Starlette's machinery; without one we do without it.
        overridden = type(self).dispatch is not FastAPIPassthroughAuthMiddleware.dispatch
        self._http: ASGIApp | None = BaseHTTPMiddleware(app, self.dispatch) if overridden else None

    @property
    def verify(self) -> bool:
        """Whether the control plane is asked before the handler runs."""
        return self._verifier is not None

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer a refusal, or call the app behind as the caller."""
        kind = scope["type"]
        if kind == "http":
            if self._http is not None:
                await self._http(scope, receive, send)
                return
        elif kind == "lifespan":
            await self.app(scope, receive, send)
            return
        elif kind != "websocket":
            raise RuntimeError(f"FastAPIPassthroughAuthMiddleware cannot check a {kind!r} connection.")
        try:
            caller = self._admit_at_once(scope) if self._at_once else await self._admit(scope)
        except Refusal as refusal:
            await refusal.answer(scope, receive, send)
            return
        entered = enter_caller(caller)
        try:
            await self.app(scope, receive, send)
        finally:
            leave_caller(entered)

    async def dispatch(self, request: Request, call_next: RequestResponseEndpoint) -> Response:
        """Check one http request and pass it on as its caller, or answer 401 (400, 403, 503)."""
        try:
            caller = await self._admit(request.scope)
        except Refusal as refusal:
            return refusal.response()
        with caller_scope(caller):
            return await call_next(request)

    @staticmethod
    def extract_authorization_header(request: Request) -> Pair | None:
        """`("authorization", value)`, or None when the header is absent or blank."""
        return _AUTHORIZATION(request)

    @staticmethod
    def extract_cookie_header(request: Request) -> Pair | None:
        """`("cookie", whole header)`, or None. The middleware keeps only what it may forward."""
        return _COOKIE(request)

    @staticmethod
    def extract_custom_header(header_name: str) -> HeaderExtractor:
        """An extractor for a header of any name (case-insensitive; forwarded in lower case).

        :raises ValueError: for a name that cannot carry a credential: only `authorization`, `cookie`, `x-…`
            can, save those of the protocol (`x-request-id`, `x-forwarded-…`).
        """
        return NamedHeader(header_name)

    def _admit_at_once(self, scope: Scope) -> tuple[Pair, ...] | None:
        """`_admit` where nobody has to be asked."""
        if route_path(scope) in self.excluded_paths or is_preflight(scope):
            return None
        return self._judge(scope, self._lift.at_once(scope))

    async def _admit(self, scope: Scope) -> tuple[Pair, ...] | None:
        """The caller's pairs; None when the request goes on without identity.

        :raises Refusal: when it does not go on.
        """
        if self._at_once:
            return self._admit_at_once(scope)
        if route_path(scope) in self.excluded_paths or is_preflight(scope):
            return None
        pairs = self._judge(scope, await self._lift.pairs(scope))
        if pairs is not None and self._verifier is not None:
            await self._verifier.check(pairs)
        return pairs

    def _judge(self, scope: Scope, pairs: tuple[Pair, ...]) -> tuple[Pair, ...] | None:
        if not pairs:
            if self.required:
                raise Refusal.missing()
            return None
        only_cookie = len(pairs) == 1 and pairs[0][0] == "cookie"
        if only_cookie and self.csrf and is_unsafe(scope) and not is_same_origin(scope):
            raise Refusal.foreign_origin()
        return pairs


_AUTHORIZATION = NamedHeader("authorization")
_COOKIE = NamedHeader("cookie")
_BUILT_IN: dict[Any, NamedHeader] = {
    FastAPIPassthroughAuthMiddleware.extract_authorization_header: _AUTHORIZATION,
    FastAPIPassthroughAuthMiddleware.extract_cookie_header: _COOKIE,
}


def route_path(scope: Scope) -> str:
    """The path as the router behind will match it: decoded, not normalised, without the prefix.

    The same rule as Starlette's router has. Never the URL: that is made from the Host header, which
    the client chooses.
    """
    path: str = scope["path"]
    prefix: str = scope.get("root_path", "")
    if not prefix or not path.startswith(prefix):
        return path
    rest = path[len(prefix) :]
    return rest if not rest or rest[0] == "/" else path


def _by_name(extractors: Sequence[HeaderExtractor]) -> list[HeaderExtractor | NamedHeader]:
    """The extractors, with our own static methods as the named headers that they read."""
    for extractor in extractors:
        if not callable(extractor):
            raise TypeError(f"A header extractor is a callable, not {type(extractor).__name__}.")
    return [
        _BUILT_IN.get(extractor, extractor) if extractor.__hash__ is not None else extractor
        for extractor in extractors
    ]


def _paths(paths: Collection[str] | None) -> set[str]:
    if isinstance(paths, str):
        raise TypeError("excluded_paths is a set of paths, not one string.")
    kept = set(paths or ())
    for path in kept:
        if not path.startswith("/"):
            raise ValueError(f"The excluded path {path!r} can never match: a path begins with '/'.")
    return kept


def _cookie_names(names: Iterable[str] | Literal["all"]) -> frozenset[str] | None:
    if isinstance(names, str):
        return None if names == "all" else frozenset({names})
    return frozenset(names)
