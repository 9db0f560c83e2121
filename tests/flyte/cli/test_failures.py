"""How an error of the SDK is shown."""

from __future__ import annotations

import errno

import pytest
import rich_click as click
from click.testing import CliRunner

from flyte import errors
from flyte.cli._command import Group
from flyte.cli._exits import Exit, Failed


def test_the_end_of_an_apps_log_keeps_its_lines(capsys: pytest.CaptureFixture[str]) -> None:
    said = "The app hook does not come up: it ended.\n  File \"app.py\", line 3\n\x1b[2JKeyError: 'x'"
    Failed.of(errors.DeploymentError(said)).show()
    assert capsys.readouterr().err.splitlines() == [
        "Error: The app hook does not come up: it ended.",
        '    File "app.py", line 3',
        "   [2JKeyError: 'x'",
    ]


def test_every_other_error_is_one_line(capsys: pytest.CaptureFixture[str]) -> None:
    failed = Failed.of(errors.RemoteNotFoundError("There is no\nrun r1", hint="Look again."))
    failed.show()
    assert capsys.readouterr().err == "Error: There is no run r1. Look again.\n"
    assert failed.exit_code == Exit.NOT_FOUND


def test_a_reader_that_has_read_enough_is_no_error() -> None:
    @click.group(cls=Group)
    def tool() -> None: ...

    @tool.command()
    def talk() -> None:
        raise BrokenPipeError(errno.EPIPE, "Broken pipe")

    done = CliRunner().invoke(tool, ["talk"])
    assert (done.exit_code, done.output) == (1, "")
