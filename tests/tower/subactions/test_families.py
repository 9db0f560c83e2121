"""Tasks that call tasks, on a real Tower: identity, ends, retries, limits, and what is refused."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest
from tests.tower_process import Tower

pytestmark = pytest.mark.xdist_group("seeds")

CODE = """
import asyncio
import urllib.request

import flyte
import flyte.remote as remote
from flyte import errors

env = flyte.TaskEnvironment(name="family", image=flyte.Image.from_debian_base())
other = flyte.TaskEnvironment(name="relatives", image=flyte.Image.from_debian_base())


@env.task
async def leaf() -> dict[str, str]:
    facts = flyte.ctx()
    user = await remote.User.get.aio()
    return {
        "subject": user.subject(),
        "executor": facts.executor.subject,
        "action": facts.action,
        "run": facts.run,
        "task": facts.task,
        "version": facts.version,
        "image": facts.image,
        "code": facts.code_digest,
        "attempt": str(facts.attempt),
        "via": facts.via_app,
    }


@env.task
async def middle() -> dict[str, str]:
    return await leaf()


@env.task
async def top() -> dict[str, str]:
    return {**await middle(), "top": flyte.ctx().run}


@env.task
def square(x: int) -> int:
    return x * x


@env.task
async def wide(n: int) -> list[int]:
    return list(await asyncio.gather(*(square.aio(x) for x in range(n))))


@env.task
def plainly(n: int) -> list[int]:
    return [square(0), *flyte.map(square, range(1, n), concurrency=3)]


@env.task
async def breaks() -> int:
    raise ValueError("the child broke")


@env.task
async def sees() -> str:
    try:
        await breaks()
    except errors.RunFailedError as error:
        return error.message
    return "nothing"


@env.task
async def once(counter: str) -> int:
    return int(urllib.request.urlopen(counter).read())


@env.task(retries=1)
async def again(counter: str) -> int:
    found = await asyncio.gather(once(counter), once(counter))
    if flyte.ctx().attempt == 1:
        raise ValueError("once more")
    return sum(found)


@env.task
async def shaky(counter: str) -> str:
    if int(urllib.request.urlopen(counter).read()) == 1:
        raise ValueError("not at first")
    return "at last"


@env.task(retries=1)
async def stubborn(counter: str) -> str:
    return await shaky(counter)


@env.task
async def sleeps() -> int:
    print("asleep", flush=True)
    await asyncio.sleep(600)
    return 1


@env.task
async def cradle() -> int:
    return await sleeps()


@env.task
async def rests(counter: str) -> int:
    await asyncio.to_thread(urllib.request.urlopen, counter)
    return await asyncio.Future()


@env.task
async def gives_up(counter: str) -> str:
    child = asyncio.ensure_future(rests(counter))
    await asyncio.to_thread(urllib.request.urlopen, counter + "begun")
    try:
        await asyncio.wait_for(child, 0)
    except TimeoutError:
        return "gave up"
    return "?"


@env.task
async def deeper(n: int) -> int:
    return await deeper(n + 1)


@env.task
async def circle(n: int) -> int:
    return await circle(n)


@other.task
def cousin(name: str) -> str:
    return f"{name} and cousin"


@env.task
async def calls_cousin() -> str:
    return await cousin.aio("leaf")


@env.task
async def starts() -> str:
    run = await flyte.run.aio(square, x=5)
    await run.wait.aio()
    return f"{run.name} {(await run.outputs.aio())[0]}"


@env.task
async def reaches() -> str:
    treasure = remote.Task.get("vaulted.treasure", domain="production")
    try:
        return await treasure(word="please")
    except errors.PermissionDeniedError as error:
        return f"denied: {error.message}"
    except errors.RemoteTaskNotFoundError as error:
        return f"not there: {error.message}"
"""

VAULT = """
import flyte

vaulted = flyte.TaskEnvironment(name="vaulted", image=flyte.Image.from_debian_base())


@vaulted.task
async def treasure(word: str) -> str:
    return f"gold for {flyte.ctx().executor.subject}"
"""

HOOK = """
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


@app.post("/reach")
async def reach():
    run = await flyte.run.aio(remote.Task.get("family.reaches"))
    await run.wait.aio()
    return {"run": run.name, "said": (await run.outputs.aio())[0]}


@app.post("/facts")
async def facts():
    run = await flyte.run.aio(remote.Task.get("family.top"))
    await run.wait.aio()
    return (await run.outputs.aio())[0]


hook = FastAPIAppEnvironment(
    name="family-hook",
    app=app,
    image=flyte.Image.from_debian_base().with_pip_packages("fastapi", "uvicorn"),
)
"""

Run = Callable[..., dict[str, object]]


class Counter:
    """Says how often it was asked, by HTTP: what attempts of different processes have in common.

    Who asks for `begun` is answered once somebody asked.
    """

    def __init__(self) -> None:
        self.asked = 0
        self.begun = threading.Event()
        lock, counter = threading.Lock(), self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                if self.path == "/begun":
                    counter.begun.wait(120)
                with lock:
                    counter.asked += 1
                    body = str(counter.asked).encode()
                counter.begun.set()
                self.send_response(200)
                self.send_header("content-length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)

            def log_message(self, *_: object) -> None:
                pass

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.server.server_port}/"


@pytest.fixture
def counter() -> Iterator[Counter]:
    made = Counter()
    thread = threading.Thread(target=made.server.serve_forever)
    thread.start()
    yield made
    made.server.shutdown()
    thread.join()
    made.server.server_close()


@pytest.fixture(scope="module")
def run(tower: Tower, tmp_path_factory: pytest.TempPathFactory) -> Run:
    folder = tmp_path_factory.mktemp("family")
    (folder / "family.py").write_text(CODE)
    (folder / "vault.py").write_text(VAULT)
    (folder / "hook.py").write_text(HOOK)
    tower.tower("users", "add", "fern", "--role", "contributor", "--project", "flytesnacks")
    tower.tower("users", "add", "gale")
    for role, domain in (("contributor", "development"), ("viewer", "production")):
        tower.tower("users", "grant", "gale", "--role", role, "--project", "flytesnacks", "--domain", domain)
    for name in ("fern", "gale"):
        tower.keys[name] = tower.new_key(f"{name}-key", name)
    tower.flyte("--domain", "production", "deploy", "vault.py", "vaulted", user="fern", cwd=folder)
    tower.flyte("--domain", "development", "deploy", "family.py", "env", user="fern", cwd=folder)
    tower.flyte("--domain", "development", "serve", "hook.py", "hook", user="fern", cwd=folder)

    def start(task: str, *words: str, user: str = "fern", wait: bool = True) -> dict[str, object]:
        options = ["--wait"] if wait else []
        done = tower.flyte(
            "run", *options, "-o", "json", "family.py", task, *words, user=user, cwd=folder, check=False
        )
        assert done.out, (done.err, tower.log[-3000:])
        printed = done.json()
        assert isinstance(printed, dict)
        return printed

    return start


def outputs(done: dict[str, object]) -> object:
    assert done["phase"] == "SUCCEEDED", done["error"]
    return done["outputs"]["o0"]  # type: ignore[index]


def actions(tower: Tower, run: str, user: str = "fern") -> list[dict[str, object]]:
    with tower.http(user) as client:
        answer = client.post(
            "/flyteidl2.workflow.RunService/ListActions",
            json={
                "runId": {"project": "flytesnacks", "domain": "development", "name": run},
                "request": {"limit": 100},
            },
        )
    found: list[dict[str, object]] = answer.json()["actions"]
    return found


def test_at_depth_three_it_is_still_the_same_person(run: Run) -> None:
    done = run("top")
    facts = outputs(done)
    assert isinstance(facts, dict)
    assert facts["subject"] == facts["executor"] == "fern"
    assert facts["run"] == facts["top"] == done["name"]
    assert facts["action"] != "a0"
    assert facts["task"] == "family.leaf"
    assert facts["version"] == done["version"]
    assert facts["image"].startswith("tower/")
    assert len(facts["code"]) == 64
    assert facts["attempt"] == "1"


def test_twenty_at_once_and_more_than_there_are_places(run: Run, tower: Tower) -> None:
    done = run("wide", "--n", "20")
    assert outputs(done) == [x * x for x in range(20)]
    children = [each for each in actions(tower, str(done["name"])) if each["metadata"].get("parent") == "a0"]  # type: ignore[attr-defined]
    assert len(children) == 20
    assert {each["status"]["phase"] for each in children} == {"ACTION_PHASE_SUCCEEDED"}  # type: ignore[index]


def test_a_plain_function_calls_and_maps(run: Run) -> None:
    assert outputs(run("plainly", "--n", "5")) == [0, 1, 4, 9, 16]


def test_the_parent_sees_the_childs_error(run: Run) -> None:
    message = outputs(run("sees"))
    assert str(message).startswith("The task family.breaks failed: ValueError: the child broke")


def test_a_parent_that_is_tried_again_does_not_run_finished_children_again(
    run: Run, counter: Counter
) -> None:
    assert outputs(run("again", "--counter", counter.url)) == 3
    assert counter.asked == 2


def test_a_parent_that_is_tried_again_runs_failed_children_again(run: Run, counter: Counter) -> None:
    assert outputs(run("stubborn", "--counter", counter.url)) == "at last"
    assert counter.asked == 2


def test_children_end_with_their_parent(run: Run, tower: Tower) -> None:
    started = run("cradle", wait=False)
    name = str(started["name"])
    child = _until(lambda: next(_in(actions(tower, name), "a0", "ACTION_PHASE_RUNNING"), None))
    assert child
    tower.flyte("abort", "run", name, "--reason", "enough", user="fern")
    phases = {each["status"]["phase"] for each in actions(tower, name)}  # type: ignore[index]
    assert phases == {"ACTION_PHASE_ABORTED"}


def test_a_child_that_nobody_waits_for_any_more_is_ended(run: Run, tower: Tower, counter: Counter) -> None:
    done = run("gives_up", "--counter", counter.url)
    assert outputs(done) == "gave up"
    (child,) = _in(actions(tower, str(done["name"])), "a0", "ACTION_PHASE_ABORTED")
    assert child


def test_depth_and_circles_are_refused_clearly(run: Run) -> None:
    deep = run("deeper", "--n", "0")
    assert deep["phase"] == "FAILED"
    assert "At most 8" in str(deep["error"])
    circle = run("circle", "--n", "1")
    assert circle["phase"] == "FAILED"
    assert "asks for itself with the same inputs" in str(circle["error"])


def test_a_task_of_an_environment_that_was_not_deployed_along(run: Run) -> None:
    assert outputs(run("calls_cousin")) == "leaf and cousin"


def test_a_run_that_a_task_starts_knows_where_it_came_from(run: Run, tower: Tower) -> None:
    done = run("starts")
    name, value = str(outputs(done)).split()
    assert value == "25"
    shown = tower.flyte("get", "run", name, "-o", "json", user="fern").json()
    assert isinstance(shown, dict)
    assert shown["executed_by"] == "fern"
    assert shown["parent"] == f"flytesnacks/development/{done['name']}"


def test_x14_e7_the_same_task_has_two_outcomes_for_two_people(run: Run) -> None:
    assert outputs(run("reaches", user="fern")) == "gold for fern"
    refused = str(outputs(run("reaches", user="gale")))
    assert refused.startswith("denied: You may not do task:run on task vaulted.treasure")


def test_x17_through_the_webhook_each_person_has_the_outcome_of_their_own_rights(
    run: Run, tower: Tower
) -> None:
    said = {}
    for person in ("fern", "gale"):
        with tower.http(person) as client:
            answer = client.post("/apps/flytesnacks/development/family-hook/reach")
        assert answer.status_code == 200, answer.text
        said[person] = answer.json()["said"]
    assert said["fern"] == "gold for fern"
    assert said["gale"].startswith("denied: ")


def test_x17_below_the_webhook_every_child_is_the_caller_and_knows_the_app(run: Run, tower: Tower) -> None:
    with tower.http("gale") as client:
        facts = client.post("/apps/flytesnacks/development/family-hook/facts").json()
    assert facts["subject"] == facts["executor"] == "gale"
    assert facts["via"] == "flytesnacks/development/family-hook"


def _in(found: list[dict[str, object]], parent: str, phase: str) -> Iterator[dict[str, object]]:
    for each in found:
        if each["metadata"].get("parent") == parent and each["status"]["phase"] == phase:  # type: ignore[attr-defined, index]
            yield each


def _until(look: Callable[[], object], seconds: float = 120.0) -> object:
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        found = look()
        if found:
            return found
        time.sleep(0.05)
    raise AssertionError("it did not come to that")
