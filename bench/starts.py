"""One caller who asks for a run for each line it is given, warm, and says how long it took until it began.

    python -m bench.starts URL KEY

For each line on standard input a line of JSON: milliseconds from asking until the run was accepted, and until
the first line of its task ran. Both ends read the same clock, which is the machine's (CLOCK_MONOTONIC).
"""

from __future__ import annotations

import asyncio
import json
import sys
import time

import flyte
import flyte.remote

PROJECT, DOMAIN = "flytesnacks", "development"

TASKS = """
import time

import flyte

env = flyte.TaskEnvironment(name="bench")

@env.task
async def first() -> float:
    return time.monotonic()
"""


async def main(url: str, key: str) -> None:
    """Until the input ends."""
    await flyte.init.aio(url, api_key=key, project=PROJECT, domain=DOMAIN)
    task = flyte.remote.Task.get("bench.first")
    while await asyncio.to_thread(sys.stdin.readline):
        asked = time.monotonic()
        run = await flyte.run.aio(task)
        accepted = time.monotonic()
        await run.wait.aio()
        if not run.phase.is_good:
            raise RuntimeError(f"the run ended as {run.phase}: {run.error}")
        began = (await run.outputs.aio())[0]
        print(json.dumps([(accepted - asked) * 1000, (began - asked) * 1000]), flush=True)


if __name__ == "__main__":
    asyncio.run(main(*sys.argv[1:]))
