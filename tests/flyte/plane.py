"""A control plane made of a table: real HTTP on loopback, every request recorded, answers by path."""

from __future__ import annotations

import gzip
import json
import socket
import struct
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import uvicorn
from google.protobuf.message import Message
from tests.connections import cut


@dataclass(frozen=True)
class Seen:
    """One request as it came."""

    method: str
    path: str
    headers: tuple[tuple[str, str], ...]
    body: bytes

    def header(self, name: str) -> str | None:
        values = [value for key, value in self.headers if key == name]
        assert len(values) <= 1, f"{name} came {len(values)} times"
        return values[0] if values else None

    def message(self, kind: type[Message]) -> Any:
        """The message in the body of a call or of a stream's request."""
        body = gzip.decompress(self.body) if self.header("content-encoding") == "gzip" else self.body
        if self.header("content-type") == "application/connect+proto":
            body = body[5:]
        return kind.FromString(body)


@dataclass
class Raw:
    """An answer byte by byte."""

    status: int = 200
    headers: dict[str, str] = field(default_factory=dict)
    chunks: Sequence[bytes] = ()
    hang_up: bool = False


@dataclass
class Refusal:
    """An error of the Connect protocol."""

    code: str
    message: str = "no"
    status: int = 400


@dataclass
class Stream:
    """Messages of a server stream and how it ends; with `stays` not before the client leaves."""

    messages: Sequence[Message]
    error: str | None = None
    hang_up: bool = False
    stays: bool = False


Answer = Message | Refusal | Raw | Stream
Handler = Callable[[Seen], Answer]


class HungUp(Exception):
    """Makes the server drop the connection."""


class Plane:
    """The table and the record. Safe to change between requests."""

    def __init__(self) -> None:
        self.seen: list[Seen] = []
        self.handlers: dict[str, Handler] = {}
        self.version: str | None = "0.1.0"
        self.url = ""

    def on(self, path: str, *answers: Answer | Handler) -> None:
        """Answer requests to `path` with these, the last one for ever."""
        left = list(answers)
        lock = threading.Lock()

        def handle(seen: Seen) -> Answer:
            with lock:
                answer = left.pop(0) if len(left) > 1 else left[0]
            return answer(seen) if callable(answer) and not isinstance(answer, Message) else answer

        self.handlers[path] = handle

    def paths(self) -> list[str]:
        """The methods called, in order, without their service."""
        return [seen.path.rpartition("/")[2] for seen in self.seen]

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        assert scope["type"] == "http"
        body = b""
        while True:
            event = await receive()
            body += event.get("body", b"")
            if not event.get("more_body"):
                break
        headers = tuple((name.decode(), value.decode("latin-1")) for name, value in scope["headers"])
        query = scope["query_string"].decode()
        seen = Seen(scope["method"], scope["path"] + (f"?{query}" if query else ""), headers, body)
        self.seen.append(seen)
        handler = self.handlers.get(scope["path"])
        answer: Answer = handler(seen) if handler else Refusal("unimplemented", status=501)
        await self._answer(answer, receive, send)

    async def _answer(self, answer: Answer, receive: Any, send: Any) -> None:
        match answer:
            case Raw():
                headers, status, chunks, hang_up = (
                    answer.headers,
                    answer.status,
                    answer.chunks,
                    answer.hang_up,
                )
            case Refusal():
                headers = {"content-type": "application/json"}
                chunks = [json.dumps({"code": answer.code, "message": answer.message}).encode()]
                status, hang_up = answer.status, False
            case Stream():
                headers, status, hang_up = {"content-type": "application/connect+proto"}, 200, answer.hang_up
                chunks = [envelope(each.SerializeToString()) for each in answer.messages]
                if not hang_up and not answer.stays:
                    end = {"error": {"code": answer.error, "message": "no"}} if answer.error else {}
                    chunks.append(envelope(json.dumps(end).encode(), flags=2))
            case _:
                headers, status, hang_up = {"content-type": "application/proto"}, 200, False
                chunks = [answer.SerializeToString()]
        raw = [(name.encode(), value.encode("latin-1")) for name, value in headers.items()]
        if self.version is not None:
            raw.append((b"x-tower", self.version.encode()))
        if hang_up and not chunks:
            raw.append((b"content-length", b"10"))
        await send({"type": "http.response.start", "status": status, "headers": raw})
        for chunk in chunks:
            await send({"type": "http.response.body", "body": chunk, "more_body": True})
        if hang_up:
            raise HungUp
        if isinstance(answer, Stream) and answer.stays:
            while (await receive())["type"] != "http.disconnect":
                pass
            return
        await send({"type": "http.response.body", "body": b""})


def envelope(data: bytes, *, flags: int = 0) -> bytes:
    """One frame of a stream."""
    return struct.pack(">BI", flags, len(data)) + data


class _Server(uvicorn.Server):
    def __init__(self, config: uvicorn.Config) -> None:
        super().__init__(config)
        self.up = threading.Event()

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets)
        self.up.set()

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        await super().shutdown(sockets)
        await cut(self.server_state)


@contextmanager
def serving(
    app: Any, *, uds: Path | None = None, certificate: tuple[Path, Path] | None = None
) -> Iterator[str]:
    """Serve an ASGI application in a thread; gives `host:port`."""
    family = socket.AF_UNIX if uds else socket.AF_INET
    listener = socket.socket(family, socket.SOCK_STREAM)
    listener.bind(str(uds) if uds else ("127.0.0.1", 0))
    place = "" if uds else f"127.0.0.1:{listener.getsockname()[1]}"
    config = uvicorn.Config(
        app,
        lifespan="off",
        log_level="critical",
        ws="none",
        access_log=False,
        timeout_graceful_shutdown=1,
        **({"ssl_certfile": certificate[0], "ssl_keyfile": certificate[1]} if certificate else {}),
    )
    server = _Server(config)
    thread = threading.Thread(target=server.run, kwargs={"sockets": [listener]}, daemon=True)
    thread.start()
    assert server.up.wait(120)
    try:
        yield place
    finally:
        server.should_exit = True
        thread.join(120)
        listener.close()
