"""Starting the processes of a benchmark: each server on a core of its own, the load on another."""

from __future__ import annotations

import base64
import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

ROOT = Path(__file__).resolve().parent.parent
BIN = Path(sys.executable).parent
CORES = sorted(os.sched_getaffinity(0))
SERVER_CORE, LOAD_CORE = CORES[0], CORES[-1]

# Sets its own affinity and becomes the program: what it starts inherits the core.
_PINNED = "import os, sys; os.sched_setaffinity(0, {int(sys.argv[1])}); os.execv(sys.argv[2], sys.argv[2:])"


def pinned(core: int | None, command: Sequence[str | Path]) -> list[str]:
    """The command, on one core; on any where `core` is None."""
    words = [str(word) for word in command]
    return words if core is None else [sys.executable, "-c", _PINNED, str(core), *words]


@contextmanager
def server(
    command: Sequence[str | Path], *, core: int | None, env: Mapping[str, str] | None = None
) -> Iterator[tuple[str, int]]:
    """A server that prints `ready URL`: yields the URL and its process id, and stops it at the end."""
    with tempfile.NamedTemporaryFile(prefix="bench-", suffix=".log") as log:
        process = subprocess.Popen(
            pinned(core, command),
            stdout=subprocess.PIPE,
            stderr=log,
            text=True,
            cwd=ROOT,
            env={**os.environ, **(env or {})},
            start_new_session=True,
        )
        try:
            assert process.stdout is not None
            for line in process.stdout:
                if line.startswith("ready "):
                    break
            else:
                raise RuntimeError(f"the server did not start: {Path(log.name).read_text()[-2000:]}")
            yield line.split()[1], process.pid
        except Exception as error:
            error.add_note(Path(log.name).read_text()[-4000:])
            raise
        finally:
            stop(process)
            assert process.stdout is not None
            process.stdout.close()


def stop(process: subprocess.Popen[Any], *, seconds: float = 30.0) -> None:
    """End a process that leads a group of its own, by force when it does not end by itself in time."""
    process.terminate()
    try:
        process.wait(seconds)
    except subprocess.TimeoutExpired:
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()


def environment(folder: Path, packages: Sequence[str]) -> Path:
    """The interpreter of an environment, which is built when it is missing or of other packages.

    Raises RuntimeError where the packages cannot be installed.
    """
    python, ready = folder / "bin" / "python", folder / ".ready"
    wanted = "\n".join(packages)
    if ready.exists() and ready.read_text() == wanted:
        return python
    uv = [sys.executable, "-m", "uv"]
    make: list[str | Path] = [*uv, "venv", "--quiet", "--clear", "--python", sys.executable, folder]
    fill: list[str | Path] = [*uv, "pip", "install", "--quiet", "--python", python, *packages]
    for command in (make, fill):
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        if done.returncode:
            raise RuntimeError(f"{packages[0]} cannot be installed: {done.stderr.strip()[-500:]}")
    ready.write_text(wanted)
    return python


def cpu_seconds(pid: int) -> float:
    """What a process and its threads have used of the processor, user and system."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def load(
    url: str,
    path: str,
    *,
    headers: Mapping[str, str],
    body: bytes,
    keys: Sequence[str] = (),
    connections: int = 32,
    seconds: float = 5.0,
    turns: bool = False,
) -> dict[str, Any]:
    """Drive a server with `bench.load`, as the owners of `keys`; return what it measured.

    With `turns` each request has the next key, without it each connection keeps one.

    Raises RuntimeError when a request failed.
    """
    address = urlsplit(url)
    encoded = base64.b64encode(body).decode()
    given = json.dumps({"headers": dict(headers), "keys": list(keys), "body": encoded, "turns": turns})
    command = [sys.executable, "-m", "bench.load", str(address.hostname), str(address.port), path]
    command += ["--connections", str(connections), "--seconds", str(seconds)]
    done = subprocess.run(
        pinned(LOAD_CORE, command), input=given, capture_output=True, text=True, cwd=ROOT, check=False
    )
    if done.returncode:
        raise RuntimeError(f"the load generator failed: {done.stderr[-2000:]}")
    result: dict[str, Any] = json.loads(done.stdout)
    if result["failures"] or not result["answers"]:
        raise RuntimeError(f"{result['failures']} of {result['answers']} failed: {result['first_failure']}")
    return result


@dataclass(frozen=True, slots=True)
class Tower:
    """A running Tower with its own fresh home."""

    url: str
    pid: int
    home: Path

    def run(self, program: str, *arguments: str, key: str = "", cwd: Path | None = None) -> str:
        """Run `tower` or `flyte` of this environment against it; return what it prints."""
        env = {**os.environ, "TOWER_HOME": str(self.home), "FLYTE_ENDPOINT": self.url, "FLYTE_API_KEY": key}
        done = subprocess.run(
            [BIN / program, *arguments], capture_output=True, text=True, env=env, cwd=cwd, check=False
        )
        if done.returncode:
            raise RuntimeError(f"{program} {arguments[0]}: {done.stderr[-2000:]}{done.stdout[-500:]}")
        return done.stdout.strip()

    def person(self, name: str, *, role: str = "contributor") -> str:
        """Add a user with a role everywhere; return an API key of theirs."""
        self.run("tower", "users", "add", name, "--role", role)
        return self.run("tower", "keys", "create", f"{name}-bench", "--user", name)


@contextmanager
def tower(
    *,
    core: int | None,
    environment: Mapping[str, str] | None = None,
    furnish: Callable[[Path], object] | None = None,
    options: Sequence[str] = (),
    command: Sequence[str | Path] | None = None,
) -> Iterator[Tower]:
    """`tower up` with an empty home on the disk of the checkout (not in memory), stopped at the end.

    `furnish` may fill the home before the start; `options` are more of `tower up`. Another `command` serves
    the home in TOWER_HOME in its place.
    """
    (ROOT / ".cache").mkdir(exist_ok=True)
    home = Path(tempfile.mkdtemp(prefix="bench-home-", dir=ROOT / ".cache"))
    try:
        if furnish is not None:
            furnish(home)
        env = {"TOWER_HOME": str(home), **(environment or {})}
        usual = [BIN / "tower", "up", "--port", "0", *options]
        with server(usual if command is None else command, core=core, env=env) as (url, pid):
            yield Tower(url, pid, home)
    finally:
        shutil.rmtree(home, ignore_errors=True)
