"""A webhook call until its task has finished, warm, beside FastAPI + Celery + Redis doing the same.

One caller, one call at a time: POST to the webhook, which starts a task that adds two numbers, waits for it
and answers its result. With Tower the caller shows an API key, the app runs in its own process behind the
gateway and gets an exchanged credential, the run is authorised, audited and durable, and its task runs in a
fresh fork as the caller. The other side does none of that. Nothing is pinned: both have the whole machine.

    python -m bench webhook
"""

from __future__ import annotations

import json
import tempfile
import time
import urllib.request
from pathlib import Path
from typing import Any

from bench.celery_side import celery_side
from bench.processes import Tower, load, tower

GOAL_MS = 30.0
GOAL_RATIO = 2.0
PROJECT, DOMAIN = "flytesnacks", "development"
CALLS_SECONDS = 8.0
BODY = b'{"x": 40, "y": 2}'

TASKS = """
import flyte

env = flyte.TaskEnvironment(name="bench")

@env.task
async def add(x: int, y: int) -> int:
    return x + y
"""

HOOK = """
from contextlib import asynccontextmanager

import flyte
import flyte.app.extras
import flyte.remote
from fastapi import FastAPI
from pydantic import BaseModel

@asynccontextmanager
async def lifespan(app):
    await flyte.init_passthrough.aio(project=flyte.current_project(), domain=flyte.current_domain())
    yield

web = FastAPI(lifespan=lifespan)
web.add_middleware(flyte.app.extras.FastAPIPassthroughAuthMiddleware, excluded_paths={"/health"})
app_env = flyte.app.extras.FastAPIAppEnvironment(
    name="bench-webhook",
    app=web,
    image=flyte.Image.from_debian_base().with_pip_packages("fastapi", "uvicorn"),
    requires_auth=True,
)

class Inputs(BaseModel):
    x: int
    y: int

@web.get("/health")
async def health():
    return {"ok": True}

@web.post("/add")
async def call(inputs: Inputs):
    task = flyte.remote.Task.get("bench.add", auto_version="latest")
    run = await flyte.run.aio(task, x=inputs.x, y=inputs.y)
    await run.wait.aio()
    outputs = await run.outputs.aio()
    return {"sum": outputs[0]}
"""


def serve(running: Tower) -> tuple[str, str]:
    """Deploy the task and the app; return the path of the webhook and a key."""
    key = running.person("bench", role="admin")
    place = ("--project", PROJECT, "--domain", DOMAIN)
    with tempfile.TemporaryDirectory() as folder:
        (Path(folder) / "tasks.py").write_text(TASKS)
        (Path(folder) / "hook.py").write_text(HOOK)
        running.run("flyte", *place, "deploy", "tasks.py", "env", key=key, cwd=Path(folder))
        running.run("flyte", *place, "serve", "hook.py", "app_env", key=key, cwd=Path(folder))
    return f"/apps/{PROJECT}/{DOMAIN}/bench-webhook/add", key


def wait_for(url: str, headers: dict[str, str], *, seconds: float = 180.0) -> None:
    """Call until the answer is right: environments are built and processes started by the first calls."""
    end = time.monotonic() + seconds
    problem: object = None
    while time.monotonic() < end:
        request = urllib.request.Request(url, data=BODY, headers=headers, method="POST")
        try:
            with urllib.request.urlopen(request, timeout=60) as answer:
                if json.load(answer) == {"sum": 42}:
                    return
        except OSError as error:
            problem = error
        time.sleep(0.5)
    raise RuntimeError(f"the webhook did not come up: {problem}")


def timed(url: str, path: str, headers: dict[str, str]) -> dict[str, Any]:
    """Latencies of one caller."""
    wait_for(url + path, headers)
    return load(url, path, headers=headers, body=BODY, connections=1, seconds=CALLS_SECONDS)


def main() -> dict[str, Any]:
    """Measure the other side, then Tower."""
    headers = {"content-type": "application/json"}
    with celery_side() as url:
        celery = timed(url, "/add", headers)
    with tower(core=None) as running:
        path, key = serve(running)
        ours = timed(running.url, path, {**headers, "authorization": f"Bearer {key}"})
    ratio = ours["p50_ms"] / celery["p50_ms"]
    return {
        "bench": "webhook",
        "unit": "milliseconds",
        "ours_p50_ms": ours["p50_ms"],
        "ours_p99_ms": ours["p99_ms"],
        "celery_p50_ms": celery["p50_ms"],
        "celery_p99_ms": celery["p99_ms"],
        "calls": ours["answers"],
        "ratio": round(ratio, 3),
        "goal": GOAL_RATIO,
        "goal_p50_ms": GOAL_MS,
        "met": ours["p50_ms"] <= GOAL_MS and ratio <= GOAL_RATIO,
        "says": f"p50 {ours['p50_ms']:.1f} ms (goal {GOAL_MS:.0f}), p99 {ours['p99_ms']:.1f} ms; "
        f"Celery p50 {celery['p50_ms']:.1f} ms, p99 {celery['p99_ms']:.1f} ms",
    }


if __name__ == "__main__":
    print(json.dumps(main(), indent=2))
