"""Privileges of tasks of the official SDK: declared where they are deployed, with the checks of ours (T1)."""

from __future__ import annotations

import secrets
from pathlib import Path
from typing import Any

import pytest
from tests.official.conftest import script
from tests.official.test_official_sdk import official  # noqa: F401 - a fixture
from tests.tower_process import Tower

pytestmark = [pytest.mark.official, pytest.mark.xdist_group("official")]


def give(official: Path, hosting: Tower, who: str, *, attempt: str = "") -> Any:  # noqa: F811
    _, client, secret = hosting.keys[who].split("_", 2)
    return script(official, hosting, "giving.py", {"client_id": client, "secret": secret, "try": attempt})


def test_t01_privileges_are_given_by_who_deploys_and_by_nothing_that_a_caller_says(
    official: Path,  # noqa: F811
    hosting: Tower,
) -> None:
    refused = give(official, hosting, "alice")
    assert "secret:create" in refused["deployed"]
    assert give(official, hosting, "admin") == {"deployed": ""}

    name = f"rotated-{secrets.token_hex(4)}"
    asked = [
        ("admin", "rotation.asks_privileged", {"name": name}),
        ("bob", "rotation.rotate", {"name": f"{name}-of-bob"}),
        ("admin", "plainly.lacks", {"name": f"{name}-lacking"}),
        ("admin", "plainly_asks.confused", {"name": f"{name}-confused"}),
    ]
    told = script(official, hosting, "runs.py", {"keys": hosting.keys, "runs": asked})["runs"]
    assert (told[0]["phase"], told[0].get("output")) == ("SUCCEEDED", "admin"), told[0]
    assert [each["phase"] for each in told[1:]] == ["FAILED"] * 3, told
    assert "secret:create" in told[2]["error"]
    assert "secret:create" in told[3]["error"]

    tried = give(official, hosting, "admin", attempt=f"{name}-tried")
    assert {what: phase for what, (phase, _) in tried.items()} == dict.fromkeys(tried, "FAILED"), tried
    assert all("secret:create" in message for _, message in tried.values()), tried

    with hosting.http("admin") as client:
        place = {"project": "flytesnacks", "domain": "development"}
        kept = [each["name"] for each in client.get("/api/v1/secrets", params=place).json()["secrets"]]
        records = client.get("/api/v1/audit", params={"event": "secret.create"}).json()["records"]
        deployed = client.get("/api/v1/audit", params={"event": "task.deploy"}).json()["records"]
    assert [each for each in kept if each.startswith(name)] == [name]
    (record,) = [each for each in records if each["detail"]["secret"] == name]
    assert "rotation.rotate given by admin" in str(record["decision"]), record
    given = {each["resource"].rpartition("/")[2]: each["detail"].get("privileges") for each in deployed}
    assert given["rotation.rotate"] == ["secret:create"]
    assert given["plainly.lacks"] is None
