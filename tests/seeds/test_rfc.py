"""Seed S3, rows X and E of the checklist: both examples of the RFC, unmodified, on a real Tower."""

from __future__ import annotations

import datetime as dt
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
from tests.seeds import documents
from tests.tower_process import Tower, clean_environment

pytestmark = [pytest.mark.seeds, pytest.mark.xdist_group("seeds")]


def examples() -> tuple[str, str]:
    """The two pieces of code, exactly as they stand."""
    first, second = documents.FENCE.findall(documents.document("003_"))
    assert "get_execution_date" in first
    assert "hello_main" in second
    return first, second


@pytest.fixture(scope="session")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    made = tmp_path_factory.mktemp("rfc")
    first, second = examples()
    (made / "dates.py").write_text(first)
    (made / "hello.py").write_text(second)
    (made / "bare.py").write_text(
        second.replace("@eager(remote=remote.default())", "@eager").replace(
            "import task, remote, eager", "import task, eager"
        )
    )
    return made


def run(
    tower: Tower, folder: Path, *words: str, user: str = "alice", check: bool = True
) -> dict[str, object]:
    done = tower.flyte("run", "--follow", "-o", "json", *words, user=user, cwd=folder, check=check)
    printed = done.json()
    assert isinstance(printed, dict)
    return printed


def test_e1_e2_e4_e8_the_eager_example_says_hello(tower: Tower, folder: Path) -> None:
    done = run(tower, folder, "hello.py", "hello_main")
    assert (done["phase"], done["outputs"]) == ("SUCCEEDED", {"o0": "hello flyte!"})
    assert done["task"] == "hello.hello_main"
    assert (done["project"], done["domain"], done["executed_by"]) == ("flytesnacks", "development", "alice")


def test_e4_the_awaited_task_was_an_action_of_its_own(tower: Tower, folder: Path) -> None:
    done = run(tower, folder, "hello.py", "hello_main", "--name", "world")
    assert done["outputs"] == {"o0": "hello world!"}
    with tower.http("alice") as client:
        page = client.post(
            "/flyteidl2.workflow.RunService/ListActions",
            json={"runId": {"project": "flytesnacks", "domain": "development", "name": done["name"]}},
        ).json()
    actions = {each["metadata"].get("parent", ""): each for each in page["actions"]}
    assert set(actions) == {"", "a0"}
    assert actions["a0"]["metadata"]["task"]["id"]["name"] == "hello.say_hello"
    assert actions["a0"]["metadata"]["executedBy"]["user"]["id"]["subject"] == "alice"


def test_e3_bare_eager(tower: Tower, folder: Path) -> None:
    assert run(tower, folder, "bare.py", "hello_main")["outputs"] == {"o0": "hello flyte!"}


def test_x6_x9_x10_x11_the_first_example_gives_the_date_of_an_execution(tower: Tower, folder: Path) -> None:
    hello = run(tower, folder, "hello.py", "hello_main")
    date = run(tower, folder, "dates.py", "get_execution_date", "--execution_id", str(hello["name"]))
    assert date["phase"] == "SUCCEEDED"
    told = date["outputs"]["o0"]  # type: ignore[index]
    assert dt.datetime.fromisoformat(told).tzinfo is not None
    assert dt.datetime.fromisoformat(str(hello["created_at"])) <= dt.datetime.fromisoformat(told)


def test_x10_of_an_execution_that_has_not_succeeded_it_gives_none(tower: Tower, folder: Path) -> None:
    (folder / "fails.py").write_text(
        "from flytekit import task\n\n@task\ndef fails() -> int:\n    raise ValueError('no')\n"
    )
    failed = run(tower, folder, "fails.py", "fails", check=False)
    assert failed["phase"] == "FAILED"
    date = run(tower, folder, "dates.py", "get_execution_date", "--execution_id", str(failed["name"]))
    assert date["outputs"] == {"o0": None}


def test_x3_x14_what_the_executor_may_not_see_is_not_there(tower: Tower, folder: Path) -> None:
    """dave may run tasks of staging and sees nothing of development."""
    hello = run(tower, folder, "hello.py", "hello_main")
    tower.tower(
        "users", "grant", "dave", "--role", "contributor", "--project", "flytesnacks", "--domain", "staging"
    )
    asked = f"flytesnacks/development/{hello['name']}"
    words = ("--domain", "staging", "dates.py", "get_execution_date", "--execution_id", asked)
    refused = run(tower, folder, *words, user="dave", check=False)
    assert refused["phase"] == "FAILED"
    assert "RemoteRunNotFoundError" in str(refused["error"])
    tower.tower(
        "users", "revoke", "dave", "--role", "contributor", "--project", "flytesnacks", "--domain", "staging"
    )


def test_x18_x19_outside_of_tasks_it_is_the_developer_and_importing_needs_nothing(
    tower: Tower, folder: Path
) -> None:
    hello = run(tower, folder, "hello.py", "hello_main")
    (folder / "outside.py").write_text(
        "import sys, asyncio\n"
        "import hello, dates\n"
        "print(asyncio.run(hello.hello_main()), hello.say_hello(name='you'))\n"
        "print(dates.get_execution_date(sys.argv[1]))\n"
    )
    nothing = subprocess.run(
        [sys.executable, "-c", "import hello, dates; print('imported')"],
        cwd=folder,
        env={"PATH": os.environ["PATH"], "HOME": str(folder), **_path()},
        capture_output=True,
        text=True,
        check=True,
        timeout=180,
    )
    assert nothing.stdout == "imported\n"
    environment = {"FLYTE_ENDPOINT": tower.url, "FLYTE_API_KEY": tower.keys["alice"], "HOME": str(folder)}
    done = subprocess.run(
        [sys.executable, "outside.py", str(hello["name"])],
        cwd=folder,
        env=clean_environment(environment),
        capture_output=True,
        text=True,
        check=True,
        timeout=180,
    )
    first, second = done.stdout.splitlines()
    assert first == "hello flyte! hello you!"
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT.*\+00:00", second)


def _path() -> dict[str, str]:
    return {"PYTHONPATH": os.environ["PYTHONPATH"]} if "PYTHONPATH" in os.environ else {}
