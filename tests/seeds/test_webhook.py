"""Rows W1 to W13 and G1 to G12 of the checklist: S0's webhook over real HTTP, as several people."""

from __future__ import annotations

import re
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from tests.seeds import documents
from tests.seeds.conftest import Webhook

pytestmark = [pytest.mark.seeds, pytest.mark.xdist_group("seeds")]
Outcome = Callable[..., dict[str, object]]


def test_w01_the_example_runs_with_only_the_endpoint_value_changed(webhook: Webhook) -> None:
    changed = documents.webhook(webhook.tower.url).splitlines()
    original = documents.complete_example().splitlines()
    assert sum(a != b for a, b in zip(changed, original, strict=True)) == 1
    assert webhook.call("GET", "/me", user="alice").status_code == 200


def test_w02_health_answers(webhook: Webhook) -> None:
    answer = webhook.call("GET", "/health", user="alice")
    assert (answer.status_code, answer.json()) == (200, {"status": "healthy"})


def test_w03_me_names_the_caller(webhook: Webhook) -> None:
    for person in ("alice", "bob"):
        assert webhook.call("GET", "/me", user=person).json()["subject"] == person


def test_w04_w05_run_task_takes_the_inputs_as_the_body_and_answers_url_and_name(webhook: Webhook) -> None:
    answer = webhook.run_task("alice")
    assert answer.status_code == 200, answer.text
    assert set(answer.json()) == {"url", "name"}
    assert answer.json()["url"].startswith(webhook.tower.url)
    assert answer.json()["name"] in answer.json()["url"]


def test_w04_version_is_an_optional_query_parameter(webhook: Webhook, outcome: Outcome) -> None:
    first = outcome(webhook.run_task("alice").json()["name"])
    pinned = webhook.run_task("alice", params={"version": first["version"]})
    assert pinned.status_code == 200, pinned.text
    assert outcome(pinned.json()["name"])["version"] == first["version"]
    absent = webhook.run_task("alice", params={"version": "no-such-version"})
    assert absent.status_code == 404


def test_w06_a_missing_task_is_404_and_names_what_was_asked(webhook: Webhook) -> None:
    answer = webhook.run_task("alice", name="my_env.absent")
    assert answer.status_code == 404
    for word in ("my_env.absent", "flytesnacks", "development"):
        assert word in answer.json()["detail"]


@pytest.mark.parametrize(
    ("inputs", "name"),
    [
        ({"x": 1}, "y"),
        ({"x": 1, "y": "a", "zz": 3}, "zz"),
        ({"x": "one", "y": "a"}, "x"),
        ({"x": 1.5, "y": "a"}, "x"),
    ],
)
def test_w07_wrong_inputs_are_400_and_the_text_names_the_input(
    webhook: Webhook, inputs: object, name: str
) -> None:
    answer = webhook.run_task("alice", inputs=inputs)
    assert answer.status_code == 400, answer.text
    assert re.search(rf"\b{name}\b", answer.json()["detail"])


def test_w11_w12_curl_with_an_api_key_runs_the_task_with_the_rights_of_that_key(
    webhook: Webhook, outcome: Outcome
) -> None:
    key = webhook.tower.new_key("w12-viewer", "alice", "--role", "viewer")
    assert webhook.call("GET", "/me", user=None, key=key).json()["subject"] == "alice"
    refused = webhook.call(
        "POST",
        "/run-task/flytesnacks/development/my_env.my_task",
        user=None,
        key=key,
        json={"x": 1, "y": "a"},
    )
    assert refused.status_code in {403, 500}
    assert "name" not in refused.json()
    done = outcome(webhook.run_task("alice").json()["name"])
    assert (done["phase"], done["executed_by"]) == ("SUCCEEDED", "alice")


def test_w13_the_runnable_example_is_published() -> None:
    assert (Path(__file__).parents[2] / "examples" / "apps" / "run_webhook.py").exists()


def test_g01_a_call_without_a_credential_or_with_a_wrong_one_is_refused(webhook: Webhook) -> None:
    assert webhook.call("GET", "/me", user=None).status_code == 401
    assert webhook.call("GET", "/me", user=None, key="twr_aaaaaaaaaaaa_" + "b" * 43).status_code == 401


def test_g02_g07_a_caller_without_the_right_starts_nothing_and_the_refusal_is_recorded(
    webhook: Webhook,
) -> None:
    tower = webhook.tower
    before = len(tower.flyte("get", "run", "-o", "json", user="carol").json())  # type: ignore[arg-type]
    refused = webhook.run_task("carol")
    assert refused.status_code in {403, 500}
    assert len(tower.flyte("get", "run", "-o", "json", user="carol").json()) == before  # type: ignore[arg-type]
    with tower.http() as client:
        admin = (tower.home / "admin-key").read_text().strip()
        rows = client.get(
            "/api/v1/audit", params={"subject": "carol"}, headers={"authorization": f"Bearer {admin}"}
        ).json()
    entries = rows["records"] if isinstance(rows, dict) else rows
    assert any(row["outcome"] == "refused" and row["action"] == "task:run" for row in entries)


def test_g03_g05_two_people_give_two_runs_that_execute_as_two_people(
    webhook: Webhook, outcome: Outcome
) -> None:
    for person in ("alice", "bob"):
        done = outcome(webhook.run_task(person).json()["name"], person)
        assert done["executed_by"] == person
        assert f"as {person}" in str(done["outputs"])


def test_g04_each_run_tells_who_what_when_and_through_which_app(webhook: Webhook, outcome: Outcome) -> None:
    done = outcome(webhook.run_task("alice").json()["name"])
    assert done["executed_by"] == "alice"
    assert done["via_app"] == "flytesnacks/development/webhook-runner"
    assert done["task"] == "my_env.my_task"
    assert done["created_at"]
    assert done["ended_at"]
    assert done["phase"] == "SUCCEEDED"


def test_g06_a_service_key_gives_its_own_identity_whoever_calls(webhook: Webhook, outcome: Outcome) -> None:
    tower = webhook.tower
    tower.tower("users", "add", "nightly", "--service", "--role", "contributor", "--project", "flytesnacks")
    key = tower.new_key("nightly-key", "nightly")
    answer = webhook.call(
        "POST",
        "/run-task/flytesnacks/development/my_env.my_task",
        user=None,
        key=key,
        json={"x": 1, "y": "a"},
    )
    done = outcome(answer.json()["name"])
    assert done["executed_by"] == "nightly"


@pytest.mark.parametrize("person", ["alice", "carol", "dave"])
def test_g08_through_the_app_one_can_do_what_one_can_do_directly(webhook: Webhook, person: str) -> None:
    direct = webhook.tower.flyte(
        "--project",
        "flytesnacks",
        "--domain",
        "development",
        "run",
        "deployed-task",
        "my_env.double",
        user=person,
        check=False,
    )
    through = webhook.run_task(person, name="my_env.double", inputs={"x": 3})
    assert (direct.status == 0) == (through.status_code == 200), (direct, through.text)


@pytest.mark.parametrize("header", ["authorization", "x-api-key", "x-flyte-token"])
def test_g09_keys_are_accepted_in_the_usual_headers(webhook: Webhook, header: str) -> None:
    key = webhook.tower.keys["bob"]
    value = f"Bearer {key}" if header == "authorization" else key
    answer = webhook.call("GET", "/me", user=None, headers={header: value})
    assert answer.json()["subject"] == "bob"


def test_g10_me_and_whoami_agree(webhook: Webhook) -> None:
    printed = webhook.tower.flyte("whoami", "-o", "json", user="bob").json()
    assert isinstance(printed, dict)
    assert printed["subject"] == webhook.call("GET", "/me", user="bob").json()["subject"]


def test_g11_a_change_of_rights_holds_at_the_next_call(webhook: Webhook) -> None:
    tower = webhook.tower
    tower.tower("users", "add", "erin", "--role", "viewer", "--project", "flytesnacks")
    tower.keys["erin"] = tower.new_key("erin-key", "erin")
    assert webhook.run_task("erin").status_code != 200
    tower.tower("users", "grant", "erin", "--role", "contributor", "--project", "flytesnacks")
    assert webhook.run_task("erin").status_code == 200
    tower.tower("users", "disable", "erin")
    assert webhook.run_task("erin").status_code == 401


def test_g12_runs_are_visible_by_owner(webhook: Webhook) -> None:
    webhook.run_task("bob")
    mine = webhook.tower.flyte(
        "--project",
        "flytesnacks",
        "--domain",
        "development",
        "get",
        "run",
        "--only-mine",
        "-o",
        "json",
        user="bob",
    ).json()
    assert isinstance(mine, list)
    assert mine
    assert {row["executed_by"] for row in mine} == {"bob"}


def test_interleaved_callers_never_mix(webhook: Webhook) -> None:
    people = ["alice", "bob", "carol"] * 20

    def who(person: str) -> str:
        return str(webhook.call("GET", "/me", user=person).json()["subject"])

    with ThreadPoolExecutor(12) as pool:
        assert list(pool.map(who, people)) == people


def test_the_time_of_asking_is_kept_apart_from_the_time_of_the_start(
    webhook: Webhook, outcome: Outcome
) -> None:
    name = webhook.run_task("alice").json()["name"]
    webhook.tower.flyte("get", "run", name, "-o", "json")
    done = outcome(name)
    listed = webhook.tower.flyte("get", "run", "-o", "json").json()
    assert isinstance(listed, list)
    assert next(row for row in listed if row["name"] == name)["created_at"] == done["created_at"]
    assert str(done["created_at"]) < str(done["ended_at"])
