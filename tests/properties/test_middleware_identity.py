"""However requests interleave, no call ever carries another caller's identity (M28 to M30, T22, T24)."""

from __future__ import annotations

import asyncio
import contextlib
import json
import threading
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass
from typing import Any

import httpx
import pytest
from fastapi import BackgroundTasks, FastAPI, WebSocket
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from starlette.responses import JSONResponse, StreamingResponse
from tests.flyte.app.control_plane import ControlPlane, control_plane, in_thread
from websockets.asyncio.client import connect

import flyte._init as init
from flyte import remote
from flyte.app.extras import FastAPIPassthroughAuthMiddleware
from flyte.errors import MissingCallerError

PEOPLE = [f"person{number}" for number in range(6)]
KINDS = [
    "async",
    "sync",
    "thread",
    "gather",
    "stream",
    "sync-stream",
    "background",
    "websocket",
    "open",
    "bare",
]


@dataclass(frozen=True, slots=True)
class Visit:
    """One request: who sends it, which handler it is for, how it interleaves with others."""

    who: str
    kind: str
    calls: int
    pauses: int


class World:
    """An app in passthrough mode between its callers and a control plane that writes everything down."""

    def __init__(self, plane: ControlPlane) -> None:
        self.plane = plane
        self.place = ""
        self.afterwards: list[tuple[str, str]] = []
        self.finished = threading.Condition()

    def note(self, who: str, subject: str) -> None:
        with self.finished:
            self.afterwards.append((who, subject))
            self.finished.notify_all()


async def subject() -> str:
    return (await remote.User.get.aio()).subject()


def subject_now() -> str:
    return remote.User.get().subject()


async def pause(times: int) -> None:
    for _ in range(times):
        await asyncio.sleep(0)


def make_app(world: World) -> FastAPI:
    app = FastAPI()

    @app.get("/async/{who}")
    async def handle(who: str, calls: int, pauses: int) -> list[str]:
        found = []
        for _ in range(calls):
            await pause(pauses)
            found.append(await subject())
        return found

    @app.get("/sync/{who}")
    def handle_sync(who: str, calls: int) -> list[str]:
        return [subject_now() for _ in range(calls)]

    @app.get("/thread/{who}")
    async def handle_thread(who: str, calls: int) -> list[str]:
        return list(await asyncio.gather(*(asyncio.to_thread(subject_now) for _ in range(calls))))

    @app.get("/gather/{who}")
    async def handle_gather(who: str, calls: int) -> list[str]:
        tasks = [asyncio.create_task(subject()) for _ in range(calls)]
        return list(await asyncio.gather(*tasks))

    @app.get("/stream/{who}")
    async def handle_stream(who: str, calls: int, pauses: int) -> StreamingResponse:
        async def body() -> AsyncIterator[str]:
            for _ in range(calls):
                await pause(pauses)
                yield json.dumps(await subject()) + "\n"

        return StreamingResponse(body())

    @app.get("/sync-stream/{who}")
    def handle_sync_stream(who: str, calls: int) -> StreamingResponse:
        return StreamingResponse(json.dumps(subject_now()) + "\n" for _ in range(calls))

    @app.get("/background/{who}")
    async def handle_background(who: str, calls: int, pauses: int, tasks: BackgroundTasks) -> JSONResponse:
        async def later() -> None:
            await pause(pauses)
            world.note(who, await subject())

        for number in range(calls):
            tasks.add_task(later if number % 2 else lambda: world.note(who, subject_now()))
        return JSONResponse([await subject()], background=tasks)

    @app.websocket("/websocket/{who}")
    async def handle_websocket(websocket: WebSocket, who: str) -> None:
        await websocket.accept()
        async for text in websocket.iter_text():
            await pause(int(text))
            await websocket.send_text(await subject())

    @app.get("/open")
    async def handle_open(pauses: int) -> list[str]:
        await pause(pauses)
        try:
            return [await subject()]
        except MissingCallerError:
            return []

    @app.get("/bare/{who}")
    def handle_bare(who: str) -> list[str]:
        """A thread started by hand has no caller, so its call is refused."""
        found: list[str] = []

        def work() -> None:
            with contextlib.suppress(MissingCallerError):
                found.append(subject_now())

        thread = threading.Thread(target=work)
        thread.start()
        thread.join()
        return found

    app.add_middleware(FastAPIPassthroughAuthMiddleware, excluded_paths={"/open"})
    return app


@pytest.fixture(scope="module")
def world() -> Iterator[World]:
    with control_plane() as plane:
        world = World(plane)
        init.init_passthrough(endpoint=plane.url)
        with in_thread(make_app(world)) as place:
            world.place = place
            yield world
    init.reset()


async def visit(world: World, http: httpx.AsyncClient, one: Visit) -> list[str]:
    """Make the request, and give back the subjects that its handler was told."""
    headers = {"authorization": f"Bearer {one.who}"}
    if one.kind == "websocket":
        url = f"ws://{world.place}/websocket/{one.who}"
        async with connect(url, additional_headers=headers) as socket:
            found = []
            for _ in range(one.calls):
                await socket.send(str(one.pauses))
                found.append(str(await socket.recv()))
            return found
    path = "/open" if one.kind == "open" else f"/{one.kind}/{one.who}"
    params = {"calls": one.calls, "pauses": one.pauses}
    answer = await http.get(path, params=params, headers=headers)
    assert answer.status_code == 200, answer.text
    if "stream" in one.kind:
        return [json.loads(line) for line in answer.text.splitlines()]
    found = answer.json()
    assert isinstance(found, list)
    return found


VISITS = st.lists(
    st.builds(
        Visit,
        who=st.sampled_from(PEOPLE),
        kind=st.sampled_from(KINDS),
        calls=st.integers(1, 3),
        pauses=st.integers(0, 5),
    ),
    min_size=2,
    max_size=16,
)


def expected(one: Visit) -> list[str]:
    match one.kind:
        case "open" | "bare":
            return []
        case "background":
            return [one.who]
        case _:
            return [one.who] * one.calls


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(visits=VISITS)
def test_no_call_carries_another_callers_identity(world: World, visits: list[Visit]) -> None:
    world.plane.asked.clear()
    world.afterwards.clear()

    async def everybody() -> list[Any]:
        async with httpx.AsyncClient(
            base_url=f"http://{world.place}", timeout=120.0, trust_env=False
        ) as http:
            return list(await asyncio.gather(*(visit(world, http, one) for one in visits)))

    answers = asyncio.run(everybody())
    assert answers == [expected(one) for one in visits]

    tasks = sum(one.calls for one in visits if one.kind == "background")
    with world.finished:
        assert world.finished.wait_for(lambda: len(world.afterwards) == tasks, timeout=120)
    assert all(who == told for who, told in world.afterwards)

    # What left the app: every request named a caller, and each caller as often as they asked.
    due = sorted(name for one in visits for name in expected(one))
    due += [one.who for one in visits if one.kind == "background" for _ in range(one.calls)]
    assert sorted(world.plane.callers()) == sorted(due)
