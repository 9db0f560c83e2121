"""A call over the socket of a task's agent, beside a plain echo over a unix socket.

The task itself measures, in turn: a request and an answer of the same sizes through an echo in a process of
its own, and the smallest RPC (who am I) through the agent: attested, authenticated, the grant and the right
checked, answered by the RPC door. Once with Tower serving the socket itself, once with `tower agent` between.

    python -m bench agent
"""

from __future__ import annotations

import asyncio
import json
import tempfile
from pathlib import Path
from typing import Any

from bench.processes import tower

GOAL_MS = 0.5
ROUNDS = 3_000
PROJECT, DOMAIN = "flytesnacks", "development"

TASKS = '''
import json
import os
import socket
import time

import flyte

env = flyte.TaskEnvironment(name="bench")

HEAD = (
    b"POST /flyteidl2.auth.IdentityService/UserInfo HTTP/1.1\\r\\nhost: tower\\r\\nx-flyte-agent: 1\\r\\n"
    b"content-type: application/proto\\r\\ncontent-length: 0\\r\\n\\r\\n"
)


def connect(path):
    link = socket.socket(socket.AF_UNIX)
    link.connect(path)
    return link


def once(link):
    link.sendall(HEAD)
    answer = link.recv(65536)
    while b"\\r\\n\\r\\n" not in answer:
        answer += link.recv(65536)
    head, _, body = answer.partition(b"\\r\\n\\r\\n")
    lines = head.lower().split(b"\\r\\n")
    length = int(next(line for line in lines if line.startswith(b"content-length"))[15:])
    while len(body) < length:
        body += link.recv(65536)
    return head, body


def echo(path, answer):
    """A process that answers each request with these bytes."""
    listener = socket.socket(socket.AF_UNIX)
    listener.bind(path)
    listener.listen()
    pid = os.fork()
    if pid:
        return pid
    link, _ = listener.accept()
    while link.recv(65536):
        link.sendall(answer)
    os._exit(0)


def timed(link, rounds):
    times = []
    for _ in range(rounds):
        began = time.perf_counter()
        once(link)
        times.append((time.perf_counter() - began) * 1000)
    return times


@env.task
def measure(rounds: int) -> str:
    agent = connect(os.environ["FLYTE_AGENT_SOCKET"])
    head, body = once(agent)
    if not head.startswith(b"HTTP/1.1 200"):
        raise RuntimeError(head.decode())
    pid = echo("echo", head + b"\\r\\n\\r\\n" + body)
    plain = connect("echo")
    times = {"echo": [], "agent": []}
    for _ in range(10):
        times["echo"] += timed(plain, rounds // 10)
        times["agent"] += timed(agent, rounds // 10)
    plain.close()
    os.waitpid(pid, 0)
    told = {}
    for name, found in times.items():
        found.sort()
        told[name] = [found[len(found) // 2], found[int(len(found) * 0.99)]]
    return json.dumps(told)
'''


async def measured(url: str, key: str) -> dict[str, list[float]]:
    """p50 and p99 in milliseconds of echo and agent, the better of two runs."""
    import flyte
    import flyte.remote

    await flyte.init.aio(url, api_key=key, project=PROJECT, domain=DOMAIN)
    found = []
    for _ in range(3):
        run = await flyte.run.aio(flyte.remote.Task.get("bench.measure"), rounds=ROUNDS)
        await run.wait.aio()
        if not run.phase.is_good:
            raise RuntimeError(f"the run ended as {run.phase}: {run.error}")
        found.append(json.loads((await run.outputs.aio())[0]))
    return min(found[1:], key=lambda each: each["agent"][0])


def of(mode: str) -> dict[str, list[float]]:
    """The measurement with this way of serving the socket."""
    with tower(core=None, options=("--agent", mode)) as running, tempfile.TemporaryDirectory() as code:
        key = running.person("bench")
        (Path(code) / "calls.py").write_text(TASKS)
        place = ("--project", PROJECT, "--domain", DOMAIN)
        running.run("flyte", *place, "deploy", "calls.py", "env", key=key, cwd=Path(code))
        return asyncio.run(measured(running.url, key))


def main() -> dict[str, Any]:
    """Measure both."""
    result: dict[str, Any] = {"bench": "agent", "unit": "milliseconds"}
    above, says = {}, []
    for mode in ("inside", "beside"):
        found = of(mode)
        above[mode] = found["agent"][0] - found["echo"][0]
        for what, (p50, p99) in found.items():
            result |= {f"{mode}_{what}_p50": round(p50, 3), f"{mode}_{what}_p99": round(p99, 3)}
        says.append(
            f"{mode} p50 {found['agent'][0]:.2f} ms, {above[mode]:.2f} above an echo's {found['echo'][0]:.2f}"
        )
    return {
        **result,
        "inside_above_ms": round(above["inside"], 3),
        "beside_above_ms": round(above["beside"], 3),
        "ratio": round(max(above.values()), 3),
        "goal": GOAL_MS,
        "met": max(above.values()) <= GOAL_MS,
        "says": "; ".join(says),
    }


if __name__ == "__main__":
    print(json.dumps(main(), indent=2))
