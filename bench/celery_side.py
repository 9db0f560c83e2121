"""The other side of the webhook benchmark: FastAPI, Celery and Redis, in an environment built once.

The usual set-up of each: uvicorn with uvloop and httptools, Redis on a private unix socket as broker and
result backend, a prefork worker with warm processes. It knows no callers, isolates nothing and keeps nothing
durable: it is what a webhook costs without all that.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from bench.processes import ROOT, environment, server, stop

PACKAGES = ("celery[redis]==5.6.2", "packaging", "fastapi", "uvicorn", "uvloop", "httptools")
ENVIRONMENT = ROOT / ".cache" / "celery-side"
WORKERS = 2
START_SECONDS = 60.0

APP = """
import os, socket, uvicorn
from celery import Celery
from fastapi import FastAPI
from pydantic import BaseModel

REDIS = "redis+socket://" + os.environ["REDIS_SOCKET"]
celery = Celery("side", broker=REDIS, backend=REDIS)
web = FastAPI()

class Inputs(BaseModel):
    x: int
    y: int

@celery.task(name="add")
def add(x, y):
    return x + y

@web.post("/add")
def call(inputs: Inputs) -> dict[str, int]:
    return {"sum": add.delay(inputs.x, inputs.y).get(timeout=30)}

if __name__ == "__main__":
    listener = socket.create_server(("127.0.0.1", 0))
    config = uvicorn.Config(web, loop="uvloop", http="httptools", access_log=False, log_level="warning")
    print(f"ready http://127.0.0.1:{listener.getsockname()[1]}", flush=True)
    uvicorn.Server(config).run(sockets=[listener])
"""


@contextmanager
def celery_side() -> Iterator[str]:
    """Redis, a worker and the web process: yields the URL. Raises RuntimeError where there is no Redis."""
    redis = shutil.which("redis-server")
    if redis is None:
        raise RuntimeError("there is no redis-server to compare with; on Debian: apt install redis-server")
    python = environment(ENVIRONMENT, PACKAGES)
    folder = Path(tempfile.mkdtemp(prefix="bench-celery-"))
    (folder / "side.py").write_text(APP)
    socket = folder / "redis.sock"
    env = {**os.environ, "REDIS_SOCKET": str(socket), "PYTHONPATH": str(folder)}
    store = [redis, "--port", "0", "--unixsocket", str(socket), "--save", "", "--dir", str(folder)]
    work = [python, "-m", "celery", "-A", "side.celery", "worker", "-c", str(WORKERS), "-l", "warning"]
    started: list[subprocess.Popen[bytes]] = []
    try:
        for command in (store, work):
            process = subprocess.Popen(
                command,
                cwd=folder,
                env=env,
                stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL,
                start_new_session=True,
            )
            started.append(process)
            if command is store:
                _until(socket.exists, "Redis")
        web = [python, folder / "side.py"]
        with server(web, core=None, env={"REDIS_SOCKET": str(socket), "PYTHONPATH": str(folder)}) as (url, _):
            yield url
    finally:
        for process in reversed(started):
            stop(process, seconds=10)
        shutil.rmtree(folder, ignore_errors=True)


def _until(condition: object, what: str) -> None:
    assert callable(condition)
    end = time.monotonic() + START_SECONDS
    while not condition():
        if time.monotonic() > end:
            raise RuntimeError(f"{what} did not start")
        time.sleep(0.05)
