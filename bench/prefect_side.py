"""The other side of the workflow benchmark: Prefect with a server of its own, in an environment built once.

Two forms, both warm, with the same three steps in a row:

- `asked` is the nearest to ours and what ours is compared with: the client asks the API for a run, a worker
  that is already up (`prefect.task_worker.serve`) hears of it, does it, and the client waits for its end
  (`task.delay(...)`, then `wait`). The steps run inside the worker's one process.
- `inside` is the fastest that there is: the client runs the flow in its own process and only tells the server
  about it. Nobody else does any work.

A deployment (`run_deployment` with `flow.serve`) would be asked for by name as our tasks are, but it starts
an interpreter for each run and imports Prefect there, which takes seconds: that is no warm run.

The server keeps its records in SQLite (its default) in a folder that goes away, listens on the loopback
alone, and reports to nobody. It knows no callers, and no step has a process of its own.
"""

from __future__ import annotations

import json
import os
import shutil
import socket
import subprocess
import tempfile
import time
import urllib.request
from dataclasses import dataclass
from pathlib import Path

from bench.processes import ROOT, environment, stop

# the release does not start with a FastAPI that came later
PACKAGES = ("prefect==3.8.8", "fastapi<0.141")
ENVIRONMENT = ROOT / ".cache" / "prefect-side"
START_SECONDS = 90.0
CLIENT_SECONDS = 600.0

FLOW = """
from prefect import flow, task

@task
async def step(x: int) -> int:
    return x + 1

@task
async def asked(x: int) -> int:
    return await step(await step(await step(x)))

@flow
async def inside(x: int) -> int:
    return await step(await step(await step(x)))
"""

WORKER = """
from prefect.task_worker import serve
import side

serve(side.asked)
"""

CLIENT = """
import asyncio, json, sys, time
import side

warm, rounds = int(sys.argv[1]), int(sys.argv[2])

async def asked(x):
    future = side.asked.delay(x)
    await future.wait_async()
    return future

async def timed(call):
    times = []
    for number in range(warm + rounds):
        began = time.perf_counter()
        answer = await call(number)
        times.append((time.perf_counter() - began) * 1000)
        result = answer if isinstance(answer, int) else await answer.result_async()
        if result != number + 3:
            raise RuntimeError(f"the result is wrong: {result}")
    return times[warm:]

async def main():
    return {"asked": await timed(asked), "inside": await timed(side.inside)}

print(json.dumps(asyncio.run(main())))
"""


@dataclass(frozen=True, slots=True)
class Measured:
    """Milliseconds of each round: of a run that was asked for, and of one in the client's own process."""

    asked: list[float]
    inside: list[float]


def measure(*, warm: int, rounds: int) -> Measured:
    """Start a server and a worker, and measure. Raises RuntimeError where Prefect cannot be had or used."""
    python = environment(ENVIRONMENT, PACKAGES)
    folder = Path(tempfile.mkdtemp(prefix="bench-prefect-", dir=ROOT / ".cache"))
    for name, text in (("side", FLOW), ("worker", WORKER), ("client", CLIENT)):
        (folder / f"{name}.py").write_text(text)
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    env = {
        "PATH": os.environ["PATH"],
        "HOME": str(folder),
        "PREFECT_HOME": str(folder / "home"),
        "PREFECT_API_URL": f"http://127.0.0.1:{port}/api",
        "PREFECT_LOGGING_LEVEL": "WARNING",
        "PREFECT_SERVER_LOGGING_LEVEL": "WARNING",
        "PREFECT_SERVER_ANALYTICS_ENABLED": "false",
        "PREFECT_TELEMETRY_ENABLE_RESOURCE_METRICS": "false",
        "DO_NOT_TRACK": "1",
    }
    serve = [
        python,
        "-m",
        "prefect",
        "server",
        "start",
        "--host",
        "127.0.0.1",
        "--port",
        str(port),
        "--no-ui",
    ]
    started: list[subprocess.Popen[bytes]] = []
    try:
        with (folder / "log").open("wb") as log:
            for command in (serve, [python, "worker.py"]):
                process = subprocess.Popen(
                    command, cwd=folder, env=env, stdout=log, stderr=log, start_new_session=True
                )
                started.append(process)
                if command is serve:
                    _answers(f"http://127.0.0.1:{port}/api/health", process, folder / "log")
            asking = [python, "client.py", str(warm), str(rounds)]
            done = subprocess.run(
                asking,
                cwd=folder,
                env=env,
                capture_output=True,
                text=True,
                check=False,
                timeout=CLIENT_SECONDS,
            )
        if done.returncode:
            raise RuntimeError(f"the client of Prefect failed: {done.stderr[-1000:]}")
        return Measured(**json.loads(done.stdout.splitlines()[-1]))
    except subprocess.TimeoutExpired as late:
        told = (folder / "log").read_text()[-1000:]
        raise RuntimeError(f"Prefect did not come to an end in {CLIENT_SECONDS:.0f} s: {told}") from late
    finally:
        for process in reversed(started):
            stop(process, seconds=15)
        shutil.rmtree(folder, ignore_errors=True)


def _answers(url: str, process: subprocess.Popen[bytes], log: Path) -> None:
    end = time.monotonic() + START_SECONDS
    while time.monotonic() < end and process.poll() is None:
        try:
            with urllib.request.urlopen(url, timeout=5) as answer:
                if answer.status == 200:
                    return
        except OSError:
            time.sleep(0.1)
    raise RuntimeError(f"the server of Prefect did not start: {log.read_text()[-1000:]}")
