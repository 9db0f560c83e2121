"""Where a declaration was written: the module and the file of the first caller outside the SDK."""

from __future__ import annotations

import sys
from dataclasses import dataclass
from pathlib import Path

_OURS = ("flyte", "flytekit")
"""The SDK and its other face."""


@dataclass(frozen=True, slots=True)
class Origin:
    """A module by its name, and the file it was loaded from (None at a prompt)."""

    module: str
    file: Path | None


def origin() -> Origin:
    """The innermost frame that does not belong to the SDK."""
    frame = sys._getframe(1)
    while frame.f_back is not None and _is_ours(frame.f_globals.get("__name__", "")):
        frame = frame.f_back
    file = frame.f_globals.get("__file__")
    return Origin(
        module=frame.f_globals.get("__name__", "__main__"),
        file=Path(file).absolute() if file else None,
    )


def _is_ours(module: str) -> bool:
    return module.partition(".")[0] in _OURS
