"""What `tower` says to whoever mistypes: the thing by its name, and what to do."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from tower.cli import administration, cli

Run = Callable[..., Result]


@pytest.fixture
def run(monkeypatch: pytest.MonkeyPatch) -> Run:
    """The command line, where nobody starts a server in the same breath."""
    monkeypatch.setattr(administration, "FOUNDING_SECONDS", 0.0)
    runner = CliRunner()
    return lambda *arguments: runner.invoke(cli, list(arguments), prog_name="tower")


@pytest.mark.parametrize(
    "command", [("users", "list"), ("users", "add", "eve", "--role", "admin"), ("keys", "list")], ids=" ".join
)
def test_only_up_makes_a_home(run: Run, tmp_path: Path, command: tuple[str, ...]) -> None:
    """A mistyped home is no new Tower with an administrator and a key in it."""
    for wrong in (tmp_path / "not-there", tmp_path):
        done = run("--home", str(wrong), *command)
        assert done.exit_code == 4
        assert f"There is no Tower in {wrong}." in done.stderr
        assert "`tower up`" in done.stderr
        assert "--home" in done.stderr
        assert done.stdout == ""
    assert list(tmp_path.iterdir()) == []


def test_a_command_waits_for_a_home_that_is_being_made(
    run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """`tower up & tower users list` works."""
    home = administration.Administration(tmp_path / "home")
    waited: list[float] = []

    def made_meanwhile(seconds: float) -> None:
        waited.append(seconds)
        home.found()

    answers = iter([None, (200, b'{"users": [], "next": null, "bindings": []}')])
    monkeypatch.setattr(administration, "FOUNDING_SECONDS", 60.0)
    monkeypatch.setattr(administration.time, "sleep", made_meanwhile)
    monkeypatch.setattr(administration.Administration, "_over_socket", lambda *_: next(answers, (200, b"{}")))
    monkeypatch.setattr(
        administration.Administration, "_in_process", lambda *_: (200, b'{"keys": [], "next": null}')
    )
    assert run("--home", str(home.home), "keys", "list").exit_code == 0
    assert len(waited) == 1


def test_help_tells_the_exit_statuses(run: Run) -> None:
    shown = run("--help").stdout
    assert "Exit status:" in shown
    for line in ("0  done", "3  refused", "4  not found", "6  what was checked does not hold"):
        assert line in shown


def test_wrong_usage_is_a_line_and_no_box(run: Run) -> None:
    done = run("users", "add")
    assert done.exit_code == 2
    assert "Error: Missing argument 'NAME'." in done.stderr
    assert "─" not in done.stderr


def test_a_bug_is_a_line_as_well(run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(*_: object) -> None:
        raise LookupError("nothing there")

    monkeypatch.setattr(administration.Administration, "call", broken)
    done = run("--home", str(tmp_path), "users", "list")
    assert done.exit_code == 1
    assert (
        done.stderr
        == "tower: It failed unexpectedly: LookupError: nothing there. TOWER_DEBUG=1 shows where.\n"
    )
    monkeypatch.setenv("TOWER_DEBUG", "1")
    assert isinstance(run("--home", str(tmp_path), "users", "list").exception, LookupError)
