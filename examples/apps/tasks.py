"""The task that the webhook starts.

flyte deploy examples/apps/tasks.py env
"""

from __future__ import annotations

import flyte
import flyte.remote as remote

env = flyte.TaskEnvironment(
    name="my_env",
    image=flyte.Image.from_debian_base(),
    resources=flyte.Resources(cpu=1, memory="512Mi"),
)


@env.task
async def my_task(x: int, y: str = "hello") -> str:
    """Put a number and a text together, and say for whom."""
    caller = await remote.User.get.aio()  # whoever called the webhook: nobody passed a credential in
    print(f"Working for {caller.subject()}.")
    return f"{y} {x}"
