"""Durable CreateRun per second beside an empty handler on the same stack.

Both servers have one core, the load generator has another, and both get the same request bytes: a valid
CreateRun with inline inputs and an API key. Tower authenticates, authorises, validates the inputs, commits
the run row and its chained audit record with an fsync, and answers. Its execution slots are filled with
tasks that wait, so that the measured runs stay queued and the core does nothing else. The two take turns, a
few seconds each, so that other work on the machine meets both; the numbers are medians of the rounds.

    python -m bench create_run
"""

from __future__ import annotations

import json
import statistics
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from flyteidl2.core.literals_pb2 import Literal, Primitive, Scalar
from flyteidl2.workflow.run_service_pb2 import CreateRunRequest

from bench.processes import SERVER_CORE, Tower, cpu_seconds, load, server, tower

GOAL = 0.40
PATH = "/flyteidl2.workflow.RunService/CreateRun"
PROJECT, DOMAIN = "flytesnacks", "development"
SLOTS = 8
CONNECTIONS = 64
PEOPLE = 8
ROUNDS = 5
SECONDS = 2.0

TASKS = """
import asyncio
import flyte

env = flyte.TaskEnvironment(name="bench")

@env.task
async def wait(seconds: int) -> int:
    await asyncio.sleep(seconds)
    return seconds
"""


def request(version: str = "") -> bytes:
    """A CreateRun of the deployed task."""
    message = CreateRunRequest()
    for scope in (message.project_id, message.task_id):
        scope.domain = DOMAIN
    message.project_id.name = PROJECT
    message.task_id.project = PROJECT
    message.task_id.name = "bench.wait"
    message.task_id.version = version
    value = message.inputs.literals.add()
    value.name = "seconds"
    value.value.CopyFrom(Literal(scalar=Scalar(primitive=Primitive(integer=600))))
    return message.SerializeToString()


HEADERS = {
    "content-type": "application/proto",
    "connect-protocol-version": "1",
    "accept-encoding": "identity",
}


def prepare(running: Tower) -> list[str]:
    """Deploy the task, fill the slots; return keys of several people: each may queue 10,000 runs."""
    keys = [running.person(f"bench{number}") for number in range(PEOPLE)]
    with tempfile.TemporaryDirectory() as folder:
        (Path(folder) / "tasks.py").write_text(TASKS)
        place = ("--project", PROJECT, "--domain", DOMAIN)
        running.run("flyte", *place, "deploy", "tasks.py", "env", key=keys[0], cwd=Path(folder))
    load(running.url, PATH, headers=HEADERS, keys=keys, body=request(), connections=SLOTS, seconds=0.2)
    return keys


def drive(url: str, pid: int, **how: Any) -> dict[str, Any]:
    """`load` with the CPU of the server per request, in microseconds: it suffers less from other work."""
    before = cpu_seconds(pid)
    result = load(url, PATH, **how)
    return {**result, "cpu_us": round((cpu_seconds(pid) - before) / result["sent"] * 1e6)}


def typical(rounds: Sequence[dict[str, Any]]) -> dict[str, float]:
    """The median of each number."""
    names = ("per_second", "cpu_us", "p50_ms", "p99_ms")
    return {name: statistics.median(each[name] for each in rounds) for name in names}


def main() -> dict[str, Any]:
    """Measure the ceiling and Tower in turn."""
    common: dict[str, Any] = {
        "headers": HEADERS,
        "body": request(),
        "connections": CONNECTIONS,
        "seconds": SECONDS,
    }
    with (
        server([sys.executable, "-m", "bench.empty"], core=SERVER_CORE) as (url, pid),
        tower(core=SERVER_CORE) as running,
    ):
        keys = prepare(running)
        rounds = [
            (
                drive(url, pid, **common, keys=["k" * 60]),
                drive(running.url, running.pid, **common, keys=keys),
            )
            for _ in range(ROUNDS)
        ]
        one = load(running.url, PATH, **{**common, "connections": 1}, keys=keys)
    ceiling, ours = (typical(each) for each in zip(*rounds, strict=True))
    ratio = ours["per_second"] / ceiling["per_second"]
    return {
        "bench": "create_run",
        "unit": "requests per second",
        "ours": ours["per_second"],
        "ceiling": ceiling["per_second"],
        "ours_cpu_us": ours["cpu_us"],
        "ceiling_cpu_us": ceiling["cpu_us"],
        "cpu_ratio": round(ceiling["cpu_us"] / ours["cpu_us"], 3),
        "ours_p50_ms": ours["p50_ms"],
        "ours_p99_ms": ours["p99_ms"],
        "ceiling_p50_ms": ceiling["p50_ms"],
        "alone_p50_ms": one["p50_ms"],
        "ratio": round(ratio, 3),
        "goal": GOAL,
        "met": ratio >= GOAL,
        "best_ours_cpu_us": min(each["cpu_us"] for _, each in rounds),
        "best_ceiling_cpu_us": min(each["cpu_us"] for each, _ in rounds),
        "connections": CONNECTIONS,
        "says": f"{ours['per_second']:.0f} durable runs/s (p99 {ours['p99_ms']:.0f} ms, "
        f"{ours['cpu_us']} µs of CPU each), empty handler {ceiling['per_second']:.0f}/s "
        f"({ceiling['cpu_us']} µs); alone p50 {one['p50_ms']:.1f} ms",
    }


if __name__ == "__main__":
    print(json.dumps(main(), indent=2))
