"""The app server: on its socket, below the gateway's prefix, until it is told to end."""

from __future__ import annotations

import os
import signal
import stat
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest
from websockets.sync.client import unix_connect

CODE = """
import contextlib, os, sys
from fastapi import FastAPI, Request, WebSocket
import flyte
from flyte.app import AppEnvironment
from flyte.app.extras import FastAPIAppEnvironment

@contextlib.asynccontextmanager
async def lifespan(app):
    if os.getenv("BREAK"):
        raise RuntimeError("FLYTE_ENDPOINT environment variable not set")
    print("serving", flush=True)
    yield
    print("goodbye", flush=True)

app = FastAPI(lifespan=lifespan)

@app.get("/where")
async def where(request: Request):
    return {"url": str(request.url), "root": request.scope["root_path"], "for": str(request.url_for("where")),
            "project": flyte.current_project(), "client": request.client and request.client.host}

@app.get("/slashed/")
async def slashed():
    return {}

@app.websocket("/ws")
async def ws(socket: WebSocket):
    await socket.accept()
    await socket.send_text(socket.scope["root_path"] + " " + await socket.receive_text())
    await socket.close()

env = FastAPIAppEnvironment(name="my-app", app=app)
tool = AppEnvironment("my-tool", command=["true"])
"""


def start(tmp_path: Path, *, app: str = "my-app", **env: str) -> subprocess.Popen[str]:
    (tmp_path / "bundle").mkdir(exist_ok=True)
    (tmp_path / "bundle" / "served.py").write_text(CODE)
    return subprocess.Popen(
        [
            *(sys.executable, "-P", "-m", "flyte.runtime.serve"),
            *("--module", "served", "--app", app, "--bundle", str(tmp_path / "bundle")),
        ],
        env={
            "PATH": "/usr/bin",
            "FLYTE_APP_SOCKET": str(tmp_path / "a.sock"),
            "FLYTE_APP_PEER": str(os.getpid()),
            "FLYTE_INTERNAL_EXECUTION_PROJECT": "p",
            **env,
        },
        cwd="/",
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )


def until(process: subprocess.Popen[str], words: str) -> None:
    assert process.stdout is not None
    for line in process.stdout:
        if words in line:
            return
    raise AssertionError(f"{words!r} never came")


@pytest.fixture
def served(tmp_path: Path) -> Iterator[Path]:
    """A running app; the path of its socket."""
    with start(tmp_path) as process:
        until(process, "running on")
        yield tmp_path / "a.sock"
        process.send_signal(signal.SIGTERM)
        assert process.stdout is not None
        assert "goodbye" in process.stdout.read()
        assert process.wait(120) in (0, -signal.SIGTERM)  # uvicorn ends by the signal that it was told by


def get(path: Path, target: str, **headers: str) -> httpx.Response:
    with httpx.Client(
        transport=httpx.HTTPTransport(uds=str(path)), base_url="http://my-app.apps.localhost", timeout=60.0
    ) as client:
        return client.get(target, headers={name.replace("_", "-"): value for name, value in headers.items()})


def test_by_host(served: Path) -> None:
    found = get(served, "/where?a=1").json()
    assert found["url"] == "http://my-app.apps.localhost/where?a=1"
    assert found["root"] == ""
    assert found["project"] == "p"
    assert get(served, "/absent").status_code == 404


def test_below_a_prefix(served: Path) -> None:
    found = get(
        served,
        "/where?a=1",
        host="tower.example",
        x_forwarded_prefix="/apps/p/development/my-app",
        x_forwarded_proto="https",
        x_forwarded_for="192.0.2.7",
    ).json()
    assert found["url"] == "https://tower.example/apps/p/development/my-app/where?a=1"
    assert found["for"] == "https://tower.example/apps/p/development/my-app/where"
    assert found["root"] == "/apps/p/development/my-app"
    assert found["client"] == "192.0.2.7"
    moved = get(served, "/slashed", x_forwarded_prefix="/apps/p/d/my-app")
    assert moved.headers["location"].endswith("/apps/p/d/my-app/slashed/")


def test_websocket_below_a_prefix(served: Path) -> None:
    with unix_connect(
        str(served), "ws://x/ws", additional_headers={"x-forwarded-prefix": "/apps/p/d/a"}
    ) as socket:
        socket.send("hello")
        assert socket.recv() == "/apps/p/d/a hello"


def test_another_process_of_this_user_gets_nothing(served: Path) -> None:
    """The same user, the right path, a complete request: closed unread. The test's child is not the test."""
    code = """
import socket, sys
with socket.socket(socket.AF_UNIX) as link:
    link.connect(sys.argv[1])
    try:
        link.sendall(b"GET /where HTTP/1.1\\r\\nhost: x\\r\\nconnection: close\\r\\n\\r\\n")
        print(link.recv(100))
    except OSError as error:
        print(type(error).__name__)
"""
    tried = [
        subprocess.run([sys.executable, "-c", code, str(served)], capture_output=True, text=True, check=True)
        for _ in range(3)
    ]
    assert {each.stdout for each in tried} <= {"b''\n", "ConnectionResetError\n", "BrokenPipeError\n"}
    assert get(served, "/where").status_code == 200


def test_only_this_user_may_open_the_socket(served: Path) -> None:
    assert stat.S_IMODE(os.stat(served).st_mode) == 0o600


@pytest.mark.parametrize(
    ("app", "env", "status", "words"),
    [
        ("my-app", {"BREAK": "1"}, 3, "FLYTE_ENDPOINT environment variable not set"),
        ("my-app", {"FLYTE_APP_SOCKET": ""}, 2, "FLYTE_APP_SOCKET is not set"),
        ("my-app", {"FLYTE_APP_PEER": ""}, 2, "FLYTE_APP_PEER is not set"),
        ("my-tool", {}, 2, "no ASGI app"),
        ("absent", {}, 1, "There is no app environment 'absent'"),
    ],
)
def test_apps_that_cannot_start(
    tmp_path: Path, app: str, env: dict[str, str], status: int, words: str
) -> None:
    with start(tmp_path, app=app, **env) as process:
        assert process.stdout is not None
        assert words in process.stdout.read()
        assert process.wait(120) == status
