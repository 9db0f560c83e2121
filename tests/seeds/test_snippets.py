"""Rows W8 to W10: the short snippets of S0 and S1, with our own project and task names put in."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from tests.seeds import documents
from tests.seeds.conftest import Webhook

pytestmark = [pytest.mark.seeds, pytest.mark.xdist_group("seeds")]
Outcome = Callable[..., dict[str, object]]

START = """
from contextlib import asynccontextmanager

import flyte
import flyte.remote as remote
from fastapi import FastAPI, HTTPException, Request
from flyte.app.extras import FastAPIAppEnvironment, FastAPIPassthroughAuthMiddleware


@asynccontextmanager
async def lifespan(app: FastAPI):
    await flyte.init_passthrough.aio(
        project=flyte.current_project(),
        domain=flyte.current_domain(),
    )
    yield


app = FastAPI(lifespan=lifespan)
"""

MIDDLEWARE = """
app.add_middleware(FastAPIPassthroughAuthMiddleware, excluded_paths={"/health", "/docs", "/openapi.json"})


@app.get("/health")
async def health():
    return {"status": "ok"}


@app.get("/who")
async def who():
    try:
        user = await remote.User.get.aio()
        return {"subject": user.subject(), "name": user.name()}
    except Exception:
        raise HTTPException(status_code=401, detail="Could not verify user")


@app.get("/outside-any-caller")
async def outside():
    import threading

    told = []

    def call():
        try:
            told.append(remote.User.get().subject())
        except Exception as error:
            told.append(type(error).__name__)

    thread = threading.Thread(target=call)
    thread.start()
    thread.join()
    return {"thread": told[0]}
"""

END = """

env = FastAPIAppEnvironment(
    name="{name}",
    app=app,
    image=flyte.Image.from_debian_base().with_pip_packages("fastapi", "uvicorn"),
)
"""


def short_run_task(which: int) -> str:
    """S0's short /run-task: 0 is the middleware's, 1 is the one with `auth_metadata`."""
    text = documents.document("000_")
    first = text.index('@app.post("/run-task")')
    chosen = first if which == 0 else text.index('@app.post("/run-task")', first + 1)
    body = text[chosen : text.index("```", chosen)]
    return (
        body.replace("my-project", "flytesnacks")
        .replace('"my_task"', '"my_env.my_task"')
        .replace("x=42", 'x=42, y="from the snippet"')
    )


def trigger_job() -> str:
    """S1's /trigger-job; the copy of the page lost its indentation, which is put back here."""
    text = documents.document("001_")
    start = text.index('@app.post("/trigger-job")')
    lines = text[start : text.index("Implementation Details", start)].strip().splitlines()
    head, body = (
        lines[:2],
        [line if line.startswith((" ", "\t")) or not line else f"    {line}" for line in lines[2:]],
    )
    source = "\n".join([*head, *body]) + "\n"
    return source.replace("my-project", "flytesnacks").replace('"my_task"', '"my_env.my_task"')


@pytest.fixture(scope="session")
def snippets(webhook: Webhook, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Webhook]:
    folder = tmp_path_factory.mktemp("snippets")
    sources = {
        "short-middleware": START + MIDDLEWARE + short_run_task(0) + trigger_job(),
        "short-explicit": START + short_run_task(1),
    }
    made = {}
    for name, source in sources.items():
        file = folder / f"{name.replace('-', '_')}.py"
        file.write_text(source + END.format(name=name))
        webhook.tower.flyte(
            "--project", "flytesnacks", "--domain", "development", "serve", file.name, "env", cwd=folder
        )
        made[name] = Webhook(tower=webhook.tower, path=f"/apps/flytesnacks/development/{name}", host="")
    return made


@pytest.mark.parametrize("name", ["short-middleware", "short-explicit"])
def test_w09_the_short_variant_answers_the_url_of_the_run(
    snippets: dict[str, Webhook], outcome: Outcome, name: str
) -> None:
    answer = snippets[name].call("POST", "/run-task", user="bob")
    assert answer.status_code == 200, answer.text
    assert set(answer.json()) == {"run_url"}
    done = outcome(answer.json()["run_url"].rsplit("/", 1)[1], "bob")
    assert (done["executed_by"], done["phase"]) == ("bob", "SUCCEEDED")


def test_w10_trigger_job_answers_the_execution_and_its_url(
    snippets: dict[str, Webhook], outcome: Outcome
) -> None:
    answer = snippets["short-middleware"].call(
        "POST", "/trigger-job", user="alice", json={"x": 1, "y": "job"}
    )
    assert answer.status_code == 200, answer.text
    assert set(answer.json()) == {"execution_id", "url"}
    assert outcome(answer.json()["execution_id"])["executed_by"] == "alice"


def test_w02_w03_s1s_health_and_caller(snippets: dict[str, Webhook]) -> None:
    app = snippets["short-middleware"]
    assert app.call("GET", "/health", user="alice").json() == {"status": "ok"}
    assert app.call("GET", "/who", user="bob").json() == {"subject": "bob", "name": "bob"}


def test_a_raw_thread_of_a_handler_is_nobody(snippets: dict[str, Webhook]) -> None:
    told = snippets["short-middleware"].call("GET", "/outside-any-caller", user="alice").json()
    assert told == {"thread": "MissingCallerError"}


def test_w08_an_error_of_another_kind_is_500_and_shows_no_internals(webhook: Webhook) -> None:
    refused = webhook.run_task("carol")
    assert refused.status_code in {403, 500}
    assert "Traceback" not in refused.text
    assert "/src/" not in refused.text
