"""Cost per request of the passthrough middleware, beside the official SDK's over the same bare app.

Each side runs in a process of its own (both packages are named `flyte`), with the same FastAPI and Starlette:
the bare app and the app with the middleware take turns, in process, without sockets, and the middle of the
differences counts. The official SDK lives in an environment that is built once under `.cache/`.

    python -m bench.middleware
"""

from __future__ import annotations

import json
import statistics
import subprocess
import sys
from importlib.metadata import version
from pathlib import Path
from typing import Any

OFFICIAL = "2.12.1"
GOAL = 1 / 25
ROOT = Path(__file__).resolve().parent.parent
ENVIRONMENT = ROOT / ".cache" / f"official-{OFFICIAL}"

REQUESTS = 2000
ROUNDS = 15

# Runs on both sides, so it uses nothing but the public names that both have.
SIDE = """
import asyncio, json, logging, sys, time
from fastapi import FastAPI
from flyte.app.extras import FastAPIPassthroughAuthMiddleware

logging.disable(logging.CRITICAL)
requests, rounds = int(sys.argv[1]), int(sys.argv[2])

def make(protected):
    app = FastAPI()

    @app.get("/me")
    async def me():
        return {"ok": True}

    if protected:
        app.add_middleware(FastAPIPassthroughAuthMiddleware, excluded_paths={"/health"})
    return app

HEADERS = [
    (b"host", b"app.test"), (b"user-agent", b"bench"), (b"accept", b"*/*"),
    (b"accept-encoding", b"gzip, deflate"), (b"connection", b"keep-alive"),
    (b"authorization", b"Bearer twr_abcdefghijkl_" + b"x" * 43), (b"content-type", b"application/json"),
]

def scope():
    return {
        "type": "http", "asgi": {"version": "3.0"}, "http_version": "1.1", "method": "GET", "scheme": "http",
        "path": "/me", "raw_path": b"/me", "query_string": b"", "root_path": "", "headers": HEADERS,
        "client": ("127.0.0.1", 1), "server": ("app.test", 80),
    }

async def once(app):
    sent = []
    asked = False

    async def receive():
        nonlocal asked
        if asked:
            await asyncio.Event().wait()
        asked = True
        return {"type": "http.request", "body": b"", "more_body": False}

    async def send(message):
        sent.append(message)

    await app(scope(), receive, send)
    assert sent[0]["status"] == 200, sent

async def timed(app):
    start = time.perf_counter()
    for _ in range(requests):
        await once(app)
    return (time.perf_counter() - start) / requests * 1e6

async def main():
    bare, protected = make(False), make(True)
    await timed(bare)
    await timed(protected)
    pairs = []
    for number in range(rounds):
        first, second = (bare, protected) if number % 2 else (protected, bare)
        one, two = await timed(first), await timed(second)
        pairs.append((one, two) if number % 2 else (two, one))
    print(json.dumps(pairs))

asyncio.run(main())
"""


def official_python() -> Path:
    """The interpreter of the official SDK's environment, which is built when it is missing."""
    python = ENVIRONMENT / "bin" / "python"
    ready = ENVIRONMENT / ".ready"
    if not ready.exists():
        uv = [sys.executable, "-m", "uv"]
        subprocess.run(
            [*uv, "venv", "--quiet", "--clear", "--python", sys.executable, ENVIRONMENT], check=True
        )
        same = [f"{name}=={version(name)}" for name in ("fastapi", "starlette")]
        install = [*uv, "pip", "install", "--quiet", "--python", python, f"flyte=={OFFICIAL}", *same]
        subprocess.run(install, check=True)
        ready.touch()
    return python


def measure(python: Path | str) -> tuple[float, float]:
    """Microseconds per request: the bare app, and what the middleware adds to it."""
    answer = subprocess.run(
        [python, "-c", SIDE, str(REQUESTS), str(ROUNDS)],
        check=True,
        capture_output=True,
        text=True,
        cwd=ROOT / ".cache",
        env={"DO_NOT_TRACK": "1", "FLYTE_DISABLE_TELEMETRY": "1", "PATH": "/usr/bin:/bin"},
    )
    pairs = json.loads(answer.stdout.splitlines()[-1])
    bare = statistics.median(pair[0] for pair in pairs)
    added = statistics.median(pair[1] - pair[0] for pair in pairs)
    return bare, added


def main() -> dict[str, Any]:
    """Measure both sides; the ceiling is the bare app without any middleware."""
    (ROOT / ".cache").mkdir(exist_ok=True)
    official_bare, official = measure(official_python())
    bare, ours = measure(sys.executable)
    return {
        "bench": "middleware",
        "unit": "microseconds per request",
        "bare": round(bare, 1),
        "ours": round(ours, 2),
        "official": round(official, 1),
        "official_bare": round(official_bare, 1),
        "share_of_ceiling": round(bare / (bare + ours), 3),
        "ratio": round(ours / official, 4),
        "goal": GOAL,
        "met": ours / official <= GOAL,
        "requests": REQUESTS * ROUNDS,
        "says": (
            f"adds {ours:.1f} µs to a request of {bare:.0f} µs; the official one adds {official:.0f} µs"
        ),
    }


if __name__ == "__main__":
    print(json.dumps(main(), indent=2))
