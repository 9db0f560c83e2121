"""Signing in by a one-time link, signing out, and carrying a session over to the host of an app."""

from __future__ import annotations

from urllib.parse import quote, unquote, urlencode, urlsplit

from starlette.requests import Request
from starlette.responses import RedirectResponse, Response

from tower.console.parts import Parts
from tower.console.requests import address, came_by_link, form, host, local, own_page, secure, visit
from tower.console.templates import nothing, page
from tower.control import appspecs
from tower.control.logins import SignedIn
from tower.errors import NotFound, Precondition, Unauthenticated
from tower.identity.sessions import loopback, set_cookie
from tower.policy.actions import Action

NEXT_COOKIE = "tower_next"
_NEXT_SECONDS = 900


def to_sign_in(request: Request, *, ended: bool = False) -> Response:
    """Send a browser to the sign-in page and remember where it wanted to go."""
    answer = RedirectResponse(f"/signin?{urlencode({'next': local(address(request))})}", 303)
    if ended:
        answer.headers.append("set-cookie", set_cookie("", secure=secure(request), max_age=0))
    return answer


class SignIn:
    """The handlers."""

    def __init__(self, parts: Parts) -> None:
        self._parts = parts

    async def ask(self, request: Request) -> Response:
        """The page that tells how to get a link; it also takes the link or its code."""
        following = local(request.query_params.get("next", "/"))
        answer = page("signin.html", following=following, wrong="", providers=self._parts.federation.offered)
        answer.headers.append("set-cookie", remember(following, secure=secure(request)))
        return answer

    async def paste(self, request: Request) -> Response:
        """A link or code that was pasted into the page: it never stands in an address."""
        own_page(request)
        fields = await form(request)
        code = fields.get("code", "").strip().rstrip("/").rpartition("/")[2]
        following = local(fields.get("next", "/"))
        try:
            return await self._open(request, code, following, by_form=True)
        except Unauthenticated as fault:
            return page(
                "signin.html",
                status=401,
                following=following,
                wrong=fault.public,
                providers=self._parts.federation.offered,
            )

    async def follow(self, request: Request) -> Response:
        """The link itself. Opened by the person it is used up; led to by another site it asks first.

        A HEAD (a mail scanner, a chat preview) uses up nothing.
        """
        if request.method == "HEAD":
            return Response(status_code=200)
        code = request.path_params["code"]
        if came_by_link(request):
            return page("confirm.html", action=f"/signin/{quote(code, safe='')}")
        return await self._open(request, code, remembered(request), by_form=False)

    async def confirm(self, request: Request) -> Response:
        """The person's yes to a link that another site led to."""
        own_page(request)
        return await self._open(request, request.path_params["code"], remembered(request), by_form=True)

    async def leave(self, request: Request) -> Response:
        """End the session, here and on the hosts of apps."""
        own_page(request)
        found = await visit(request, self._parts.chain)
        await self._parts.logins.sign_out(found.principal, request_id=found.request_id)
        answer = RedirectResponse("/signin", 303)
        answer.headers.append("set-cookie", set_cookie("", secure=secure(request), max_age=0))
        return answer

    async def carry(self, request: Request) -> Response:
        """Walk 3: an app's host sent a browser here; send it back with a code for that host alone."""
        asked = request.query_params.get("host", "").lower()
        found = await visit(request, self._parts.chain)
        suffix = "." + self._parts.settings.apps_domain
        label = asked.rpartition(":")[0] if ":" in asked else asked
        place = (
            self._parts.apps.places.by_label(label.removesuffix(suffix)) if label.endswith(suffix) else None
        )
        if place is None:
            return nothing()
        try:
            await self._parts.access.require(
                found.principal,
                Action.APP_USE,
                place.resource,
                request_id=found.request_id,
                view=Action.APP_VIEW,
            )
        except NotFound:
            return nothing()
        url = appspecs.host_url(
            place.host,
            base_url=self._parts.base_url(host(request)),
            apps_domain=self._parts.settings.apps_domain,
        )
        if asked != urlsplit(url).netloc:
            return nothing()
        code = await self._parts.logins.create_handover(found.principal, asked, request_id=found.request_id)
        query = urlencode(
            {
                "code": code,
                "state": request.query_params.get("state", "")[:200],
                "next": request.query_params.get("next", "/")[:4000],
            }
        )
        return RedirectResponse(f"{url}/.tower/session?{query}", 303)

    async def _open(self, request: Request, code: str, following: str, *, by_form: bool) -> Response:
        check_secure(request)
        opened = await self._parts.logins.sign_in(
            code, host=host(request), request_id=request.state.request_id
        )
        return signed_in(request, opened, following, by_form=by_form)


def check_secure(request: Request) -> None:
    """Raise Precondition where neither TLS nor loopback keeps what is typed to this machine."""
    if not secure(request) and not loopback(host(request)):
        raise Precondition("Signing in needs TLS away from this machine.", hint="Start Tower with --tls.")


def signed_in(request: Request, opened: SignedIn, following: str, *, by_form: bool) -> Response:
    """Hand the session to the browser and send it on."""
    # after a form the browser may not be redirected to another origin, which an app's host is
    answer: Response = RedirectResponse(following, 303)
    if by_form:
        answer = page("onward.html", following=following)
    life = int(opened.row.expires_at - opened.row.created_at)
    answer.headers.append("set-cookie", set_cookie(opened.text, secure=secure(request), max_age=life))
    answer.headers.append("set-cookie", remember("", secure=secure(request)))
    return answer


def remember(following: str, *, secure: bool) -> str:
    """The cookie that keeps where to go on to after signing in."""
    age = _NEXT_SECONDS if following else 0
    flags = "; HttpOnly; SameSite=Lax" + ("; Secure" if secure else "")
    return f"{NEXT_COOKIE}={quote(following, safe='')}; Path=/signin; Max-Age={age}{flags}"


def remembered(request: Request) -> str:
    """Where to go on to, as it was kept."""
    return local(unquote(request.cookies.get(NEXT_COOKIE, "/")))
