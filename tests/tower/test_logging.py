"""What the server's log leaves out. In a process of its own: logs are set up once for a process."""

from __future__ import annotations

import json
import subprocess
import sys

_PROGRAM = """
import logging
from tower.main.logging import configure
configure()
uvicorn = logging.getLogger("uvicorn.error")
uvicorn.error("ASGI callable returned without completing handshake.")
uvicorn.error("Something else.")
"""


def test_a_refused_websocket_is_no_error_but_other_words_of_uvicorn_are() -> None:
    done = subprocess.run([sys.executable, "-c", _PROGRAM], capture_output=True, text=True, check=True)
    assert [json.loads(line)["event"] for line in done.stderr.splitlines()] == ["Something else."]
