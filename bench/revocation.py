"""How long after an acknowledged revocation any process still gets an answer in its person's name.

A run starts others, each a process with an agent of its own; all of them call without a pause. Then what
they all run on is taken: the grant of the first run, the key, the role or the person. From the moment of the
answer the time runs until each process is refused, or ended before it was. A call that began after the answer
and was let in is stale.

    python -m bench revocation
"""

from __future__ import annotations

import asyncio
import json
import socket
import tempfile
import time
import urllib.request
from itertools import chain
from pathlib import Path
from typing import Any

from bench.processes import Tower, tower

GOAL_SECONDS = 1.0
PROCESSES = 6
ROUNDS = 6
"""For each cause, each with a person of its own."""

PROJECT, DOMAIN = "flytesnacks", "development"
CAUSES = {
    "grant revoked": ("DELETE", f"/grants/{PROJECT}/{DOMAIN}/{{run}}"),
    "key deleted": ("DELETE", "/keys/only?user={person}"),
    "key disabled": ("POST", "/keys/only/disable?user={person}"),
    "person disabled": ("POST", "/users/{person}/disable"),
    "role taken": ("DELETE", "/bindings?user={person}&role=contributor"),
}

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
        try:
            while True:
                began = time.monotonic()
                answer = once(link)
                if not answer.startswith(b"HTTP/1.1 200"):
                    break
                let_in = began
                if not said:
                    print(json.dumps([os.environ["RUN_NAME"], bool(others)]), file=talk, flush=True)
                    said = True
        except BaseException:  # it is asked to end
            answer = b"HTTP/1.1 end"
        print(json.dumps([let_in, time.monotonic(), answer[9:12].decode()]), file=talk, flush=True)
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


class Warden:
    """Who makes people, and takes from them what they have."""

    def __init__(self, running: Tower) -> None:
        self._url = running.url
        self._key = (running.home / "admin-key").read_text().strip()

    def call(self, method: str, path: str, body: object = None) -> Any:
        """Ask for it; the answer."""
        request = urllib.request.Request(
            f"{self._url}/api/v1{path}",
            method=method,
            data=None if body is None else json.dumps(body).encode(),
            headers={"authorization": f"Bearer {self._key}", "content-type": "application/json"},
        )
        with urllib.request.urlopen(request) as answer:
            return json.loads(answer.read() or b"null")

    def person(self, name: str) -> str:
        """A new one; their key."""
        self.call("POST", "/users", {"name": name})
        self.call("POST", "/bindings", {"user": name, "role": "contributor"})
        return str(self.call("POST", "/keys", {"name": "only", "user": name})["key"])


def one(url: str, warden: Warden, cause: str, salt: int) -> tuple[list[float], int]:
    """Seconds from the answer to the refusal of each process, and how many stale calls there were."""
    person = f"bench-{salt}"
    key = warden.person(person)
    method, path = CAUSES[cause]
    with socket.create_server(("127.0.0.1", 0), backlog=PROCESSES) as listener:
        listener.settimeout(120)
        asyncio.run(started(url, key, listener.getsockname()[1], salt))
        talks = [listener.accept()[0].makefile("rw") for _ in range(PROCESSES)]
        names = [json.loads(talk.readline()) for talk in talks]
        warden.call(method, path.format(run=next(name for name, first in names if first), person=person))
        answered = time.monotonic()
        ends = [json.loads(talk.readline()) for talk in talks]
        for talk in talks:
            print("end", file=talk, flush=True)
            talk.close()
    if any(end[2] not in {"401", "end"} for end in ends):
        raise RuntimeError(f"a process ended otherwise when the {cause}: {ends}")
    return [max(0.0, end[1] - answered) for end in ends], sum(end[0] > answered for end in ends)


def main() -> dict[str, Any]:
    """Measure with agents beside."""
    times, stale = {cause: [0.0] * 0 for cause in CAUSES}, 0
    with tower(core=None, options=("--agent", "beside")) as running, tempfile.TemporaryDirectory() as code:
        key = running.person("bench")
        (Path(code) / "calls.py").write_text(TASKS)
        place = ("--project", PROJECT, "--domain", DOMAIN)
        running.run("flyte", *place, "deploy", "calls.py", "env", key=key, cwd=Path(code))
        warden = Warden(running)
        for number in range(ROUNDS * len(CAUSES)):
            cause = list(CAUSES)[number % len(CAUSES)]
            found, late = one(running.url, warden, cause, number + 1)
            times[cause] += found
            stale += late
    everything = sorted(chain.from_iterable(times.values()))
    p50, p99 = everything[len(everything) // 2], everything[int(len(everything) * 0.99)]
    worst = {cause: round(max(found), 4) for cause, found in times.items()}
    return {
        "bench": "revocation",
        "unit": "seconds",
        "p50": round(p50, 4),
        "p99": round(p99, 4),
        "worst": worst,
        "stale_calls": stale,
        "processes": PROCESSES,
        "samples": len(everything),
        "ratio": round(p99 / GOAL_SECONDS, 4),
        "goal": 1.0,
        "met": p99 <= GOAL_SECONDS and not stale,
        "says": f"p99 {p99 * 1000:.1f} ms after the answer, worst {everything[-1] * 1000:.1f}, {stale} stale"
        f" calls ({len(everything)} refusals, {len(CAUSES)} causes, {PROCESSES} processes with agents)",
    }


if __name__ == "__main__":
    print(json.dumps(main(), indent=2))
