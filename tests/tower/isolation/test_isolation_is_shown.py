"""The mode in force is logged and shown, and a Tower that is required to isolate starts only where it can."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path

import pytest
from tests import lesser
from tests.tower_process import BIN, Tower, clean_environment

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


@pytest.mark.parametrize("lacking", ["namespaces", "namespaces,landlock"])
def test_where_it_cannot_isolate_it_does_not_start_as_required(tmp_path: Path, lacking: str) -> None:
    """The whole command, on a machine that lacks it: no port, a message, and no harm to the home."""
    best, why = choose(Wanted.PREFERRED)
    if not best.mode.namespaces:
        pytest.skip(f"this machine does not isolate anyhow: {why}")
    home = tmp_path / "home"
    command = [*lesser.command(lacking), BIN / "tower", "up", "--port", "0", "--isolation", "required"]
    refused = subprocess.run(
        command,
        env=clean_environment({"TOWER_HOME": str(home)}),
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert refused.returncode not in (0, -9), refused
    assert "ready" not in refused.stdout
    assert "cannot isolate tasks from each other as it is required to" in refused.stderr
    with Tower.started(home, before=lesser.command(lacking)) as tower:
        assert "namespaces" not in logged(tower)["mode"]
