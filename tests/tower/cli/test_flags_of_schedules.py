"""What `tower up` says about schedules reaches the server."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from tower import cli
from tower.settings import Settings


@pytest.fixture
def started(monkeypatch: pytest.MonkeyPatch) -> list[Settings]:
    """The settings that servers were started with; none of them runs."""
    seen: list[Settings] = []

    class Root:
        def up(self, settings: Settings) -> None:
            seen.append(settings)

    monkeypatch.setattr(cli, "composition_root", Root)
    return seen


def up(home: Path, *flags: str) -> Any:
    return CliRunner().invoke(cli.cli, ["--home", str(home / "home"), "up", *flags])


def test_schedules_are_bounded_by_flags(started: list[Settings], tmp_path: Path) -> None:
    flags = ("--max-triggers", "7", "--shortest-interval", "15m", "--catch-up", "1d")
    assert up(tmp_path, *flags).exit_code == 0
    assert up(tmp_path).exit_code == 0
    given, usual = ((each.max_triggers, each.shortest_interval, each.catch_up) for each in started)
    assert given == (7, 900.0, 86400.0)
    assert usual == (500, 60.0, 3600.0)


@pytest.mark.parametrize("flags", [("--max-triggers", "-1"), ("--catch-up", "soon")])
def test_what_is_no_bound_starts_nothing(
    started: list[Settings], tmp_path: Path, flags: tuple[str, ...]
) -> None:
    assert up(tmp_path, *flags).exit_code == 2
    assert started == []
