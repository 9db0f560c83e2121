"""The app of an attacker, twice: both run whatever the body says, behind the real middleware."""

from __future__ import annotations

import asyncio
import inspect
import threading
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

from fastapi import BackgroundTasks, FastAPI, Request, WebSocket
from fastapi.responses import JSONResponse, Response, StreamingResponse

import flyte
import flyte.remote as remote
from flyte.app.extras import FastAPIAppEnvironment, FastAPIPassthroughAuthMiddleware, install_error_handlers

kept: list[str] = []


async def who() -> str:
    """The caller, as Tower sees them."""
    return (await remote.User.get.aio()).subject()


def named(error: Exception) -> str:
    """The kind of a refusal."""
    return type(error).__name__


def build() -> FastAPI:
    """One app; each of them has a copy of its own."""

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        await flyte.init_passthrough.aio(project=flyte.current_project(), domain=flyte.current_domain())
        try:
            kept.append(f"started as {await who()}")
        except Exception as error:
            kept.append(named(error))
        yield

    app = FastAPI(lifespan=lifespan)
    app.add_middleware(FastAPIPassthroughAuthMiddleware, excluded_paths={"/health"})
    install_error_handlers(app)

    @app.post("/attack")
    async def attack(request: Request) -> JSONResponse:
        names: dict[str, Any] = {"request": request}
        exec((await request.body()).decode(), names)
        result = names["main"]()
        return JSONResponse(await result if inspect.isawaitable(result) else result)

    @app.api_route("/headers", methods=["GET", "POST"])
    async def headers(request: Request) -> dict[str, Any]:
        return {
            "headers": [(name.decode(), value.decode("latin-1")) for name, value in request.headers.raw],
            "body": len(await request.body()),
        }

    @app.get("/health")
    async def health() -> dict[str, Any]:
        try:
            return {"who": await who()}
        except Exception as error:
            return {"refused": named(error)}

    @app.get("/startup")
    async def startup() -> list[str]:
        return kept

    @app.get("/who/async")
    async def in_async() -> str:
        return await who()

    @app.get("/who/sync")
    def in_sync() -> str:
        return remote.User.get().subject()

    @app.get("/who/stream")
    async def in_stream() -> StreamingResponse:
        async def body() -> AsyncIterator[str]:
            for _ in range(2):
                await asyncio.sleep(0)
                yield await who() + "\n"

        return StreamingResponse(body())

    @app.get("/who/background")
    async def in_background(background: BackgroundTasks) -> str:
        async def later(expected: str) -> None:
            if await who() != expected:
                kept.append("mixed")

        me = await who()
        background.add_task(later, me)
        return me

    @app.get("/who/thread")
    async def in_thread() -> str:
        found: list[str] = []

        def work() -> None:
            try:
                found.append(remote.User.get().subject())
            except Exception as error:
                found.append(named(error))

        thread = threading.Thread(target=work)
        thread.start()
        await asyncio.to_thread(thread.join)
        return found[0]

    @app.get("/page")
    async def page() -> Response:
        return Response(
            "<script>parent.document.cookie</script>",
            media_type="text/html",
            headers={
                "set-cookie": "tower_session=planted; Domain=localhost; Path=/",
                "x-seen": "1",
                "content-security-policy": "default-src *",
                "clear-site-data": '"*"',
            },
        )

    @app.websocket("/socket")
    async def socket(websocket: WebSocket) -> None:
        await websocket.accept()
        await websocket.send_text(await who())
        async for _ in websocket.iter_text():
            await websocket.send_text("still here")

    return app


image = flyte.Image.from_debian_base().with_pip_packages("fastapi", "uvicorn", "websockets")
probe = FastAPIAppEnvironment(name="probe", app=build(), requires_auth=True, image=image)
other = FastAPIAppEnvironment(name="other", app=build(), requires_auth=True, image=image)
