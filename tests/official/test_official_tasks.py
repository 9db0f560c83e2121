"""Tasks of the official SDK 2.12.1, deployed by it and hosted by Tower over TLS: each runs as who asked."""

from __future__ import annotations

import json
import os
import re
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import httpx
import pytest
from tests.official.conftest import PEM, WORD, script
from tests.official.test_official_sdk import official  # noqa: F401 - a fixture
from tests.tower_process import BIN, Tower, clean_environment

pytestmark = [pytest.mark.official, pytest.mark.xdist_group("official")]
HERE = Path(__file__).parent
Ask = Callable[..., list[dict[str, Any]]]


@pytest.fixture
def ask(official: Path, hosting: Tower) -> Ask:  # noqa: F811
    """Run tasks as people; the answers are in the order of the questions."""

    def run(*runs: tuple[str, str, dict[str, Any]]) -> list[dict[str, Any]]:
        wanted = [(who, task if "." in task else f"official.{task}", inputs) for who, task, inputs in runs]
        told = script(official, hosting, "runs.py", {"keys": hosting.keys, "runs": wanted})
        answers: list[dict[str, Any]] = told["runs"]
        return answers

    return run


def test_two_people_run_the_same_task(ask: Ask) -> None:
    alice, bob = ask(("alice", "hello", {"x": 1}), ("bob", "hello", {"x": 2, "y": "good day"}))
    assert (alice["phase"], alice["by"], alice["output"]) == ("SUCCEEDED", "alice", "hello 1 as alice"), alice
    assert (bob["phase"], bob["by"], bob["output"]) == ("SUCCEEDED", "bob", "good day 2 as bob"), bob


def test_children_and_runs_from_inside_are_the_executors(ask: Ask, hosting: Tower) -> None:
    outer, launches = ask(("bob", "outer", {"x": 4}), ("bob", "launches", {"x": 21}))
    assert (outer["phase"], outer.get("output")) == ("SUCCEEDED", 26), outer
    children = _actions(hosting, outer["name"])
    assert [child["by"] for child in children] == ["bob"] * 4
    assert launches["phase"] == "SUCCEEDED", launches
    name, doubled = launches["output"].split()
    assert doubled == "42"
    assert [child["by"] for child in _actions(hosting, name)] == ["bob"]


def test_files_travel_from_task_to_task(ask: Ask) -> None:
    (passed,) = ask(("bob", "passes_files", {"text": "words"}))
    assert (passed["phase"], passed.get("output")) == ("SUCCEEDED", "words, more words"), passed


def test_an_error_comes_through_with_its_kind(ask: Ask) -> None:
    # erin may not register: her child runs because it is known as the deployed task
    fails, passed_on = ask(("alice", "fails", {"x": 7}), ("erin", "passes_on", {"x": 8}))
    assert (fails["phase"], fails["code"], fails["user_error"]) == ("FAILED", "ValueError", True)
    assert "no good 7" in fails["error"]
    assert (passed_on["phase"], passed_on["by"]) == ("FAILED", "erin")
    assert "no good 8" in passed_on["error"], passed_on


def test_a_child_that_the_executor_may_not_run_is_refused(ask: Ask) -> None:
    alice, erin = ask(("alice", "reaches", {"x": 3}), ("erin", "reaches", {"x": 3}))
    assert (alice["phase"], alice.get("output")) == ("SUCCEEDED", "unlocked 3"), alice
    assert erin["phase"] == "FAILED"
    assert erin["by"] == "erin"
    assert "may not" in erin["error"], erin


def test_an_image_is_made_of_the_packages_that_it_names(ask: Ask, hosting: Tower) -> None:
    (made,) = ask(("bob", "packed.reads", {"text": "[a]\nb = c"}))
    assert (made["phase"], made.get("output")) == ("SUCCEEDED", "c blue"), made
    with hosting.http("bob") as client:
        place = {"name": "flytesnacks", "domain": "development"}
        asked = {"projectId": place, "request": {"limit": 100}}
        listed = _call(client, "workflow.RunService/ListRuns", asked)
    builds = [run for run in listed["runs"] if "build-image" in json.dumps(run)]
    assert builds, listed
    assert {run["action"]["metadata"]["executedBy"]["user"]["id"]["subject"] for run in builds} == {"alice"}


def test_no_credential_lies_around_and_a_token_ends_with_its_attempt(ask: Ask, hosting: Tower) -> None:
    seen, plain, taken = ask(
        ("alice", "surroundings", {}),
        ("alice", "takes_token", {"plainly": True}),
        ("alice", "takes_token", {"plainly": False}),
    )
    assert seen["phase"] == "SUCCEEDED", seen
    facts = seen["output"]
    assert (facts["run"], facts["action"], facts["project"]) == (seen["name"], "a0", "flytesnacks")
    assert not re.search(r"eyJ[\w-]+\.[\w-]+\.|twr_[a-z0-9]{12}_", facts["visible"])
    assert taken["phase"] == "SUCCEEDED", taken
    assert (plain["phase"], plain["code"]) == ("FAILED", "SecretInOutputs"), plain
    token = taken["output"][::-1]
    assert token.count(".") == 2
    with hosting.http() as client:
        answer = client.get("/api/v1/whoami", headers={"authorization": f"Bearer {token}"})
    assert answer.status_code == 401
    assert token not in hosting.log
    printed = hosting.flyte("logs", taken["name"]).out
    assert "it is [secret]" in printed
    assert token not in printed


def test_a_secret_is_in_the_variable_that_the_task_declares(ask: Ask, hosting: Tower) -> None:
    (known,) = ask(("alice", "knowing.knows", {}))
    assert (known["phase"], known.get("output")) == ("SUCCEEDED", WORD[::-1]), known
    printed = hosting.flyte("logs", known["name"]).out
    assert "told [secret]" in printed
    assert WORD not in printed


def test_a_secret_is_in_the_file_that_the_task_declares(ask: Ask, hosting: Tower) -> None:
    """At the place that the SDK names, where tasks see a file system of their own; nobody else sees it."""
    known, returned = ask(("alice", "filed.knows_file", {}), ("alice", "filed.returns_file", {}))
    assert known["phase"] == "SUCCEEDED", known
    there = PEM[::-1] if "namespaces" in hosting.log else "nowhere else"
    assert known["output"] == [PEM[::-1], "0o700", "0o400", there, "official-file", WORD[::-1]]
    printed = hosting.flyte("logs", known["name"]).out
    assert "told [secret]" in printed
    assert not any(line in printed for line in (WORD, *PEM.splitlines()))
    assert (returned["phase"], returned["code"]) == ("FAILED", "SecretInOutputs"), returned
    assert not Path("/etc/flyte/secrets/official-file").exists()
    for place, _, names in os.walk(hosting.home):
        for file in (Path(place, name) for name in names):
            try:
                content = file.read_bytes() if file.is_file() else b""
            except OSError:
                continue
            assert PEM.encode() not in content, file


@pytest.mark.parametrize("ending", ["abort", "disable"])
def test_a_token_is_good_until_run_or_person_end_and_no_longer(hosting: Tower, ending: str) -> None:
    """T5, T7: the server asks at each use whether the attempt runs and its person still may."""
    person = f"faye-{ending}"
    hosting.tower("users", "add", person, "--role", "contributor", "--project", "flytesnacks")
    hosting.keys[person] = hosting.new_key(f"{person}-key", person)
    place = {"project": "flytesnacks", "domain": "development"}
    asked = {
        "projectId": {"name": "flytesnacks", "domain": "development"},
        "taskId": {**place, "name": "official.lingers"},
        "inputs": {},
    }
    with hosting.http(person) as client, hosting.http() as thief:
        run = _call(client, "workflow.RunService/CreateRun", asked)["run"]["action"]["id"]["run"]
        own = {"authorization": f"Bearer {_told_backwards(hosting, run['name'], person)}"}
        seen = thief.get("/api/v1/whoami", headers=own)
        assert (seen.status_code, seen.json()["subject"]) == (200, person), seen.text
        assert thief.post("/api/v1/keys", json={"name": "mine"}, headers=own).status_code == 403
        if ending == "abort":
            _call(client, "workflow.RunService/AbortRun", {"runId": run})
        else:
            hosting.tower("users", "disable", person)
        assert thief.get("/api/v1/whoami", headers=own).status_code == 401, "not refused at the next call"
    if ending == "disable":
        with hosting.http("admin") as admin:
            _call(admin, "workflow.RunService/AbortRun", {"runId": run})


def _told_backwards(tower: Tower, run: str, person: str) -> str:
    """The token that the run printed the wrong way round."""
    environment = {
        "FLYTE_ENDPOINT": tower.url,
        "FLYTE_API_KEY": tower.keys[person],
        "SSL_CERT_FILE": str(tower.ca),
    }
    command = [BIN / "flyte", "logs", run, "--follow"]
    with subprocess.Popen(
        command, env=clean_environment(environment), stdout=subprocess.PIPE, text=True
    ) as following:
        assert following.stdout is not None
        for line in following.stdout:
            found = re.search(r"backwards (\S+)", line)
            if found is not None:
                following.terminate()
                return found[1][::-1]
    raise AssertionError("the run printed no token")


def _call(client: httpx.Client, method: str, message: object) -> Any:
    answer = client.post(f"/flyteidl2.{method}", json=message, headers={"connect-protocol-version": "1"})
    assert answer.status_code == 200, answer.text
    return answer.json()


def _actions(tower: Tower, run: str) -> list[dict[str, str]]:
    """The actions of a run as alice's key lists them."""
    with tower.http("alice") as client:
        place = {"project": "flytesnacks", "domain": "development", "name": run}
        listed = _call(client, "workflow.RunService/ListActions", {"runId": place})
    return [
        {"name": each["id"]["name"], "by": each["metadata"]["executedBy"]["user"]["id"]["subject"]}
        for each in listed["actions"]
    ]
