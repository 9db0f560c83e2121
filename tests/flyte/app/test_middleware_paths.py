"""Exclusions by exact router path: prefixes, mounts, tricks with the path (M12, T27, W10)."""

from __future__ import annotations

from typing import Any
from urllib.parse import unquote_to_bytes

from fastapi import FastAPI
from hypothesis import given, settings
from hypothesis import strategies as st
from starlette.requests import Request
from starlette.routing import Mount
from tests.flyte.app.callers import ALICE, call, get, make_app, seen

from flyte.app.extras import FastAPIPassthroughAuthMiddleware as Middleware


async def test_a_server_prefix_is_no_part_of_the_path() -> None:
    app = make_app(excluded_paths={"/health"})
    for path, status in [("/pre/health", 200), ("/pre/me", 401), ("/pre/pre/health", 401), ("/health", 200)]:
        assert (await call(app, path=path, root_path="/pre"))[0]["status"] == status, path
    # "/prefix" only looks like the prefix "/pre".
    assert (await call(app, path="/prefix/health", root_path="/pre"))[0]["status"] == 401


async def test_a_mounted_app_sees_its_own_paths() -> None:
    outer = FastAPI()
    outer.mount("/api", make_app(excluded_paths={"/health"}))
    assert (await get(outer, "/api/health")).status_code == 200
    assert (await get(outer, "/api/me")).status_code == 401
    assert (await get(outer, "/api/api/health")).status_code == 401


async def test_the_outer_middleware_sees_the_whole_path() -> None:
    inner = FastAPI()

    @inner.get("/health")
    async def health() -> object:
        return seen()

    outer = FastAPI()
    outer.mount("/sub", inner)
    outer.add_middleware(Middleware, excluded_paths={"/health"})
    assert (await get(outer, "/sub/health")).status_code == 401
    open_outer = FastAPI(routes=[Mount("/sub", inner)])
    open_outer.add_middleware(Middleware, excluded_paths={"/sub/health"})
    assert (await get(open_outer, "/sub/health", ALICE)).json() is None


async def test_w10_the_host_header_cannot_make_a_path() -> None:
    app = make_app(excluded_paths={"/health"})
    for host in (b"x/health?", b"x/health#", b"x/health", b"/health"):
        assert (await call(app, headers=[(b"host", host)]))[0]["status"] == 401
        assert (await call(app, headers=[(b"host", host), (b"x-forwarded-prefix", b"/me")]))[0][
            "status"
        ] == 401


def protected_everywhere() -> tuple[Any, list[str]]:
    """An app whose `/health` is public and whose every other path reaches one protected handler."""
    app = FastAPI()
    reached: list[str] = []

    @app.api_route("/health", methods=["GET", "POST", "HEAD"])
    async def health() -> str:
        return "healthy"

    @app.api_route("/{rest:path}", methods=["GET", "POST", "HEAD"])
    async def protected(rest: str, request: Request) -> str:
        reached.append(rest)
        return "secret"

    app.add_middleware(Middleware, excluded_paths={"/health"})
    return app, reached


PIECES = [
    "/", "//", "health", "HEALTH", "Health", "he", "alth", ".", "..", "%2f", "%2F", "%252f", "%68", "%00",
    "%20", "+", ";", ";a=b", "\\", "%5c", "?", "#", "%23", "%3f", "/./", "/../", "me", "%e2%80%8b", "%0a",
    "~", ":",
]  # fmt: skip
VARIANTS = st.lists(st.sampled_from(PIECES), min_size=1, max_size=6).map(lambda parts: "/" + "".join(parts))
SHAPES = st.sampled_from(["", "/pre", "/health", "/"])


@settings(max_examples=1000, deadline=None)
@given(
    raw=VARIANTS | st.text(max_size=8).map(lambda text: "/health" + text),
    root_path=SHAPES,
    method=st.sampled_from(["GET", "POST", "HEAD"]),
)
async def test_t27_no_variant_of_an_excluded_path_reaches_a_protected_handler(
    raw: str, root_path: str, method: str
) -> None:
    app, reached = protected_everywhere()
    raw = raw.split("?", maxsplit=1)[0].split("#", maxsplit=1)[0]
    path = unquote_to_bytes(raw.encode("utf-8", "surrogatepass")).decode("utf-8", "replace")
    for given_path in {path, root_path + path}:
        sent = await call(app, path=given_path, root_path=root_path, method=method)
        assert reached == [], (given_path, root_path)
        assert sent[0]["status"] in {200, 401}  # 200 is the health check itself
