"""What a template does for nobody leaves nothing behind, and cannot keep it from starting."""

from __future__ import annotations

import os
import tempfile
import threading
from pathlib import Path

import pytest

from flyte import _environment, _init
from flyte.runtime import rehearsal


def test_it_goes_through_a_whole_attempt_and_leaves_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    environment, open_before = dict(os.environ), set(os.listdir("/proc/self/fd"))
    declared = list(_environment.declared(kind="task"))

    rehearsal.act(2)  # what fails in it is an error here

    assert os.listdir(tmp_path) == []
    assert set(os.listdir("/proc/self/fd")) == open_before
    assert threading.active_count() == 1
    assert dict(os.environ) == environment
    assert list(_environment.declared(kind="task")) == declared
    assert _init._ambient is None


def test_a_machine_on_which_it_cannot_be_done_starts_templates_all_the_same(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "not-there"))
    rehearsal.rehearse()
