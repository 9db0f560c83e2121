"""A real Chromium in front of a real Tower; each test has its own profile, and no complaint is let pass."""

from __future__ import annotations

import json
import textwrap
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest
from tests.browser import chromium
from tests.flyte.login.conftest import Terminal
from tests.flyte.login.person import give_password
from tests.tower_process import Tower

pytest.importorskip("playwright", reason="playwright is not installed; `make browser` installs it")

from playwright.sync_api import Browser, expect, sync_playwright
from tests.browser.visitor import Visitor

WAIT_MILLISECONDS = 60_000

TASKS = """
    import time

    import flyte

    env = flyte.TaskEnvironment(name="desk", image=flyte.Image.from_debian_base())


    @env.task
    def count(upto: int) -> str:
        for number in range(1, upto + 1):
            print(f"line {number} <b>of</b> {upto}", flush=True)
            time.sleep(0.2)
        return "<i>counted</i>"


    @env.task
    def patient() -> None:
        print("waiting", flush=True)
        time.sleep(600)
"""

APP = """
    from contextlib import asynccontextmanager

    from fastapi import FastAPI
    from fastapi.responses import HTMLResponse

    import flyte
    import flyte.remote as remote
    from flyte.app.extras import FastAPIAppEnvironment, FastAPIPassthroughAuthMiddleware


    @asynccontextmanager
    async def lifespan(app):
        await flyte.init_passthrough.aio(project=flyte.current_project(), domain=flyte.current_domain())
        print("the lobby is open", flush=True)
        yield


    app = FastAPI(lifespan=lifespan)
    app.add_middleware(FastAPIPassthroughAuthMiddleware)


    @app.get("/{room}", response_class=HTMLResponse)
    async def hello(room: str) -> str:
        user = await remote.User.get.aio()
        return (
            f"<title>Lobby</title><p id=who>{user.subject()} in {room}</p>"
            '<form method=post action=/ring><button>Ring</button></form>'
        )


    @app.post("/ring", response_class=HTMLResponse)
    async def ring() -> str:
        return f"<p id=who>{(await remote.User.get.aio()).subject()} rang</p>"


    env = FastAPIAppEnvironment(
        name="lobby",
        app=app,
        requires_auth=True,
        image=flyte.Image.from_debian_base().with_pip_packages("fastapi", "uvicorn"),
    )
"""


@pytest.fixture(scope="session")
def browser() -> Iterator[Browser]:
    """The program, without a window."""
    path, why = chromium.found()
    if not path:
        pytest.skip(f"no Chromium: {why}")
    expect.set_options(timeout=WAIT_MILLISECONDS)
    with sync_playwright() as driver:
        running = driver.chromium.launch(executable_path=path, args=chromium.options(), headless=True)
        yield running
        running.close()


@pytest.fixture
def visitors(browser: Browser, town: Tower) -> Iterator[Callable[[], Visitor]]:
    """Makes profiles; at the end none of them has anything to complain about."""
    with ExitStack() as stack:
        made: list[Visitor] = []

        def make() -> Visitor:
            context = stack.enter_context(browser.new_context())
            context.set_default_timeout(WAIT_MILLISECONDS)
            made.append(Visitor.of(town, context))
            return made[-1]

        yield make
        for each in made:
            assert each.complaints == []
            assert each.refused == []


@pytest.fixture
def alice(visitors: Callable[[], Visitor]) -> Visitor:
    """Alice's browser, signed in with her password."""
    visitor = visitors()
    visitor.sign_in("alice")
    visitor.page.wait_for_url(f"{visitor.tower.url}/")
    return visitor


@pytest.fixture(scope="session")
def start(town: Tower, tmp_path_factory: pytest.TempPathFactory) -> Callable[..., str]:
    """Starts `count` or `patient` as alice; the path of the run's page."""
    file = tmp_path_factory.mktemp("desk") / "desk.py"
    file.write_text(textwrap.dedent(TASKS))
    town.flyte("deploy", str(file), "env")

    def run(task: str, *inputs: str) -> str:
        made = town.flyte("run", "deployed-task", f"desk.{task}", *inputs, "-o", "json")
        return str(json.loads(made.out)["url"]).removeprefix(town.url)

    return run


@pytest.fixture(scope="session")
def lobby(town: Tower, tmp_path_factory: pytest.TempPathFactory) -> str:
    """The address of an app at a host of its own, open to signed-in people who may use it."""
    file = tmp_path_factory.mktemp("lobby") / "lobby.py"
    file.write_text(textwrap.dedent(APP))
    town.flyte("serve", str(file), "env")
    return f"http://lobby-flytesnacks-development.localhost:{town.url.rpartition(':')[2]}"


@pytest.fixture(scope="session")
def dave(town: Tower) -> str:
    """Somebody with a password and no role."""
    give_password(town, "dave")
    return "dave"


@pytest.fixture
def terminal(town: Tower, tmp_path: Path) -> Terminal:
    """Where `flyte login` waits for its person."""
    return Terminal(town, tmp_path / "flyte")
