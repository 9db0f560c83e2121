"""Every test here runs on both event loops: Tower runs on uvloop, and must also run without it."""

from __future__ import annotations

import asyncio
import subprocess
import sys
from collections.abc import Callable, Mapping
from pathlib import Path

import pytest
import uvloop
from tests.suites.executor_suite import Jobs

STAND_IN = Path(__file__).with_name("standin")


def pytest_asyncio_loop_factories(
    config: pytest.Config, item: pytest.Item
) -> Mapping[str, Callable[[], asyncio.AbstractEventLoop]]:
    """The two loops."""
    return {"asyncio": asyncio.new_event_loop, "uvloop": uvloop.new_event_loop}


@pytest.fixture(scope="session")
def python(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An environment that holds the stand-in runtime alone."""
    folder = tmp_path_factory.mktemp("environment")
    folder.chmod(0o755)
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", folder], check=True)
    (site,) = folder.glob("lib/python*/site-packages")
    (site / "standin.pth").write_text(f"{STAND_IN}\n")
    return folder / "bin" / "python"


@pytest.fixture
def jobs(tmp_path: Path, python: Path) -> Jobs:
    return Jobs(tmp_path, python)
