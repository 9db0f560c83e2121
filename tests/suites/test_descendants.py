"""What ends the right of a run ends that of everything below it, at the next call, in every process: T5, T7.

A run that an app started for a person has a sub-task, that started a run, and that has a sub-task: four
processes, each with its own door to Tower, call without a pause meanwhile. Each notes when, by the one
clock of the machine: no call that began after the change was acknowledged may have been let in.
"""

from __future__ import annotations

import json
import secrets
import socket
import threading
import time
from collections.abc import Callable, Iterator

import pytest
from tests.threats.conftest import DOMAIN, PROJECT, Lab, opened
from tests.tower_process import Tower

pytestmark = pytest.mark.xdist_group("descendants")

PLACES = ("run", "sub-task", "run below", "sub-task below")
SECONDS = 90.0

TASKS = '''
import asyncio
import http.client
import json
import os
import socket
import threading
import time

import flyte
import flyte.remote as remote

env = flyte.TaskEnvironment(name="kin")
PLACES = ("run", "sub-task", "run below", "sub-task below")


def call(line):
    """Ask who this is, again and again, until it is nobody; tell when each call began that was let in."""
    with socket.create_connection(("127.0.0.1", line)) as link, link.makefile("w") as talk:
        print(json.dumps([os.environ["RUN_NAME"], PLACE]), file=talk, flush=True)
        door = http.client.HTTPConnection("tower")
        door.sock = socket.socket(socket.AF_UNIX)
        door.sock.connect(os.environ["FLYTE_AGENT_SOCKET"])
        status = 200
        while status == 200:
            began = time.monotonic()
            door.request("GET", "/api/v1/whoami", headers={"x-flyte-agent": "1"})
            answer = door.getresponse()
            said, status = answer.read().decode(), answer.status
            who = json.loads(said)["subject"] if status == 200 else said
            print(json.dumps([began, status, who]), file=talk, flush=True)
    os._exit(3)


@env.task
async def kin(port: int, depth: int, salt: str) -> str:
    global PLACE
    PLACE = PLACES[depth]
    threading.Thread(target=call, args=(port,)).start()
    if depth in (0, 2):
        await kin(port=port, depth=depth + 1, salt=salt)
    elif depth == 1:
        run = await flyte.run.aio(remote.Task.get(name="kin.kin"), port=port, depth=2, salt=salt)
        await run.wait.aio()
    await asyncio.Event().wait()
    return ""
'''

APP = """
from contextlib import asynccontextmanager

import flyte
import flyte.remote as remote
from fastapi import FastAPI
from flyte.app.extras import FastAPIAppEnvironment, FastAPIPassthroughAuthMiddleware


@asynccontextmanager
async def lifespan(app):
    await flyte.init_passthrough.aio(project=flyte.current_project(), domain=flyte.current_domain())
    yield


app = FastAPI(lifespan=lifespan)
app.add_middleware(FastAPIPassthroughAuthMiddleware)


@app.post("/start/{port}/{salt}")
async def start(port: int, salt: str) -> str:
    run = await flyte.run.aio(remote.Task.get(name="kin.kin"), port=port, depth=0, salt=salt)
    return run.name


starter = FastAPIAppEnvironment(
    name="starter", app=app, image=flyte.Image.from_debian_base().with_pip_packages("fastapi", "uvicorn")
)
"""


class Kin:
    """One of the four: what it told since it came."""

    def __init__(self, link: socket.socket) -> None:
        link.settimeout(SECONDS)
        self._talk = link.makefile()
        self._link = link
        self.run, self.place = json.loads(self._talk.readline())
        self.calls: list[tuple[float, int, str]] = []
        self.began, self._reader = threading.Event(), threading.Thread(target=self._read)
        self._reader.start()

    def _read(self) -> None:
        try:
            for line in self._talk:
                if line.endswith("\n"):
                    self.calls.append(tuple(json.loads(line)))
                    self.began.set()
        except ConnectionResetError:
            pass  # its process was stopped

    def ended(self) -> None:
        """Return once the process told its refusal, or is gone."""
        self._reader.join(SECONDS)
        assert not self._reader.is_alive(), (self.place, self.calls[-1:])
        self._talk.close()
        self._link.close()


@pytest.fixture(scope="module")
def lab(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Lab]:
    folder = tmp_path_factory.mktemp("kin")
    (folder / "kin.py").write_text(TASKS)
    (folder / "starter.py").write_text(APP)
    with Tower.started(folder / "home", "--agent", request.param) as tower:
        tower.add_people()
        for made in opened(tower):
            made.deploy("alice", folder, "deploy", "kin.py", "env")
            made.deploy("alice", folder, "serve", "starter.py", "starter")
            yield made


def disable(lab: Lab, who: str, run: str) -> None:
    assert lab.rest("admin", "POST", f"/users/{who}/disable").status_code == 200


def delete_key(lab: Lab, who: str, run: str) -> None:
    assert lab.rest("admin", "DELETE", f"/keys/{who}-key").status_code == 200


def disable_key(lab: Lab, who: str, run: str) -> None:
    assert lab.rest("admin", "POST", f"/keys/{who}-key/disable").status_code == 200


def take_role(lab: Lab, who: str, run: str) -> None:
    taken = f"/bindings?user={who}&role=contributor&project={PROJECT}"
    assert lab.rest("admin", "DELETE", taken).status_code == 204


def leave_group(lab: Lab, who: str, run: str) -> None:
    """The right came by the group alone."""
    for change in (
        lab.rest("admin", "POST", "/groups", {"name": f"{who}s"}),
        lab.rest("admin", "PATCH", f"/groups/{who}s", {"add": [who]}),
        lab.rest(
            "admin", "POST", "/bindings", {"group": f"{who}s", "role": "contributor", "project": PROJECT}
        ),
    ):
        assert change.status_code < 300, change.text
    take_role(lab, who, run)
    assert lab.rest(who, "GET", "/whoami").status_code == 200
    left = lab.rest("admin", "PATCH", f"/groups/{who}s", {"remove": [who]})
    assert left.status_code == 200, left.text


def forbid(lab: Lab, who: str, run: str) -> None:
    text = f'forbid (principal == User::"{who}", action == Action::"task:run", resource);'
    assert lab.rest("admin", "POST", "/policies", {"name": f"no-{who}", "text": text}).status_code == 201


def cut_ceiling(lab: Lab, who: str, run: str) -> None:
    limits = {"actions": ["app:use", "run:view", "task:view"]}
    cut = lab.rest("admin", "PUT", f"/ceilings/{PROJECT}/{DOMAIN}/starter", limits)
    assert cut.status_code == 204, cut.text


def abort(lab: Lab, who: str, run: str) -> None:
    where = {"runId": {"project": PROJECT, "domain": DOMAIN, "name": run}}
    content = json.dumps(where).encode()
    answer = lab.rpc(who, "workflow.RunService/AbortRun", content, kind="application/json")
    assert answer.status_code == 200, answer.text


def revoke(lab: Lab, who: str, run: str) -> None:
    assert lab.rest(who, "DELETE", f"/grants/{PROJECT}/{DOMAIN}/{run}").status_code == 200


INSIDE = (disable, delete_key, disable_key, take_role, leave_group, forbid, cut_ceiling, abort, revoke)
BESIDE = (disable, take_role, cut_ceiling)
CASES = [*(("inside", end) for end in INSIDE), *(("beside", end) for end in BESIDE)]


@pytest.mark.parametrize(
    ("lab", "end"), CASES, ids=[f"{mode}-{end.__name__}" for mode, end in CASES], indirect=["lab"]
)
def test_t07_no_descendant_calls_after_it_was_acknowledged(
    lab: Lab, end: Callable[[Lab, str, str], None]
) -> None:
    who, salt = f"kin-{secrets.token_hex(4)}", secrets.token_hex(4)
    lab.tower.tower("users", "add", who, "--role", "contributor", "--project", PROJECT)
    lab.tower.keys[who] = lab.tower.new_key(f"{who}-key", who)
    with socket.create_server(("127.0.0.1", 0), backlog=8) as meeting:
        meeting.settimeout(SECONDS)
        started = lab.app(who, "POST", f"/start/{meeting.getsockname()[1]}/{salt}", name="starter")
        assert started.status_code == 200, started.text
        family = [Kin(meeting.accept()[0]) for _ in PLACES]
    assert sorted(each.place for each in family) == sorted(PLACES)
    for each in family:
        assert each.began.wait(SECONDS)
    end(lab, who, started.json())
    acknowledged = time.monotonic()
    for each in family:
        each.ended()
        let_in = [(began, said) for began, status, said in each.calls if status == 200]
        assert {said for _, said in let_in} == {who}, each.place
        assert max(began for began, _ in let_in) <= acknowledged, each.place
        assert {status for _, status, _ in each.calls} <= {200, 401}, (each.place, each.calls[-1])
    if end is cut_ceiling:
        lab.rest("admin", "DELETE", f"/ceilings/{PROJECT}/{DOMAIN}/starter")
    abort(lab, "admin", started.json())
