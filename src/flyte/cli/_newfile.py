"""A file that a command writes: new, its owner's alone, and there only when all of it is."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TextIO

import rich_click as click


@contextmanager
def new_file(path: Path) -> Iterator[TextIO]:
    """Open it for the block. Raises click.BadParameter where it is there already or cannot be."""
    try:
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    except FileExistsError:
        raise click.BadParameter(f"{path} is there already. Name a new file.") from None
    except OSError as error:
        raise click.BadParameter(f"{path} cannot be written: {error.strerror}.") from None
    try:
        with open(descriptor, "w", encoding="utf-8") as file:
            yield file
    except BaseException:
        path.unlink(missing_ok=True)
        raise
