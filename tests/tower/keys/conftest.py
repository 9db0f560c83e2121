from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from tests.identity_world import World


@pytest.fixture
async def world(tmp_path: Path) -> AsyncIterator[World]:
    async with World.opened(tmp_path) as opened:
        yield opened
