"""The whole story on one machine: `make demo`, or `make demo ARGS=--once` to end by itself.

Starts Tower with an empty home, adds three people, deploys a task and the webhook, and calls the webhook as
two of them: each run executes as its caller. The third may look but not run, and is refused. The last line
printed is one JSON object with `health`, `me`, `run` and `denied`.
"""

from __future__ import annotations

import argparse
import json
import os
import selectors
import signal
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

BIN = Path(sys.executable).parent
APPS = Path(__file__).resolve().parent / "apps"
PLACE = ("--project", "flytesnacks", "--domain", "development")
TASK = "/run-task/flytesnacks/development/my_env.my_task"


@dataclass(frozen=True, slots=True)
class Tower:
    """A started Tower and the two command lines pointed at it."""

    home: Path
    url: str

    def tower(self, *arguments: str) -> str:
        """Run an administration command on the machine itself."""
        return _run("tower", arguments, TOWER_HOME=str(self.home))

    def flyte(self, key: str, *arguments: str) -> str:
        """Run `flyte` as the owner of a key."""
        return _run(
            "flyte",
            arguments,
            FLYTE_ENDPOINT=self.url,
            FLYTE_API_KEY=key,
            FLYTE_HOME=str(self.home / "flyte"),
        )


@contextmanager
def started(home: Path, port: int) -> Iterator[Tower]:
    """`tower up` with its state in `home`, stopped at the end of the block."""
    process = subprocess.Popen(
        [BIN / "tower", "up", "--port", str(port)],
        env=_environment(TOWER_HOME=str(home)),
        stdout=subprocess.PIPE,
        stderr=(home / "tower.log").open("w"),
        text=True,
    )
    try:
        yield Tower(home=home, url=_ready(process, home / "tower.log"))
    finally:
        process.send_signal(signal.SIGTERM)
        process.wait(60)


def main() -> None:
    """Tell the story; with --once end after it, else leave everything running until Ctrl-C."""
    parser = argparse.ArgumentParser(prog="make demo ARGS=…", description=__doc__)
    parser.add_argument("--once", action="store_true", help="end after the story")
    parser.add_argument(
        "--port", type=int, default=None, help="the port (default: 8080, with --once any free one)"
    )
    options = parser.parse_args()
    port = options.port if options.port is not None else (0 if options.once else 8080)
    with tempfile.TemporaryDirectory(prefix="tower-demo-") as folder, started(Path(folder), port) as tower:
        keys = _people(tower)
        _deploy(tower, keys["alice"])
        told = _story(tower, keys)
        if not options.once:
            _stay(tower, keys)
        print(json.dumps(told), flush=True)


def _people(tower: Tower) -> dict[str, str]:
    _say("Three people: alice and bob may run tasks in flytesnacks, carol may only look.")
    keys = {}
    for name, role in (("alice", "contributor"), ("bob", "contributor"), ("carol", "viewer")):
        tower.tower("users", "add", name, "--role", role, "--project", "flytesnacks")
        keys[name] = tower.tower("keys", "create", f"{name}-laptop", "--user", name).strip()
    return keys


def _deploy(tower: Tower, key: str) -> None:
    _say("alice deploys a task and the webhook app (their environments are built once).")
    tower.flyte(key, *PLACE, "deploy", str(APPS / "tasks.py"), "env")
    tower.flyte(key, *PLACE, "serve", str(APPS / "run_webhook.py"), "app_env")


def _story(tower: Tower, keys: dict[str, str]) -> dict[str, Any]:
    base = f"{tower.url}/apps/flytesnacks/development/webhook-runner"
    _, health = _call(f"{base}/health", keys["alice"])
    me = {name: _call(f"{base}/me", keys[name])[1] for name in ("alice", "bob")}
    _say(f"Each caller is who they are to the app, too: {json.dumps(me)}")
    runs = {}
    for name in ("alice", "bob"):
        status, run = _call(base + TASK, keys[name], {"x": 42, "y": "hello"})
        if status != 200:
            raise SystemExit(f"The webhook answered {status} to {name}: {run}")
        tower.flyte(keys[name], *PLACE, "logs", run["name"], "--follow")
        runs[name] = json.loads(tower.flyte(keys[name], *PLACE, "get", "run", run["name"], "-o", "json"))
        _say(f"{name}'s run {run['name']}: {runs[name]['phase']}, executed by {runs[name]['executed_by']}.")
    denied, _ = _call(base + TASK, keys["carol"], {"x": 1, "y": "no"})
    _say(f"carol asked for a run and got {denied}.")
    shown = ("name", "url", "phase", "outputs", "executed_by", "via_app")
    return {
        "health": health,
        "me": me,
        "run": {field: runs["alice"][field] for field in shown},
        "runs": {name: {field: run[field] for field in shown} for name, run in runs.items()},
        "denied": denied,
    }


def _stay(tower: Tower, keys: dict[str, str]) -> None:
    _say("Now you. Call the webhook as bob:\n")
    print(
        f"  curl -X POST -H 'Authorization: Bearer {keys['bob']}' -H 'Content-Type: application/json' \\\n"
        f'    -d \'{{"x": 42, "y": "hello"}}\' \\\n'
        f"    {tower.url}/apps/flytesnacks/development/webhook-runner{TASK}\n"
    )
    _say(f"See the run in a browser, signed in as bob: {tower.tower('users', 'link', 'bob').strip()}")
    _say("Ctrl-C ends the demo and removes its state.")
    try:
        signal.pause()
    except KeyboardInterrupt:
        _say("Stopping.")


def _call(url: str, key: str, body: object = None) -> tuple[int, Any]:
    request = urllib.request.Request(
        url,
        data=None if body is None else json.dumps(body).encode(),
        headers={"Authorization": f"Bearer {key}", "Content-Type": "application/json"},
    )
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    try:
        with opener.open(request, timeout=120) as answer:
            return answer.status, json.load(answer)
    except urllib.error.HTTPError as refused:
        return refused.code, refused.read().decode(errors="replace")


def _run(program: str, arguments: tuple[str, ...], **extra: str) -> str:
    done = subprocess.run(
        [BIN / program, *arguments], env=_environment(**extra), stdout=subprocess.PIPE, text=True, check=False
    )
    if done.returncode:
        raise SystemExit(f"{program} {' '.join(arguments)} ended with status {done.returncode}.")
    return done.stdout


def _environment(**extra: str) -> dict[str, str]:
    kept = {k: v for k, v in os.environ.items() if not k.startswith(("FLYTE_", "TOWER_", "_U_"))}
    return {**kept, **extra}


def _ready(process: subprocess.Popen[str], log: Path) -> str:
    assert process.stdout is not None
    deadline = time.monotonic() + 60
    with selectors.DefaultSelector() as selector:
        selector.register(process.stdout, selectors.EVENT_READ)
        while selector.select(max(0.0, deadline - time.monotonic())):
            line = process.stdout.readline()
            if line.startswith("ready "):
                _say(f"Tower is up at {line.split()[1]}.")
                return line.split()[1]
            if not line:
                break
    raise SystemExit(f"Tower did not start:\n{log.read_text()[-2000:]}")


def _say(text: str) -> None:
    print(text, flush=True)


if __name__ == "__main__":
    main()
