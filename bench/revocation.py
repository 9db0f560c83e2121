"""How long after an acknowledged revocation any process still gets an answer in its person's name.

A run starts others, each a process with an agent of its own; all of them call without a pause. The grant of
the first is revoked, and from the moment of the answer the time runs until each process is refused. A call
that began after the answer and was let in is stale.

    python -m bench revocation
"""

from __future__ import annotations

import asyncio
import json
import socket
import tempfile
import time
import urllib.request
from pathlib import Path
from typing import Any

from bench.processes import tower

GOAL_SECONDS = 1.0
PROCESSES = 6
ROUNDS = 12
PROJECT, DOMAIN = "flytesnacks", "development"

TASKS = """
import json
import os
import socket
import time

import flyte
import flyte.remote as remote

env = flyte.TaskEnvironment(name="bench")

HEAD = (
    b"POST /flyteidl2.auth.IdentityService/UserInfo HTTP/1.1\\r\\nhost: tower\\r\\nx-flyte-agent: 1\\r\\n"
    b"content-type: application/proto\\r\\ncontent-length: 0\\r\\n\\r\\n"
)


def once(link):
    link.sendall(HEAD)
    answer = link.recv(65536)
    while b"\\r\\n\\r\\n" not in answer:
        answer += link.recv(65536)
    head, _, body = answer.partition(b"\\r\\n\\r\\n")
    lines = head.lower().split(b"\\r\\n")
    left = int(next(line for line in lines if line.startswith(b"content-length"))[15:]) - len(body)
    while left > 0:
        left -= len(link.recv(65536))
    return head


@env.task
def call(port: int, others: int, salt: int) -> str:
    for number in range(others):
        flyte.run(remote.Task.get(name="bench.call"), port=port, others=0, salt=salt * 100 + number + 1)
    with socket.create_connection(("127.0.0.1", port)) as line, line.makefile("rw") as talk:
        link = socket.socket(socket.AF_UNIX)
        link.connect(os.environ["FLYTE_AGENT_SOCKET"])
        let_in = 0.0
        said = False
        while True:
            began = time.monotonic()
            answer = once(link)
            if not answer.startswith(b"HTTP/1.1 200"):
                refused = time.monotonic()
                break
            let_in = began
            if not said:
                print(json.dumps([os.environ["RUN_NAME"], bool(others)]), file=talk, flush=True)
                said = True
        print(json.dumps([let_in, refused, answer[:12].decode()]), file=talk, flush=True)
        talk.readline()
    return "done"
"""


async def started(url: str, key: str, port: int, salt: int) -> None:
    """Ask for the first run."""
    import flyte
    import flyte.remote

    await flyte.init.aio(url, api_key=key, project=PROJECT, domain=DOMAIN)
    task = flyte.remote.Task.get("bench.call")
    await flyte.run.aio(task, port=port, others=PROCESSES - 1, salt=salt)


def revoke(url: str, key: str, run: str) -> float:
    """When the answer was here."""
    request = urllib.request.Request(
        f"{url}/api/v1/grants/{PROJECT}/{DOMAIN}/{run}",
        method="DELETE",
        headers={"authorization": f"Bearer {key}"},
    )
    with urllib.request.urlopen(request) as answer:
        answer.read()
        return time.monotonic()


def one(url: str, key: str, salt: int) -> tuple[list[float], int]:
    """Seconds from the answer to the refusal of each process, and how many stale calls there were."""
    with socket.create_server(("127.0.0.1", 0), backlog=PROCESSES) as listener:
        listener.settimeout(120)
        asyncio.run(started(url, key, listener.getsockname()[1], salt))
        talks = [listener.accept()[0].makefile("rw") for _ in range(PROCESSES)]
        names = [json.loads(talk.readline()) for talk in talks]
        answered = revoke(url, key, next(name for name, first in names if first))
        ends = [json.loads(talk.readline()) for talk in talks]
        for talk in talks:
            print("end", file=talk, flush=True)
            talk.close()
    if any(" 401" not in end[2] for end in ends):
        raise RuntimeError(f"a process ended otherwise: {ends}")
    return [max(0.0, end[1] - answered) for end in ends], sum(end[0] > answered for end in ends)


def main() -> dict[str, Any]:
    """Measure with agents beside."""
    times, stale = [], 0
    with tower(core=None, options=("--agent", "beside")) as running, tempfile.TemporaryDirectory() as code:
        key = running.person("bench")
        (Path(code) / "calls.py").write_text(TASKS)
        place = ("--project", PROJECT, "--domain", DOMAIN)
        running.run("flyte", *place, "deploy", "calls.py", "env", key=key, cwd=Path(code))
        for number in range(ROUNDS):
            found, late = one(running.url, key, number + 1)
            times += found
            stale += late
    times.sort()
    p50, p99 = times[len(times) // 2], times[int(len(times) * 0.99)]
    return {
        "bench": "revocation",
        "unit": "seconds",
        "p50": round(p50, 4),
        "p99": round(p99, 4),
        "worst": round(times[-1], 4),
        "stale_calls": stale,
        "processes": PROCESSES,
        "samples": len(times),
        "ratio": round(p99 / GOAL_SECONDS, 4),
        "goal": 1.0,
        "met": p99 <= GOAL_SECONDS and not stale,
        "says": f"p99 {p99 * 1000:.1f} ms after the answer, worst {times[-1] * 1000:.1f} ms, {stale} stale"
        f" calls ({len(times)} refusals, {PROCESSES} processes with an agent each)",
    }


if __name__ == "__main__":
    print(json.dumps(main(), indent=2))
