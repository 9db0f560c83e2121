"""A schedule that the official SDK 2.12.1 deployed fires: its task runs as its owner, with nobody present."""

from __future__ import annotations

import json
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from tests.official.conftest import script
from tests.official.test_official_sdk import official  # noqa: F401 - a fixture
from tests.threats.conftest import Lab
from tests.tower.whole.test_schedules import started
from tests.tower_process import Tower

pytestmark = [pytest.mark.official, pytest.mark.xdist_group("official")]


def test_a_firing_of_the_official_sdk_runs_as_its_owner(official: Path, hosting: Tower) -> None:  # noqa: F811
    key = hosting.new_key("official-schedule", "alice")
    _, client, secret = key.split("_", 2)
    told = script(official, hosting, "schedule.py", {"client_id": client, "secret": secret})
    assert (told["active"], told["as"]) == (True, "alice")
    name = started(hosting, "official_scheduled.tick")
    hosting.flyte("update", "trigger", "soon", "official_scheduled.tick", "--deactivate")
    with hosting.http() as browser:
        Lab(hosting, browser, "").wait("alice", name)
    run: Any = hosting.flyte("get", "run", name, "-o", "json").json()
    assert run["phase"] == "SUCCEEDED", run
    assert run["executed_by"] == "alice"
    assert run["via_trigger"] == "flytesnacks/development/official_scheduled.tick/soon"
    subject, at, number, mood = json.loads(run["outputs"]["o0"])
    assert (subject, number, mood) == ("alice", 7, "calm")
    since = datetime.fromisoformat(at) - datetime.fromisoformat(told["start"])
    assert since % timedelta(minutes=1) == timedelta(0)
    with hosting.http("admin") as admin:
        asked = {"run": f"flytesnacks/development/{name}", "event": "run.create"}
        (record,) = admin.get("/api/v1/audit", params=asked).json()["records"]
    assert (record["subject"], record["credential_kind"]) == ("alice", "schedule")
    assert record["actors"][0].startswith("schedule:flytesnacks/development/official_scheduled.tick/soon/")
