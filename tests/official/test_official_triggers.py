"""Triggers of the official SDK 2.12.1, deployed, looked at and switched by it."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from tests.official.conftest import script
from tests.official.test_official_sdk import official  # noqa: F401 - a fixture
from tests.tower_process import Tower

pytestmark = [pytest.mark.official, pytest.mark.xdist_group("official")]


def test_triggers_of_the_official_sdk(official: Path, hosting: Tower) -> None:  # noqa: F811
    key = hosting.new_key("official-triggers", "alice")
    _, client, secret = key.split("_", 2)
    told = script(official, hosting, "triggers.py", {"client_id": client, "secret": secret})
    mornings, rate, hourly = (told["listed"][name] for name in ("mornings", "rate", "hourly"))
    assert (mornings["active"], rate["active"], hourly["active"]) == (True, False, True)
    assert (mornings["moment"], mornings["inputs"]) == ("at", ["x"])
    assert mornings["labels"]["tower/run-as"] == "alice"
    due = datetime.fromisoformat(mornings["labels"]["tower/next-at"])
    assert due > datetime.now(UTC)
    assert due.minute == 0
    phase, error, version = told["ran"]
    assert (phase, error, version) == ("SUCCEEDED", "", mornings["version"])
    number, _, at = told["output"].partition(" at ")
    assert number == "7"
    assert abs(datetime.fromisoformat(at) - datetime.now(UTC)) < timedelta(minutes=10)
    assert told["rate"]["active"]
    assert told["rate"]["labels"]["tower/next-at"] == told["start"]
    assert not told["hourly"]["active"]
    assert told["created"] == {"name": "by-hand", "active": True}
    assert told["left"] == []
