"""A user's app behind the gateway: it shows what reaches it."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import suppress

from fastapi import FastAPI, Request, WebSocket, WebSocketDisconnect
from fastapi.responses import JSONResponse, Response, StreamingResponse


class Echo:
    """The app and what it saw."""

    def __init__(self) -> None:
        self.seen: list[dict[str, object]] = []
        self.sockets: list[dict[str, str]] = []
        self.cancelled = asyncio.Event()
        self.release = asyncio.Event()
        self.reached = asyncio.Event()
        self.app = FastAPI()
        self.app.add_api_route("/events", self.events)
        self.app.add_api_route("/cookies", self.cookies)
        self.app.add_api_route("/upload", self.upload, methods=["POST"])
        self.app.add_api_route("/early", self.early, methods=["POST"])
        self.app.add_api_route("/hang", self.hang)
        self.app.add_api_route("/quiet", self.quiet)
        self.app.add_api_websocket_route("/ws", self.websocket)
        self.app.add_api_websocket_route("/ws-denied", self.denied)
        self.app.add_api_websocket_route("/ws-slow", self.slow)
        self.app.add_api_websocket_route("/ws-flood", self.flood)
        methods = ["GET", "POST", "PUT", "DELETE", "PATCH", "OPTIONS", "HEAD"]
        self.app.add_api_route("/{path:path}", self.anything, methods=methods)

    async def anything(self, request: Request, path: str) -> Response:
        body = await request.body()
        what: dict[str, object] = {
            "method": request.method,
            "raw_path": request.scope["raw_path"].decode(),
            "path": request.scope["path"],
            "query": request.scope["query_string"].decode(),
            "headers": [
                (name.decode("latin-1"), value.decode("latin-1")) for name, value in request.headers.raw
            ],
            "body": body.decode("latin-1"),
        }
        self.seen.append(what)
        return JSONResponse(what, headers={"x-app": "yes"})

    async def events(self) -> Response:
        async def lines() -> AsyncIterator[bytes]:
            yield b"data: first\n\n"
            await self.release.wait()
            yield b"data: second\n\n"

        return StreamingResponse(lines(), media_type="text/event-stream")

    async def hang(self) -> Response:
        async def lines() -> AsyncIterator[bytes]:
            try:
                yield b"data: first\n\n"
                await asyncio.Event().wait()
            finally:
                self.cancelled.set()

        return StreamingResponse(lines(), media_type="text/event-stream")

    async def quiet(self) -> Response:
        self.reached.set()
        await self.release.wait()
        return Response("at last")

    async def cookies(self) -> Response:
        answer = Response("set")
        for cookie in (
            "theme=dark; Path=/",
            "tower_session=planted; Path=/",
            "__Host-tower_session=planted; Path=/; Secure",
            "Tower_Session=planted",
            "=tower_session=planted",
            "wide=1; Domain=localhost",
            "wide2=1; path=/; DOMAIN=.localhost",
            "own=1; Domain=echo-flytesnacks-development.localhost",
            "tower_hop=planted",
        ):
            answer.raw_headers.append((b"set-cookie", cookie.encode()))
        answer.raw_headers += [
            (b"connection", b"x-secret-hop"),
            (b"x-secret-hop", b"1"),
            (b"alt-svc", b'h3=":1"'),
        ]
        answer.raw_headers.append((b"clear-site-data", b'"cookies"'))
        return answer

    async def upload(self, request: Request) -> Response:
        size = 0
        async for chunk in request.stream():
            size += len(chunk)
        return JSONResponse({"size": size, "length": request.headers.get("content-length")})

    async def early(self) -> Response:
        return JSONResponse({"enough": True}, status_code=400)

    async def websocket(self, websocket: WebSocket) -> None:
        self.sockets.append(dict(websocket.headers))
        offered = websocket.scope["subprotocols"]
        await websocket.accept(subprotocol=offered[0] if offered else None, headers=[(b"x-app", b"ws")])
        async for message in websocket.iter_json():
            if message == "close":
                await websocket.close(4242, "enough")
                return
            await websocket.send_json({"you": message})

    async def denied(self, websocket: WebSocket) -> None:
        self.sockets.append(dict(websocket.headers))
        await websocket.close()

    async def slow(self, websocket: WebSocket) -> None:
        """Accepts nobody before `release`; hears of those who left."""
        assert (await websocket.receive())["type"] == "websocket.connect"
        self.reached.set()
        leaving = asyncio.ensure_future(websocket.receive())
        released = asyncio.ensure_future(self.release.wait())
        await asyncio.wait({leaving, released}, return_when=asyncio.FIRST_COMPLETED)
        released.cancel()
        if leaving.done():
            self.cancelled.set()
            return
        leaving.cancel()
        await websocket.accept()
        await websocket.send_json("at last")
        await websocket.close()

    async def flood(self, websocket: WebSocket) -> None:
        await websocket.accept()
        with suppress(WebSocketDisconnect, RuntimeError):
            while True:
                await websocket.send_json("x" * 1000)
        self.cancelled.set()
