"""What an idle Tower does not load."""

from __future__ import annotations

import subprocess
import sys

import pytest

_STARTED = """
import sys
from tower.cli.administration import composition_root, without
with without("pydantic.v1"):
    composition_root()
print(*sorted({name.partition('.')[0] for name in sys.modules}))
print(*sorted(sys.modules))
"""


@pytest.fixture(scope="module")
def loaded() -> set[str]:
    done = subprocess.run([sys.executable, "-c", _STARTED], capture_output=True, text=True, check=True)
    return set(done.stdout.split())


@pytest.mark.parametrize(
    "name",
    [
        "aiohttp",
        "rich",
        "alembic",
        "httpx",
        "jinja2",
        "prometheus_client",
        "pydantic.v1",
        "sqlalchemy.dialects.postgresql",
    ],
)
def test_an_idle_server_does_without(loaded: set[str], name: str) -> None:
    assert "tower" in loaded
    assert name not in loaded
