"""What the tests of the SDK share: a recorded control plane, and a process without settings."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest
from tests.flyte.plane import Plane, serving

from flyte import _context, _init


@pytest.fixture
def plane() -> Iterator[Plane]:
    """A control plane on loopback, plain HTTP."""
    plane = Plane()
    with serving(plane) as place:
        plane.url = f"http://{place}"
        yield plane


@pytest.fixture
def bare(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[pytest.MonkeyPatch]:
    """No session, no setting in the environment, an empty home."""
    for name in list(os.environ):
        if name.startswith(("FLYTE", "_U_", "TOWER")) or name in ("RUN_NAME", "ACTION_NAME"):
            monkeypatch.delenv(name)
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setattr("flyte.transport.connect.backoff", lambda _attempt: 0.0)
    _init.reset()
    yield monkeypatch
    _init.reset()
    _context.enter_task(None)
    assert _context.caller() is None
