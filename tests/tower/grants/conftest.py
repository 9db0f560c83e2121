from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from tests.rpc_world import RpcWorld


@pytest.fixture
async def rpc(tmp_path: Path) -> AsyncIterator[RpcWorld]:
    async with RpcWorld.opened(tmp_path) as opened:
        yield opened
