"""Verified credentials, errors as answers, and use without initialisation (C4, M34, R5, W1, W8, W11)."""

from __future__ import annotations

import json
from collections.abc import Iterator

import pytest
from fastapi import FastAPI, HTTPException, WebSocket
from tests.flyte.app.callers import ALICE, client, get, make_app, serving
from tests.flyte.app.control_plane import ControlPlane, control_plane
from websockets.asyncio.client import connect
from websockets.exceptions import ConnectionClosed

import flyte._init as init
from flyte import errors, remote
from flyte.app.extras import FastAPIPassthroughAuthMiddleware, install_error_handlers
from flyte.app.extras._verify import MAX_REMEMBERED, Verifier


@pytest.fixture(scope="module")
def running() -> Iterator[ControlPlane]:
    with control_plane() as plane:
        yield plane


@pytest.fixture
def plane(running: ControlPlane) -> Iterator[ControlPlane]:
    running.asked.clear()
    init.init_passthrough(endpoint=running.url)
    yield running
    init.reset()


def bearer(name: str) -> dict[str, str]:
    return {"authorization": f"Bearer {name}"}


async def test_c04_without_verify_presence_is_enough(plane: ControlPlane) -> None:
    assert (await get(make_app(), "/me", bearer("bad"))).status_code == 200
    assert plane.asked == []


async def test_c04_verify_refuses_before_the_handler_runs(plane: ControlPlane) -> None:
    app = make_app(verify=True)
    answer = await get(app, "/me", bearer("bad"))
    assert answer.status_code == 401
    assert answer.headers["www-authenticate"] == 'Bearer error="invalid_token"'
    assert (await get(app, "/me", bearer("denied"))).status_code == 403
    assert (await get(app, "/me", bearer("alice"))).json()["seen"] == bearer("alice")
    assert len(plane.callers()) == 3


async def test_c04_an_unavailable_control_plane_is_503_and_tells_nothing(plane: ControlPlane) -> None:
    init.reset()
    init.init_passthrough(endpoint="http://127.0.0.1:1")
    answer = await get(make_app(verify=True), "/me", bearer("alice"))
    assert answer.status_code == 503
    assert "127.0.0.1" not in answer.text
    assert "retry-after" in answer.headers


async def test_c04_a_credential_is_remembered_for_a_few_seconds_and_no_longer(plane: ControlPlane) -> None:
    now = [100.0]
    verifier = Verifier(ttl=5, clock=lambda: now[0])
    alice, bob = (("authorization", "Bearer alice"),), (("authorization", "Bearer bob"),)
    for moment in (100.0, 104.9):
        now[0] = moment
        await verifier.check(alice)
    assert plane.callers() == ["alice"]
    await verifier.check(bob)
    now[0] = 105.0
    await verifier.check(alice)
    assert plane.callers() == ["alice", "bob", "alice"]


async def test_c04_what_is_remembered_is_bounded_and_holds_no_credential(plane: ControlPlane) -> None:
    verifier = Verifier(ttl=1e9)
    known = verifier._known
    for number in range(MAX_REMEMBERED):
        known[number.to_bytes(32, "big")] = 1e12
    await verifier.check((("authorization", "Bearer alice"),))
    assert len(known) == MAX_REMEMBERED
    assert "alice" not in repr(known)


async def test_c04_pairs_that_run_together_are_told_apart(plane: ControlPlane) -> None:
    verifier = Verifier(ttl=1e9)
    await verifier.check((("authorization", "Bearer alice"), ("x-a", "b")))
    await verifier.check((("authorization", "Bearer alicex-a"), ("b", "")))
    assert len(plane.asked) == 2


async def test_m32_verify_and_optional_go_together(plane: ControlPlane) -> None:
    app = make_app(verify=True, required=False)
    assert (await get(app, "/me")).json() == {"seen": None}
    assert (await get(app, "/me", bearer("bad"))).status_code == 401


async def test_m09_a_flyte_call_from_an_excluded_path_is_refused_and_sends_nothing(
    plane: ControlPlane,
) -> None:
    app = failing_app(excluded_paths={"/who"})
    answer = await get(app, "/who", ALICE)
    assert answer.status_code == 401
    assert plane.asked == []


async def test_m34_without_initialisation_the_error_says_so(plane: ControlPlane) -> None:
    init.reset()
    app = FastAPI()
    raised: list[Exception] = []

    @app.get("/who")
    async def who() -> str:
        try:
            return (await remote.User.get.aio()).subject()
        except errors.FlyteError as error:
            raised.append(error)
            raise

    app.add_middleware(FastAPIPassthroughAuthMiddleware)
    install_error_handlers(app)
    assert (await get(app, "/who", ALICE)).status_code == 500
    assert isinstance(raised[0], errors.NotInitializedError)
    assert "init_passthrough" in str(raised[0])


async def test_m34_under_an_identity_of_its_own_nothing_is_sent(plane: ControlPlane) -> None:
    init.reset()
    init.init(endpoint=plane.url, api_key="twr_app_key")
    app = failing_app()
    assert (await get(app, "/who", ALICE)).status_code == 500
    assert plane.asked == []


def failing_app(**options: object) -> FastAPI:
    app = FastAPI()

    @app.get("/who")
    async def who() -> str:
        return (await remote.User.get.aio()).subject()

    @app.get("/raise/{name}")
    def fail(name: str) -> None:
        raise getattr(errors, name)("No task x in a/b.", hint="a hint for developers")

    @app.get("/own")
    def own() -> None:
        raise HTTPException(418, "mine")

    @app.websocket("/ws/{name}")
    async def ws(websocket: WebSocket, name: str) -> None:
        await websocket.accept()
        raise getattr(errors, name)("No task x in a/b.")

    app.add_middleware(FastAPIPassthroughAuthMiddleware, **options)  # type: ignore[arg-type]
    install_error_handlers(app)
    return app


async def test_r05_a_bad_credential_is_401_not_500(plane: ControlPlane) -> None:
    answer = await get(failing_app(), "/who", bearer("bad"))
    assert (answer.status_code, answer.headers["www-authenticate"]) == (401, "Bearer")
    assert len(plane.asked) == 1  # sent once (B15)
    assert (await get(failing_app(), "/who", bearer("denied"))).status_code == 403


@pytest.mark.parametrize(
    ("name", "status"),
    [
        ("RemoteTaskNotFoundError", 404),
        ("RemoteRunNotFoundError", 404),
        ("RemoteTaskUsageError", 400),
        ("UnauthenticatedError", 401),
        ("MissingCallerError", 401),
        ("PermissionDeniedError", 403),
        ("AlreadyExistsError", 409),
        ("FailedPreconditionError", 412),
        ("ResourceExhaustedError", 429),
        ("UnavailableError", 503),
        ("DeadlineExceededError", 504),
        ("ServerError", 500),
        ("NotInitializedError", 500),
        ("RunFailedError", 500),
    ],
)
async def test_r05_errors_have_their_status(name: str, status: int) -> None:
    answer = await get(failing_app(), f"/raise/{name}", ALICE)
    assert answer.status_code == status
    assert "developers" not in answer.text
    if status in {400, 403, 404}:
        assert answer.json() == {"detail": "No task x in a/b."}
    if status in {401, 500, 503}:
        assert "a/b" not in answer.text


async def test_w08_the_cause_of_an_outage_is_not_shown(
    plane: ControlPlane, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("flyte.transport.connect.MAX_ATTEMPTS", 1)
    answer = await get(failing_app(), "/who", bearer("down"))
    assert answer.status_code == 503
    assert "secret-host-7" not in answer.text


async def test_other_answers_of_the_app_stay_its_own() -> None:
    async with client(failing_app()) as http:
        answer = await http.get("/own", headers=ALICE)
    assert (answer.status_code, answer.json()) == (418, {"detail": "mine"})


@pytest.mark.parametrize(("name", "code"), [("RemoteTaskNotFoundError", 1008), ("UnavailableError", 1013)])
async def test_r05_a_websocket_is_closed_with_a_code(name: str, code: int) -> None:
    async with (
        serving(failing_app()) as place,
        connect(f"ws://{place}/ws/{name}", additional_headers=ALICE) as ws,
    ):
        with pytest.raises(ConnectionClosed) as closed:
            await ws.recv()
    assert closed.value.rcvd is not None
    assert closed.value.rcvd.code == code


async def test_b13_an_inner_block_wins(plane: ControlPlane) -> None:
    app = FastAPI()

    @app.get("/both")
    async def both() -> list[str]:
        found = [(await remote.User.get.aio()).subject()]
        with remote.auth_metadata(("authorization", "Bearer bob")):
            found.append((await remote.User.get.aio()).subject())
        return [*found, (await remote.User.get.aio()).subject()]

    app.add_middleware(FastAPIPassthroughAuthMiddleware)
    assert json.loads((await get(app, "/both", bearer("alice"))).text) == ["alice", "bob", "alice"]
