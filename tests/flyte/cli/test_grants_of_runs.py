"""`flyte run --grant`, and the grants that `flyte get` and `delete` show and end, on a running Tower."""

from __future__ import annotations

import datetime as dt
from pathlib import Path

import pytest
from tests.tower_process import Tower

FILE = """
import flyte

env = flyte.TaskEnvironment("granted")


@env.task
def one() -> int:
    return 1
"""
PLACE = ("--project", "flytesnacks", "--domain", "development")


def test_a_run_acts_for_as_long_as_was_asked_and_its_person_ends_that(tower: Tower, tmp_path: Path) -> None:
    (tmp_path / "granted.py").write_text(FILE)
    asked = (*PLACE, "-o", "json", "run", "granted.py", "one", "--grant", "90m")
    run = tower.flyte(*asked, cwd=tmp_path).json()["name"]  # type: ignore[index]
    ended = tower.flyte(*PLACE, "-o", "json", "delete", "grant", run).json()
    assert (ended["user"], ended["revoked_by"]) == ("alice", "alice")  # type: ignore[index]
    lasts = dt.datetime.fromisoformat(ended["expires_at"]) - dt.datetime.fromisoformat(ended["created_at"])  # type: ignore[index]
    assert lasts == dt.timedelta(minutes=90)
    hidden = tower.flyte(*PLACE, "delete", "grant", run, user="bob", check=False)
    assert hidden.status == 4
    assert isinstance(tower.flyte(*PLACE, "-o", "json", "get", "grant").json(), list)
    others = tower.flyte(*PLACE, "get", "grant", "--user", "bob", check=False)
    assert others.status == 4


@pytest.mark.parametrize("span", ["0", "-1h", "soon", "1w", ""])
def test_what_is_no_span_is_wrong_usage(tower: Tower, tmp_path: Path, span: str) -> None:
    (tmp_path / "granted.py").write_text(FILE)
    refused = tower.flyte(*PLACE, "run", "granted.py", "one", f"--grant={span}", cwd=tmp_path, check=False)
    assert refused.status == 2
    assert "span of time" in refused.err
