"""Files of secrets in memory: gone with the process that had them, and with a Tower that was killed."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from tower.control.reconcile.rooms import Rooms

pytestmark = pytest.mark.skipif(not os.path.ismount("/dev/shm"), reason="no place in memory here")


async def test_what_lies_in_memory_goes_with_the_room(tmp_path: Path) -> None:
    rooms = Rooms(tmp_path)
    kept, left = rooms.make(), rooms.make()
    assert kept.secrets != left.secrets
    for room in (kept, left):
        assert room.secrets.parent == Path("/dev/shm")
        assert not room.secrets.exists()
        room.secrets.mkdir(0o700)
        (room.secrets / "token").write_text("value")
        (room.secrets / "token").chmod(0o400)
    rooms.remove(left)
    await rooms.close()
    assert not left.secrets.exists()
    # as after a kill: another Tower of the same home clears it, one of another home does not
    Rooms(tmp_path / "elsewhere")
    assert kept.secrets.exists()
    Rooms(tmp_path)
    assert not kept.secrets.exists()
