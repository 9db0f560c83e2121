"""The mode in force is logged and shown, and a Tower that is required to isolate starts only where it can."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from tests.tower_process import Tower

from tower.executors.process.isolation import Wanted, choose


def logged(tower: Tower) -> dict[str, str]:
    lines = [json.loads(line) for line in tower.log.splitlines() if line.startswith("{")]
    (line,) = [line for line in lines if line.get("event") == "isolation"]
    return {name: line[name] for name in ("mode", "wanted", "level")}


def test_a_required_isolation_is_logged_and_shown(tmp_path: Path) -> None:
    best, why = choose(Wanted.PREFERRED)
    if not best.mode.namespaces:
        pytest.skip(f"this machine does not isolate: {why}")
    with Tower.started(tmp_path / "home", "--isolation", "required") as tower:
        level = "info" if best.mode.landlock else "warning"
        assert logged(tower) == {"mode": str(best), "wanted": "required", "level": level}
        with tower.http() as client:
            assert client.get("/healthz").json() == {"status": "ok", "isolation": str(best)}


def test_switched_off_it_is_a_warning(tmp_path: Path) -> None:
    with Tower.started(tmp_path / "home", "--isolation", "off") as tower:
        assert logged(tower) == {"mode": "none", "wanted": "off", "level": "warning"}
        with tower.http() as client:
            assert client.get("/healthz").json()["isolation"] == "none"
