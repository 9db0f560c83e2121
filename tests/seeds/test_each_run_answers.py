"""One run made through the webhook: who, through what, why and with what, wherever it is recorded."""

from __future__ import annotations

import hashlib
import html
import re
from collections.abc import Callable
from typing import Any

import pytest
from tests.files import contents
from tests.seeds.conftest import Webhook

pytestmark = [pytest.mark.seeds, pytest.mark.xdist_group("seeds")]
APP = "flytesnacks/development/webhook-runner"


def _admin(webhook: Webhook) -> str:
    return (webhook.tower.home / "admin-key").read_text().strip()


def test_who_through_what_why_and_with_what_code_and_inputs(
    webhook: Webhook, outcome: Callable[..., dict[str, object]]
) -> None:
    answer = webhook.run_task("bob")
    assert answer.status_code == 200, answer.text
    name, url = answer.json()["name"], answer.json()["url"]
    assert outcome(name, user="bob")["phase"] == "SUCCEEDED"
    run = f"flytesnacks/development/{name}"
    tower, admin = webhook.tower, _admin(webhook)

    by_command = tower.flyte("get", "audit", "--run", name, "-o", "json", user=admin).json()
    with tower.http() as client:
        bearer = {"authorization": f"Bearer {admin}"}
        by_rest = client.get("/api/v1/audit", params={"run": run}, headers=bearer).json()["records"]
        key_id = client.get("/api/v1/keys/bob-key", headers=bearer).json()["id"]
        page = client.get(
            url.removeprefix(tower.url), headers={"authorization": f"Bearer {tower.keys['bob']}"}
        )
    assert by_command == by_rest

    [created] = [record for record in by_rest if record["event"] == "run.create"]
    facts: dict[str, Any] = {
        "outcome": "allowed",
        "subject": "bob",  # who
        "credential_kind": "app_token",
        "credential_id": key_id,  # shown how: the key behind the app's token
        "app": APP,  # through what
        "actors": [f"app:{APP}"],
        "action": "task:run",  # what was decided
        "resource": "task:flytesnacks/development/my_env.my_task",
        "run": run,
    }
    assert {fact: created[fact] for fact in facts} == facts
    assert created["decision"]  # why: the policies that allowed it, of which revision
    assert re.fullmatch(r"[0-9a-f]{8,64}", created["policy_revision"])
    detail = created["detail"]
    assert re.fullmatch(r"[0-9a-f]{64}", detail["code_digest"])
    assert re.fullmatch(r"[0-9a-f]{64}", detail["inputs"])

    [finished] = [record for record in by_rest if record["event"] == "run.finish"]
    assert (finished["outcome"], finished["subject"], finished["app"]) == ("allowed", "bob", APP)
    assert finished["decision"] == created["decision"]
    assert finished["policy_revision"] == created["policy_revision"]

    assert page.status_code == 200
    shown = html.unescape(re.sub(r"<[^>]+>", "", page.text))
    said = [
        "bob",
        APP,
        f"app:{APP}",
        "app token",
        key_id,
        created["policy_revision"],
        detail["code_digest"],
        detail["inputs"],
        *created["decision"].split(","),
    ]
    assert [fact for fact in said if fact not in shown] == []


def test_the_digest_is_that_of_the_code_and_the_hash_that_of_the_inputs(webhook: Webhook) -> None:
    """Others can make both again: same inputs, same hash; the digest names the bundle's bytes."""
    tower, admin = webhook.tower, _admin(webhook)

    def detail(x: int) -> dict[str, str]:
        answer = webhook.run_task("alice", name="my_env.double", inputs={"x": x})
        name = answer.json()["name"]
        records = tower.flyte("get", "audit", "--run", name, "-o", "json", user=admin).json()
        assert isinstance(records, list)
        [created] = [record for record in records if record["event"] == "run.create"]
        assert isinstance(created, dict)
        return dict(created["detail"])

    first, again, other = detail(1), detail(1), detail(2)
    assert first["inputs"] == again["inputs"] != other["inputs"]
    assert first["code_digest"] == again["code_digest"] == other["code_digest"]
    bundles = {hashlib.sha256(data).hexdigest() for _, data in contents(tower.home / "blobs")}
    assert first["code_digest"] in bundles
