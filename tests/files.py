"""What lies in a folder in which others work: files and folders come and go while one looks."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path


def below(folder: Path) -> list[Path]:
    """The files of a folder and its folders, without those that went while they were looked for."""
    found = [Path(place, name) for place, _, names in os.walk(folder) for name in names]
    return [path for path in found if path.is_file()]


def contents(folder: Path) -> Iterator[tuple[Path, bytes]]:
    """Each of them that can be read, with what is in it."""
    for path in below(folder):
        try:
            yield path, path.read_bytes()
        except OSError:
            continue
