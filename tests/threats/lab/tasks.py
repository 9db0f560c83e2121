"""The task of an attacker: it runs whatever its input says, as the person who asked for the run."""

from __future__ import annotations

import inspect
import json

import flyte

# the image of the apps: one to build
image = flyte.Image.from_debian_base().with_pip_packages("fastapi", "uvicorn", "websockets")
env = flyte.TaskEnvironment(name="lab", image=image)


@env.task
async def attack(code: str) -> str:
    """Define `main` by the code, run it, answer its result as JSON. The code finds itself in `code`."""
    names: dict[str, object] = {"code": code}
    exec(code, names)
    result = names["main"]()  # type: ignore[operator]
    if inspect.isawaitable(result):
        result = await result
    return json.dumps(result, default=str)
