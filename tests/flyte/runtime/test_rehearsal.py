"""What a template does for nobody leaves nothing behind, and cannot keep it from starting."""

from __future__ import annotations

import subprocess
import sys
import tempfile
from pathlib import Path

import pytest

from flyte.runtime import rehearsal

_LOOK = """
import os, sys, tempfile, threading
from flyte import _environment, _init
from flyte.runtime import preload, rehearsal
tempfile.tempdir = sys.argv[1]

def seen():
    return (
        set(os.listdir("/proc/self/fd")), os.listdir("/proc/self/task"), dict(os.environ), os.getcwd(),
        list(_environment.declared(kind="task")), _init._ambient, os.listdir(sys.argv[1]),
    )

before = seen()
rehearsal.act(2)
assert seen() == before, (seen(), before)
"""


def test_it_goes_through_a_whole_attempt_and_leaves_nothing(tmp_path: Path) -> None:
    # in an interpreter of its own, as a template is: there nobody else opens files or starts threads
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", _LOOK, str(tmp_path)],
        capture_output=True,
        text=True,
        check=False,
    )
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


def test_a_machine_on_which_it_cannot_be_done_starts_templates_all_the_same(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "not-there"))
    rehearsal.rehearse()
