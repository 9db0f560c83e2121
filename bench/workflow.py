"""A workflow of three tasks in a row, warm: from asking for it until its result is there.

The client asks for the run and waits for its end, one at a time, with an API key. The workflow is a task that
awaits three others, each with the result of the one before. All four are actions of one run: authorised,
audited, durable, each in a fresh fork with an identity of its own. The ceiling is the same tree of processes
and nothing else: a warm process forks one that forks three in a row, each runs a coroutine, writes its result
to a file, syncs it, and ends. Prefect does the same three steps beside it where it can be installed
(`prefect_side.py` says in what form).

    python -m bench workflow
"""

from __future__ import annotations

import asyncio
import json
import os
import statistics
import tempfile
import time
from pathlib import Path
from typing import Any

from bench import prefect_side
from bench.processes import ROOT, tower

GOAL_MS = 20.0
ROUNDS = 150
WARM = 15
PREFECT_ROUNDS, PREFECT_WARM = 30, 5
PROJECT, DOMAIN = "flytesnacks", "development"

TASKS = """
import flyte

env = flyte.TaskEnvironment(name="bench")

@env.task
async def step(x: int) -> int:
    return x + 1

@env.task
async def workflow(x: int) -> int:
    return await step(await step(await step(x)))
"""


async def ours(url: str, key: str) -> list[float]:
    """Milliseconds of each round."""
    import flyte
    import flyte.remote

    await flyte.init.aio(url, api_key=key, project=PROJECT, domain=DOMAIN)
    task = flyte.remote.Task.get("bench.workflow")
    times = []
    for number in range(WARM + ROUNDS):
        began = time.perf_counter()
        run = await flyte.run.aio(task, x=number)
        await run.wait.aio()
        times.append((time.perf_counter() - began) * 1000)
        if not run.phase.is_good:
            raise RuntimeError(f"the run ended as {run.phase}: {run.error}")
        if number == 0 and (await run.outputs.aio())[0] != 3:
            raise RuntimeError("the result is wrong")
    return times[WARM:]


def ceiling(folder: Path) -> list[float]:
    """Milliseconds of the same tree of processes, without a platform."""
    import google.protobuf.message  # noqa: F401 - what a child has loaded
    import httpcore  # noqa: F401

    times = []
    for _ in range(WARM + ROUNDS):
        began = time.perf_counter()
        _child(folder, 3)
        times.append((time.perf_counter() - began) * 1000)
    return times[WARM:]


def _child(folder: Path, below: int) -> None:
    pid = os.fork()
    if pid:
        os.waitpid(pid, 0)
        return
    try:
        for _ in range(below):
            _child(folder, 0)
        asyncio.run(_nothing())
        descriptor = os.open(folder / str(os.getpid()), os.O_WRONLY | os.O_CREAT)
        os.write(descriptor, b"1")
        os.fsync(descriptor)
    finally:
        os._exit(0)


async def _nothing() -> int:
    return 1


def beside(median: float) -> tuple[dict[str, Any], str]:
    """What Prefect needs for it, and how many times ours that is; the reason where it cannot be measured."""
    try:
        prefect = prefect_side.measure(warm=PREFECT_WARM, rounds=PREFECT_ROUNDS)
    except RuntimeError as error:
        return {"prefect": str(error)}, "not measured beside Prefect"
    asked, inside = statistics.median(prefect.asked), statistics.median(prefect.inside)
    measured = {
        "prefect_ms": round(asked, 2),
        "prefect_inside_ms": round(inside, 2),
        "prefect_ratio": round(median / asked, 3),
        "prefect_inside_ratio": round(median / inside, 3),
    }
    says = (
        f"Prefect {asked:.0f} ms by a worker that is up (ours is {median / asked:.2f} of it), "
        f"{inside:.0f} ms inside the client ({median / inside:.2f})"
    )
    return measured, says


def main() -> dict[str, Any]:
    """Measure the ceiling, then Tower, then Prefect."""
    with tempfile.TemporaryDirectory(dir=ROOT / ".cache") as folder:
        bare = ceiling(Path(folder))
    with tower(core=None) as running:
        key = running.person("bench")
        with tempfile.TemporaryDirectory() as code:
            (Path(code) / "flow.py").write_text(TASKS)
            place = ("--project", PROJECT, "--domain", DOMAIN)
            running.run("flyte", *place, "deploy", "flow.py", "env", key=key, cwd=Path(code))
        times = asyncio.run(ours(running.url, key))
    median, floor = statistics.median(times), statistics.median(bare)
    p99 = sorted(times)[int(len(times) * 0.99)]
    prefect, compared = beside(median)
    return {
        "bench": "workflow",
        "unit": "milliseconds",
        "median_ms": round(median, 2),
        "p99_ms": round(p99, 2),
        "ceiling_ms": round(floor, 2),
        "rounds": len(times),
        **prefect,
        "ratio": round(median / floor, 3),
        "goal": round(GOAL_MS / floor, 3),
        "goal_ms": GOAL_MS,
        "met": median <= GOAL_MS,
        "says": f"median {median:.1f} ms (goal {GOAL_MS:.0f}), p99 {p99:.1f} ms; "
        f"the bare processes {floor:.1f} ms; {compared}",
    }


if __name__ == "__main__":
    print(json.dumps(main(), indent=2))
