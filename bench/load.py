"""A load generator: one process, N kept-alive HTTP/1.1 connections, each with one request in flight.

    python -m bench.load 127.0.0.1 8080 /path --connections 32 --seconds 5 < request.json

Standard input holds `{"headers": {...}, "keys": [...], "body": "<base64>"}`: a credential never stands in an
argument. The connections share the keys out among them, or with `"turns": true` each request has the next
one; each request gets its own `x-request-id`. Prints
one JSON object: how many answers came, how many were not 200, the rate, and latencies in milliseconds. The
parser knows answers with a content-length or in chunks, no more: the less this costs, the nearer is the
measured rate to the server's own.
"""

from __future__ import annotations

import argparse
import asyncio
import base64
import json
import secrets
import sys
import time
from typing import Any

import uvloop

ID = "{request-id}"


class Connection(asyncio.Protocol):
    """Sends a request, reads its answer, sends the next one."""

    def __init__(self, load: Load, key: str) -> None:
        self._load = load
        self._parts = load.parts(key)
        self._transport: asyncio.Transport | None = None
        self._buffer = bytearray()
        self._sent = 0.0

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = transport  # type: ignore[assignment]  # uvloop's own class
        self._send()

    def data_received(self, data: bytes) -> None:
        self._buffer += data
        status = whole(self._buffer)
        if status is None:
            return
        self._load.answered(status, time.perf_counter() - self._sent, self._buffer)
        self._buffer.clear()
        if self._load.over:
            self._load.left(self)
            assert self._transport is not None
            self._transport.close()
        else:
            self._send()

    def connection_lost(self, exc: Exception | None) -> None:
        self._load.left(self)

    def _send(self) -> None:
        assert self._transport is not None
        self._sent = time.perf_counter()
        self._transport.write(self._load.request(self._load.next_turn() or self._parts))


class Load:
    """What all connections share: the request, the answers, the end."""

    def __init__(self, head: str, body: bytes, *, seconds: float, warm: float) -> None:
        self._head, self._body = head, body
        self._run = secrets.token_hex(6)
        self._number = 0
        self._latencies: list[float] = []
        self._connections: set[Connection] = set()
        self._start = time.perf_counter() + warm
        self._end = self._start + seconds
        self.failures = 0
        self.first_failure = ""
        self.done = asyncio.Event()
        self.over = False
        self._turns: list[tuple[bytes, bytes]] = []

    def parts(self, key: str) -> tuple[bytes, bytes]:
        """A request with this key, before and after its id."""
        bearer = f"authorization: Bearer {key}\r\n" if key else ""
        before, _, after = f"{self._head}{bearer}\r\n".partition(ID)
        return before.encode() + self._run.encode(), after.encode() + self._body

    def take_turns(self, keys: list[str]) -> None:
        """Each request goes out with the next of these keys, whichever connection sends it."""
        self._turns = [self.parts(key) for key in keys]

    def next_turn(self) -> tuple[bytes, bytes] | None:
        """A request with the key whose turn it is; None where connections keep their own."""
        return self._turns[self._number % len(self._turns)] if self._turns else None

    def request(self, parts: tuple[bytes, bytes]) -> bytes:
        """The next request, with an id of its own."""
        self._number += 1
        return b"%b-%d%b" % (parts[0], self._number, parts[1])

    def answered(self, status: bytes, latency: float, answer: bytearray) -> None:
        """Count an answer, unless it came before the measuring began or after it ended."""
        now = time.perf_counter()
        if now >= self._end:
            self.over = True
        elif now >= self._start:
            self._latencies.append(latency)
            if status != b"200":
                self.failures += 1
                self.first_failure = self.first_failure or answer[:600].decode(errors="replace")

    def joined(self, connection: Connection) -> None:
        """A connection is there."""
        self._connections.add(connection)

    def left(self, connection: Connection) -> None:
        """A connection is gone; the last one ends the run."""
        self._connections.discard(connection)
        if not self._connections:
            self.done.set()

    def result(self, seconds: float) -> dict[str, Any]:
        """The numbers."""
        latencies = sorted(self._latencies)
        if not latencies:
            return {"answers": 0, "failures": 0, "first_failure": "no answer at all"}
        return {
            "answers": len(latencies),
            "sent": self._number,
            "failures": self.failures,
            "first_failure": self.first_failure,
            "per_second": round(len(latencies) / seconds, 1),
            "p50_ms": round(latencies[len(latencies) // 2] * 1000, 3),
            "p99_ms": round(latencies[int(len(latencies) * 0.99)] * 1000, 3),
        }


def whole(buffer: bytearray) -> bytes | None:
    """The status of an answer that is complete, None while it is not."""
    end = buffer.find(b"\r\n\r\n")
    if end < 0:
        return None
    head = bytes(buffer[:end]).lower()
    place = head.find(b"\r\ncontent-length:")
    if place >= 0:
        length = int(head[place + 17 :].split(b"\r\n", 1)[0])
        complete = len(buffer) >= end + 4 + length
    else:
        complete = buffer.endswith(b"0\r\n\r\n")
    return bytes(buffer[9:12]) if complete else None


async def run(arguments: argparse.Namespace, given: dict[str, Any]) -> dict[str, Any]:
    """Drive the server for the given time."""
    body = base64.b64decode(given["body"])
    lines = [f"POST {arguments.path} HTTP/1.1", f"host: {arguments.host}:{arguments.port}"]
    lines += [f"content-length: {len(body)}", f"x-request-id: {ID}"]
    lines += [f"{name}: {value}" for name, value in given["headers"].items()]
    load = Load("\r\n".join([*lines, ""]), body, seconds=arguments.seconds, warm=arguments.warm)
    loop = asyncio.get_running_loop()
    keys = given["keys"] or [""]
    if given.get("turns"):
        load.take_turns(keys)
    for number in range(arguments.connections):
        connection = Connection(load, keys[number % len(keys)])
        load.joined(connection)
        await loop.create_connection(lambda it=connection: it, arguments.host, arguments.port)  # type: ignore[misc]
    await asyncio.wait_for(load.done.wait(), arguments.warm + arguments.seconds + 30)
    return load.result(arguments.seconds)


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser(prog="python -m bench.load")
    parser.add_argument("host")
    parser.add_argument("port", type=int)
    parser.add_argument("path")
    parser.add_argument("--connections", type=int, default=32)
    parser.add_argument("--seconds", type=float, default=5.0)
    parser.add_argument("--warm", type=float, default=1.0)
    arguments = parser.parse_args()
    given = json.load(sys.stdin)
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        result = runner.run(run(arguments, given))
    print(json.dumps(result))


if __name__ == "__main__":
    main()
