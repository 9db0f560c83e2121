"""A webhook that starts any deployed task as the person who calls it.

    flyte deploy examples/apps/tasks.py env
    flyte serve examples/apps/run_webhook.py app_env

    curl -X POST -H "Authorization: Bearer $FLYTE_API_KEY" -H "Content-Type: application/json" \
        -d '{"x": 42, "y": "hello"}' \
        http://localhost:8080/apps/flytesnacks/development/webhook-runner/run-task/flytesnacks/development/my_env.my_task

There is no key in this file and none in its environment. The middleware takes the caller's credential from
each request, and every Flyte call of that request is made with it: the run below belongs to the caller, has
the caller's rights, and its page says so.
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

from fastapi import FastAPI

import flyte
import flyte.remote as remote
from flyte.app.extras import (
    FastAPIAppEnvironment,
    FastAPIPassthroughAuthMiddleware,
    install_error_handlers,
)


@asynccontextmanager
async def lifespan(app: FastAPI) -> AsyncIterator[None]:
    """Prepare for callers. The platform tells the app where it runs; nothing is asked of it yet."""
    await flyte.init_passthrough.aio(project=flyte.current_project(), domain=flyte.current_domain())
    yield


app = FastAPI(title="Task webhook", lifespan=lifespan)
app.add_middleware(FastAPIPassthroughAuthMiddleware, excluded_paths={"/health", "/docs", "/openapi.json"})
install_error_handlers(app)  # unknown task: 404, wrong inputs: 400, not allowed: 403, ...


@app.get("/health")
async def health() -> dict[str, str]:
    """Answer the platform's probe; nobody has to be known for that."""
    return {"status": "healthy"}


@app.get("/me")
async def me() -> dict[str, str]:
    """Say who the control plane takes the caller for."""
    user = await remote.User.get.aio()
    return {"subject": user.subject(), "name": user.name()}


@app.post("/run-task/{project}/{domain}/{name}")
async def run_task(
    project: str, domain: str, name: str, inputs: dict[str, Any], version: str | None = None
) -> dict[str, str]:
    """Start a task with the inputs in the body, in its latest version unless one is named."""
    task = remote.Task.get(project=project, domain=domain, name=name, version=version)
    run = await flyte.run.aio(task, **inputs)
    return {"url": run.url, "name": run.name}


app_env = FastAPIAppEnvironment(
    name="webhook-runner",
    app=app,
    description="Starts tasks as whoever calls it",
    image=flyte.Image.from_debian_base().with_pip_packages("fastapi", "uvicorn"),
    resources=flyte.Resources(cpu=1, memory="512Mi"),
    requires_auth=True,
)
