"""Signing in at an identity provider: to it, and back with its answer."""

from __future__ import annotations

from urllib.parse import parse_qs

from starlette.requests import Request
from starlette.responses import RedirectResponse, Response

from tower.console.parts import Parts
from tower.console.requests import host, local, secure
from tower.console.signin import check_secure, remember, remembered, signed_in
from tower.console.templates import page
from tower.control.federation import FLOW_SECONDS
from tower.errors import Denied, Invalid, Unauthenticated

SIGN_IN = "/signin/with/{alias}"
RETURN = "/signin/with/{alias}/callback"

_COOKIE = "tower_oidc"
_MAX_ANSWER = 8192


class Providers:
    """The handlers."""

    def __init__(self, parts: Parts) -> None:
        self._parts = parts

    async def begin(self, request: Request) -> Response:
        """Send the browser to the provider; where it wanted to go waits in a cookie."""
        check_secure(request)
        if request.method == "HEAD":
            return Response(status_code=200)
        alias = request.path_params["alias"]
        begun = await self._parts.federation.begin(alias, redirect_uri=self._return_address(request, alias))
        answer = RedirectResponse(begun.location, 303)
        following = local(request.query_params.get("next", "/"))
        answer.headers.append("set-cookie", remember(following, secure=secure(request)))
        answer.headers.append("set-cookie", _keep(begun.flow, secure=secure(request)))
        return answer

    async def finish(self, request: Request) -> Response:
        """What the provider sent the browser back with: a session, or the sign-in page with one sentence."""
        check_secure(request)
        if request.method == "HEAD":
            return Response(status_code=200)
        alias = request.path_params["alias"]
        try:
            opened = await self._parts.federation.finish(
                alias,
                _answer(request),
                flow=_kept(request),
                redirect_uri=self._return_address(request, alias),
                host=host(request),
                request_id=request.state.request_id,
            )
        except (Denied, Unauthenticated) as fault:
            answer: Response = page(
                "signin.html",
                status=401,
                following=remembered(request),
                wrong=fault.public,
                providers=self._parts.federation.offered,
            )
        else:
            answer = signed_in(request, opened, remembered(request), by_form=False)
        answer.headers.append("set-cookie", _keep("", secure=secure(request)))
        return answer

    def _return_address(self, request: Request, alias: str) -> str:
        return self._parts.base_url(host(request)).rstrip("/") + RETURN.replace("{alias}", alias)


def _answer(request: Request) -> dict[str, str]:
    """The fields of the answer, each once."""
    query: bytes = request.scope.get("query_string", b"")
    try:
        if len(query) > _MAX_ANSWER:
            raise ValueError
        fields = parse_qs(query.decode("ascii"), max_num_fields=16, keep_blank_values=True)
    except ValueError as error:
        raise Invalid("The answer of the identity provider cannot be read.") from error
    if any(len(values) != 1 for values in fields.values()):
        raise Invalid("The answer of the identity provider cannot be read.")
    return {name: values[0] for name, values in fields.items()}


def _keep(flow: str, *, secure: bool) -> str:
    age = FLOW_SECONDS if flow else 0
    flags = "; Secure" if secure else ""
    return f"{_name(secure=secure)}={flow}; Path=/; Max-Age={age}; HttpOnly; SameSite=Lax{flags}"


def _kept(request: Request) -> str:
    return request.cookies.get(_name(secure=secure(request)), "")


def _name(*, secure: bool) -> str:
    return f"__Host-{_COOKIE}" if secure else _COOKIE
