"""What holds for every test, and a real Tower for the suites that need one: on loopback, until they end."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
import structlog
from hypothesis import HealthCheck, settings
from tests.flyte.login.person import give_password
from tests.tower_process import Tower

# A property holds or does not; how long a busy machine takes for an example says nothing about it.
settings.register_profile("untimed", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("untimed")

# What is logged where nothing set the log up: without the objects on the stack, which take long to print.
structlog.configure(
    processors=[
        structlog.contextvars.merge_contextvars,
        structlog.processors.add_log_level,
        structlog.processors.format_exc_info,
        structlog.processors.KeyValueRenderer(key_order=["event"]),
    ]
)


@pytest.fixture(scope="session")
def tower(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Tower]:
    """A Tower on plain HTTP with users alice and bob (contributors), carol (viewer) and dave (no role)."""
    with Tower.started(tmp_path_factory.mktemp("tower")) as running:
        running.add_people()
        yield running


@pytest.fixture(scope="session")
def tower_tls(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Tower]:
    """The same over TLS with its own local authority."""
    with Tower.started(tmp_path_factory.mktemp("tower-tls"), "--tls") as running:
        running.add_people()
        yield running


@pytest.fixture(scope="session")
def town(tower: Tower) -> Tower:
    """The running Tower, where alice and bob have a password."""
    for name in ("alice", "bob"):
        give_password(tower, name)
    return tower


@pytest.fixture
def workspace(tmp_path: Path) -> Path:
    """An empty folder to write task and app files into."""
    return tmp_path
