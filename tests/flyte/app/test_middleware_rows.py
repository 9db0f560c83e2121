"""The middleware row by row (M1 to M36), as a caller over HTTP sees it."""

from __future__ import annotations

import asyncio
import inspect
import json
from urllib.parse import unquote

import pytest
from fastapi import Depends, FastAPI
from starlette.applications import Starlette
from starlette.background import BackgroundTask
from starlette.middleware.cors import CORSMiddleware
from starlette.requests import Request
from starlette.responses import JSONResponse, Response, StreamingResponse
from starlette.routing import Mount, Route
from tests.flyte.app.callers import ALICE, BOB, call, client, get, make_app, seen

from flyte.app.extras import FastAPIPassthroughAuthMiddleware

Middleware = FastAPIPassthroughAuthMiddleware


def request(**headers: str) -> Request:
    raw = [(name.replace("_", "-").lower().encode(), value.encode()) for name, value in headers.items()]
    return Request({"type": "http", "method": "GET", "path": "/", "query_string": b"", "headers": raw})


def test_m01_m02_the_constructor_has_the_documented_parameters() -> None:
    parameters = inspect.signature(Middleware).parameters
    assert list(parameters)[:3] == ["app", "header_extractors", "excluded_paths"]
    assert parameters["header_extractors"].default is None
    assert parameters["excluded_paths"].default is None
    assert all(
        parameter.kind is inspect.Parameter.KEYWORD_ONLY for parameter in list(parameters.values())[3:]
    )
    assert parameters["required"].default is True
    assert parameters["verify"].default is False


@pytest.mark.parametrize("method", ["GET", "POST", "DELETE"])
async def test_m03_without_options_every_route_is_protected(method: str) -> None:
    async with client(make_app()) as http:
        for path in ("/me", "/health", "/docs", "/openapi.json", "/nowhere"):
            assert (await http.request(method, path)).status_code == 401


def test_m04_attributes_are_readable() -> None:
    async def app(*_: object) -> None: ...

    extractors = [Middleware.extract_authorization_header]
    made = Middleware(app, extractors, {"/health"})
    assert made.app is app
    assert made.header_extractors == extractors
    assert made.excluded_paths == {"/health"}
    assert Middleware(app).excluded_paths == set()


def test_m05_default_extractors_in_their_order() -> None:
    made = Middleware(make_app())
    assert made.header_extractors == [
        Middleware.extract_authorization_header,
        Middleware.extract_cookie_header,
    ]


async def test_m06_the_headers_are_in_force_for_the_request_alone() -> None:
    app = make_app()
    assert (await get(app, "/me", ALICE)).json() == {"seen": {"authorization": "Bearer alice"}}
    assert seen() is None


async def test_m07_excluded_path_is_served() -> None:
    answer = await get(make_app(excluded_paths={"/health"}), "/health")
    assert (answer.status_code, answer.json()) == (200, {"seen": None})
    assert "www-authenticate" not in answer.headers


async def test_m08_excluded_path_has_no_identity_even_with_credentials() -> None:
    answer = await get(make_app(excluded_paths={"/health"}), "/health", ALICE)
    assert answer.json() == {"seen": None}


async def test_m08_an_excluded_path_of_an_inner_app_drops_the_outer_identity() -> None:
    inner = make_app(excluded_paths={"/health"})
    outer = make_app()
    outer.mount("/inner", inner)
    assert (await get(outer, "/inner/health", ALICE)).json() == {"seen": None}
    assert (await get(outer, "/inner/me", ALICE)).json()["seen"] == ALICE


async def test_m10_m11_documentation_and_metrics_can_be_excluded() -> None:
    app = make_app(excluded_paths={"/health", "/docs", "/openapi.json", "/metrics"})
    assert (await get(app, "/docs")).status_code == 200
    assert (await get(app, "/openapi.json")).status_code == 200
    assert (await get(app, "/metrics")).status_code == 404


@pytest.mark.parametrize(
    "path",
    [
        "/health/",
        "/health/x",
        "//health",
        "/HEALTH",
        "/Health",
        "/health/..%2fme",
        "/health/../me",
        "/me/../health",
        "/health%2f",
        "/%2fhealth",
        "/health;x",
        "/health%00",
        "/health%20",
        "/./health",
        "/health.",
        "/healthz",
    ],
)
async def test_m12_only_the_exact_path_is_excluded(path: str) -> None:
    app = make_app(excluded_paths={"/health"})
    sent = await call(app, path=unquote(path), raw_path=path.encode())
    assert sent[0]["status"] == 401


async def test_m12_the_query_is_no_part_of_the_path() -> None:
    assert (await get(make_app(excluded_paths={"/health"}), "/health?x=/me")).status_code == 200


async def test_m13_m14_the_401_is_json_with_a_challenge() -> None:
    answer = await get(make_app(), "/me")
    assert answer.status_code == 401
    assert answer.headers["www-authenticate"] == "Bearer"
    assert answer.headers["content-type"] == "application/json"
    assert answer.json() == {"detail": "Authentication credentials required"}


async def test_m15_neither_handler_nor_dependency_runs() -> None:
    ran: list[str] = []
    app = FastAPI(dependencies=[Depends(lambda: ran.append("dependency"))])

    @app.get("/me")
    async def me() -> None:
        ran.append("handler")

    app.add_middleware(Middleware)
    assert (await get(app, "/me")).status_code == 401
    assert ran == []


def test_m16_m17_the_static_extractors() -> None:
    extract, cookie = Middleware.extract_authorization_header, Middleware.extract_cookie_header
    assert extract(request(authorization="Bearer t")) == ("authorization", "Bearer t")
    assert extract(request(cookie="a=b")) is None
    assert extract(request(authorization="  ")) is None
    assert cookie(request(cookie="a=b; c=d")) == ("cookie", "a=b; c=d")
    assert cookie(request(authorization="Bearer t")) is None
    assert isinstance(inspect.getattr_static(Middleware, "extract_authorization_header"), staticmethod)


def test_m18_m19_custom_header_names_ignore_case() -> None:
    extractor = Middleware.extract_custom_header("X-Flyte-Token")
    assert extractor(request(x_flyte_token="t")) == ("x-flyte-token", "t")
    assert extractor(request()) is None


@pytest.mark.parametrize("name", ["", "x y", "x:", "host", "Content-Length", "X-Request-Id", "é"])
def test_m18_a_name_that_cannot_carry_a_credential_is_refused(name: str) -> None:
    with pytest.raises(ValueError, match="header"):
        Middleware.extract_custom_header(name)


async def test_m20_both_headers_are_forwarded() -> None:
    app = make_app(
        header_extractors=[
            Middleware.extract_authorization_header,
            Middleware.extract_custom_header("x-api-key"),
        ]
    )
    both = {"authorization": "Bearer alice", "x-api-key": "key"}
    assert (await get(app, "/me", both)).json()["seen"] == both
    assert (await get(app, "/me", {"x-api-key": "key"})).json()["seen"] == {"x-api-key": "key"}


async def test_m21_the_order_of_the_extractors_is_kept() -> None:
    app = make_app(
        header_extractors=[
            Middleware.extract_custom_header("x-flyte-token"),
            Middleware.extract_authorization_header,
        ]
    )
    headers = {"authorization": "Bearer alice", "x-flyte-token": "t"}
    assert list((await get(app, "/me", headers)).json()["seen"]) == ["x-flyte-token", "authorization"]


async def test_m22_any_callable_is_an_extractor() -> None:
    def from_query(request: Request) -> tuple[str, str] | None:
        token = request.query_params.get("token")
        return ("Authorization", f"Bearer {token}") if token else None

    app = make_app(header_extractors=[from_query])
    assert (await get(app, "/me?token=t")).json()["seen"] == {"authorization": "Bearer t"}
    assert (await get(app, "/me")).status_code == 401


async def test_m23_a_list_replaces_the_defaults() -> None:
    app = make_app(header_extractors=[Middleware.extract_custom_header("x-api-key")])
    assert (await get(app, "/me", ALICE)).status_code == 401
    assert (await get(make_app(header_extractors=[]), "/me", ALICE)).status_code == 401


async def test_m26_dispatch_checks_and_passes_on() -> None:
    made = Middleware(make_app(), excluded_paths={"/health"})

    async def call_next(request: Request) -> Response:
        return JSONResponse(seen())

    refused = await made.dispatch(request(), call_next)
    assert (refused.status_code, refused.headers["www-authenticate"]) == (401, "Bearer")
    passed = await made.dispatch(request(authorization="Bearer alice"), call_next)
    assert json.loads(bytes(passed.body)) == ALICE


async def test_m26_a_subclass_may_override_dispatch() -> None:
    class Counting(Middleware):
        async def dispatch(self, request: Request, call_next: object) -> Response:  # type: ignore[override]
            if request.url.path == "/open":
                return JSONResponse("open")
            response = await super().dispatch(request, call_next)  # type: ignore[arg-type]
            response.headers["x-checked"] = "yes"
            return response

    app = make_app()
    app.user_middleware.clear()
    app.add_middleware(Counting)
    assert (await get(app, "/open")).json() == "open"
    assert (await get(app, "/me")).status_code == 401
    answer = await get(app, "/me", ALICE)
    assert (answer.json()["seen"], answer.headers["x-checked"]) == (ALICE, "yes")
    closed = await call(app, path="/ws", kind="websocket")
    assert closed[0]["type"] == "websocket.close"


async def test_m28_concurrent_requests_keep_their_callers() -> None:
    app = FastAPI()
    meeting = asyncio.Barrier(20)

    @app.get("/me")
    async def me() -> dict[str, object]:
        before = seen()
        await meeting.wait()
        return {"before": before, "after": seen()}

    app.add_middleware(Middleware)
    async with client(app) as http:
        callers = [{"authorization": f"Bearer {number}"} for number in range(20)]
        answers = await asyncio.gather(*(http.get("/me", headers=caller) for caller in callers))
    assert [answer.json() for answer in answers] == [{"before": each, "after": each} for each in callers]


async def test_m29_calls_gathered_inside_one_request_have_its_caller() -> None:
    app = FastAPI()

    @app.get("/me")
    async def me() -> list[object]:
        async def one() -> object:
            await asyncio.sleep(0)
            return seen()

        return list(await asyncio.gather(*(one() for _ in range(5)), asyncio.to_thread(seen)))

    app.add_middleware(Middleware)
    assert (await get(app, "/me", ALICE)).json() == [ALICE] * 6


async def test_m30_sync_handlers_streams_and_background_tasks_keep_the_caller() -> None:
    app = FastAPI()
    later: list[object] = []

    @app.get("/sync")
    def sync() -> object:
        return seen()

    @app.get("/stream")
    async def stream() -> StreamingResponse:
        async def body() -> object:
            for _ in range(3):
                await asyncio.sleep(0)
                yield json.dumps(seen()) + "\n"

        return StreamingResponse(body())  # type: ignore[arg-type]

    @app.get("/sync-stream")
    def sync_stream() -> StreamingResponse:
        return StreamingResponse(json.dumps(seen()) + "\n" for _ in range(3))

    @app.get("/background")
    def background() -> JSONResponse:
        return JSONResponse("accepted", background=BackgroundTask(lambda: later.append(seen())))

    app.add_middleware(Middleware)
    assert (await get(app, "/sync", ALICE)).json() == ALICE
    for path in ("/stream", "/sync-stream"):
        lines = (await get(app, path, BOB)).text.splitlines()
        assert [json.loads(line) for line in lines] == [BOB] * 3
    await get(app, "/background", ALICE)
    assert later == [ALICE]


async def test_m31_a_starlette_app() -> None:
    async def me(request: Request) -> JSONResponse:
        return JSONResponse(seen())

    app = Starlette(routes=[Route("/me", me), Mount("/sub", routes=[Route("/me", me)])])
    app.add_middleware(Middleware)
    assert (await get(app, "/me")).status_code == 401
    assert (await get(app, "/sub/me")).status_code == 401
    assert (await get(app, "/sub/me", ALICE)).json() == ALICE


async def test_m32_optional_identity() -> None:
    app = make_app(required=False)
    assert (await get(app, "/me")).json() == {"seen": None}
    assert (await get(app, "/me", ALICE)).json() == {"seen": ALICE}


async def test_m33_the_order_of_middleware_and_routes_does_not_matter() -> None:
    app = FastAPI()
    app.add_middleware(Middleware)

    @app.get("/me")
    async def me() -> object:
        return seen()

    assert (await get(app, "/me")).status_code == 401
    assert (await get(app, "/me", ALICE)).json() == ALICE
    with pytest.raises(RuntimeError, match="after an application has started"):
        app.add_middleware(Middleware)


async def test_m35_the_session_cookie_alone_is_a_credential_and_other_cookies_are_none() -> None:
    app = make_app()
    for name in ("__Host-tower_session", "tower_session"):
        answer = await get(app, "/me", {"cookie": f"theme=dark; {name}=abc; other_session=xyz"})
        assert answer.json() == {"seen": {"cookie": f"{name}=abc"}}
    assert (await get(app, "/me", {"cookie": "theme=dark; other_session=xyz"})).status_code == 401
    assert (await get(app, "/me", {"cookie": "tower_session="})).status_code == 401
    both = await get(app, "/me", {**ALICE, "cookie": "theme=dark"})
    assert both.json() == {"seen": ALICE}


async def test_m35_other_cookies_are_forwarded_when_told_so() -> None:
    cookie = {"cookie": "a=1; b=2; tower_session=s"}
    assert (await get(make_app(forward_cookies=("b",)), "/me", cookie)).json()["seen"] == {"cookie": "b=2"}
    assert (await get(make_app(forward_cookies="all"), "/me", cookie)).json()["seen"] == cookie


async def test_m35_a_planted_session_cookie_is_not_believed() -> None:
    both = {"cookie": "tower_session=planted; __Host-tower_session=real"}
    answer = await get(make_app(), "/me", both)
    assert answer.json()["seen"] == {"cookie": "__Host-tower_session=real"}
    twice = {"cookie": "tower_session=a; tower_session=b"}
    assert (await get(make_app(), "/me", twice)).status_code == 400


PREFLIGHT = {"origin": "https://page.test", "access-control-request-method": "POST"}


@pytest.mark.parametrize("outside", [True, False])
async def test_m36_a_preflight_is_answered_by_the_cors_middleware(outside: bool) -> None:
    app = make_app()
    if not outside:
        app.user_middleware.clear()
    app.add_middleware(CORSMiddleware, allow_origins=["https://page.test"], allow_methods=["POST"])
    if not outside:
        app.add_middleware(Middleware)
    async with client(app) as http:
        answer = await http.options("/me", headers=PREFLIGHT)
        assert answer.status_code == 200
        assert answer.headers["access-control-allow-origin"] == "https://page.test"
        foreign = await http.options("/me", headers={**PREFLIGHT, "origin": "https://evil.test"})
        assert "access-control-allow-origin" not in foreign.headers


async def test_m36_a_preflight_has_no_identity_and_reaches_no_other_method() -> None:
    app = make_app()

    @app.options("/asked")
    async def asked() -> object:
        return seen()

    async with client(app) as http:
        assert (await http.options("/asked", headers=PREFLIGHT)).json() is None
        assert (await http.options("/me", headers=PREFLIGHT)).status_code == 405


@pytest.mark.parametrize(
    "headers",
    [
        {},
        {"origin": "https://page.test"},
        {"access-control-request-method": "POST"},
        {**PREFLIGHT, "origin": ""},
        {**PREFLIGHT, "cookie": "theme=dark"},
        {**PREFLIGHT, "authorization": ""},
        {**PREFLIGHT, "sec-fetch-mode": "no-cors"},
        {**PREFLIGHT, "content-length": "5"},
        {**PREFLIGHT, "transfer-encoding": "chunked"},
    ],
)
async def test_m36_what_only_looks_like_a_preflight_needs_credentials(headers: dict[str, str]) -> None:
    raw = [(name.encode(), value.encode()) for name, value in headers.items()]
    assert (await call(make_app(), method="OPTIONS", headers=raw))[0]["status"] == 401


async def test_m36_a_preflight_of_another_method_is_none() -> None:
    async with client(make_app()) as http:
        assert (await http.post("/me", headers=PREFLIGHT)).status_code == 401


def test_a_client_of_the_wrong_kind_is_told_at_construction() -> None:
    app = make_app()
    with pytest.raises(ValueError, match="begins with '/'"):
        Middleware(app, excluded_paths={"health"})
    with pytest.raises(TypeError, match="set of paths"):
        Middleware(app, excluded_paths="/health")  # type: ignore[arg-type]
    with pytest.raises(TypeError, match="callable"):
        Middleware(app, header_extractors=["authorization"])  # type: ignore[list-item]
