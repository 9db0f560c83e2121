"""A real Tower, with its agents, on a clock that the test sets and within limits that a test can reach.

A folder that their Python looks into at its start holds the change. Tasks and apps do not see it.
"""

from __future__ import annotations

import json
import os
import struct
from pathlib import Path

_CHANGE = '''
"""Found by Python at the start of a Tower or an agent that a test alters."""

import json
import mmap
import struct
import sys
import time
from pathlib import Path

HERE = Path(__file__).parent


def alter():
    import tower.clock
    import tower.settings

    with (HERE / "clock").open("rb") as file:
        ahead = mmap.mmap(file.fileno(), 8, access=mmap.ACCESS_READ)
    read = struct.Struct("d").unpack_from
    tower.clock.SystemClock.now = lambda self: time.time() + read(ahead)[0]
    limits = json.loads((HERE / "limits.json").read_text())
    before = tower.settings.Settings.__init__
    tower.settings.Settings.__init__ = lambda self, *a, **named: before(self, *a, **{**limits, **named})


if any(word.endswith(("/tower", "tower.agent")) for word in sys.orig_argv):
    alter()
'''


class Altered:
    """The change, in a folder of its own."""

    def __init__(self, folder: Path, **limits: object) -> None:
        """`limits` are settings of Tower's that its command line does not have."""
        self._folder = folder
        folder.mkdir()
        self._clock = folder / "clock"
        self.ahead = 0.0
        self.advance(0.0)
        (folder / "limits.json").write_text(json.dumps(limits))
        (folder / "sitecustomize.py").write_text(_CHANGE)

    def advance(self, seconds: float) -> None:
        """Let so much time pass, for Tower and its agents."""
        self.ahead += seconds
        with self._clock.open("r+b" if self._clock.exists() else "wb") as file:
            os.pwrite(file.fileno(), struct.pack("d", self.ahead), 0)

    @property
    def before(self) -> tuple[str, ...]:
        """What to put before the command."""
        path = os.pathsep.join(filter(None, (str(self._folder), os.environ.get("PYTHONPATH"))))
        return ("env", f"PYTHONPATH={path}")
