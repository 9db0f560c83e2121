"""What an environment of the official SDK gets besides its packages: the command that asks for a token."""

from __future__ import annotations

import hashlib
import re
from pathlib import Path

from tower.images.port import ASK_COMMAND

_RELEASE = re.compile(r"flyte==2(?:\.\d{1,4}){2}(?:(?:a|b|rc|\.dev|\.post)\d{1,4})?")
_SOURCE = Path(__file__).with_name("ask.py").read_bytes()
DIGEST = hashlib.sha256(_SOURCE).hexdigest()[:16]
"""Names the content of the command: an environment with another one is another environment."""


def known(requirement: str) -> bool:
    """Whether this names one release of the official SDK."""
    return _RELEASE.fullmatch(requirement) is not None


def equip(environment: Path) -> None:
    """Put the command beside the interpreter."""
    (environment / "bin" / ASK_COMMAND).write_bytes(_SOURCE)
