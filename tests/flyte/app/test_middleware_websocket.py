"""Websockets through a real server: refused before they are accepted, else with their caller (M27, T26)."""

from __future__ import annotations

import asyncio
import json

import pytest
from fastapi import FastAPI, WebSocket
from starlette.requests import Request
from tests.flyte.app.callers import ALICE, BOB, call, seen, serving
from websockets.asyncio.client import connect
from websockets.exceptions import InvalidStatus

from flyte.app.extras import FastAPIPassthroughAuthMiddleware as Middleware

SESSION = {"cookie": "tower_session=s"}


def make_app(**options: object) -> tuple[FastAPI, list[object]]:
    app = FastAPI()
    reached: list[object] = []

    @app.websocket("/ws")
    async def ws(websocket: WebSocket) -> None:
        reached.append(seen())
        await websocket.accept()
        async for _ in websocket.iter_text():
            await asyncio.sleep(0)
            await websocket.send_text(json.dumps([seen(), await asyncio.to_thread(seen)]))

    app.add_middleware(Middleware, **options)  # type: ignore[arg-type]
    return app, reached


async def test_m27_a_handshake_without_credentials_is_refused() -> None:
    app, reached = make_app()
    async with serving(app) as place:
        with pytest.raises(InvalidStatus) as refused:
            await connect(f"ws://{place}/ws")
    assert refused.value.response.status_code == 401
    assert refused.value.response.headers["www-authenticate"] == "Bearer"
    assert json.loads(refused.value.response.body) == {"detail": "Authentication credentials required"}
    assert reached == []


async def test_m27_the_handler_sees_its_caller_for_as_long_as_the_socket_is_open() -> None:
    app, _ = make_app()
    async with (
        serving(app) as place,
        connect(f"ws://{place}/ws", additional_headers=ALICE) as alice,
        connect(f"ws://{place}/ws", additional_headers=BOB) as bob,
    ):
        for _ in range(5):
            await asyncio.gather(alice.send("?"), bob.send("?"))
            assert json.loads(await alice.recv()) == [ALICE, ALICE]
            assert json.loads(await bob.recv()) == [BOB, BOB]


async def test_m27_without_the_denial_extension_the_socket_is_closed() -> None:
    app, reached = make_app()
    sent = await call(app, path="/ws", kind="websocket")
    assert [(message["type"], message.get("code")) for message in sent] == [("websocket.close", 1008)]
    assert reached == []


async def test_m27_other_refusals_are_made_before_accept_as_well() -> None:
    app, reached = make_app()
    two = [(b"authorization", b"Bearer a"), (b"authorization", b"Bearer b")]
    sent = await call(
        app, path="/ws", kind="websocket", headers=two, extensions={"websocket.http.response": {}}
    )
    assert (sent[0]["type"], sent[0]["status"]) == ("websocket.http.response.start", 400)
    assert reached == []


async def test_m27_custom_extractors_work_on_a_handshake() -> None:
    def from_query(request: Request) -> tuple[str, str] | None:
        assert request.method == "GET"
        token = request.query_params.get("token")
        return ("authorization", f"Bearer {token}") if token else None

    app, reached = make_app(header_extractors=[from_query])
    async with serving(app) as place:
        async with connect(f"ws://{place}/ws?token=alice"):
            pass
        with pytest.raises(InvalidStatus):
            await connect(f"ws://{place}/ws")
    assert reached == [ALICE]


async def test_m07_m32_excluded_and_optional_sockets_have_no_identity() -> None:
    for options, headers in [
        ({"excluded_paths": {"/ws"}}, ALICE),
        ({"required": False}, {}),
    ]:
        app, reached = make_app(**options)
        async with serving(app) as place, connect(f"ws://{place}/ws", additional_headers=headers):
            pass
        assert reached == [None]


async def test_w16_a_page_of_another_origin_opens_no_socket_with_the_visitors_cookie() -> None:
    app, reached = make_app()
    async with serving(app) as place:
        for headers in (SESSION, {**SESSION, "origin": "http://evil.test"}, {**SESSION, "origin": "null"}):
            with pytest.raises(InvalidStatus) as refused:
                await connect(f"ws://{place}/ws", additional_headers=headers)
            assert refused.value.response.status_code == 403
        async with connect(f"ws://{place}/ws", additional_headers={**SESSION, "origin": f"http://{place}"}):
            pass
    assert reached == [SESSION]


async def test_an_unknown_kind_of_connection_does_not_pass() -> None:
    app, _ = make_app()
    with pytest.raises(RuntimeError, match="webtransport"):
        await app({"type": "webtransport", "path": "/ws", "headers": []}, None, None)  # type: ignore[arg-type]
