"""Paths below a folder of running work, which may have put a link anywhere: each step is opened by itself.

What is made there belongs to the owner of the folder.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

PLAIN = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
"""To open what is there: a link is an error, and a pipe without a writer does not wait."""

NEW = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
"""To make a file: one that is there is an error, since it may be a link or somebody's open file."""

FOLDER = PLAIN | os.O_DIRECTORY


@contextmanager
def below(folder: Path, *steps: str, make: bool = False) -> Iterator[int]:
    """A descriptor of what stands below `folder` under these names; with `make` folders that lack are made.

    Raises OSError, also for a link on the way.
    """
    descriptor = os.open(folder, FOLDER)
    try:
        for step in steps:
            if make:
                with suppress(FileExistsError):
                    os.mkdir(step, 0o700, dir_fd=descriptor)
                    give(step, descriptor)
            found = os.open(step, PLAIN, dir_fd=descriptor)
            os.close(descriptor)
            descriptor = found
        yield descriptor
    finally:
        os.close(descriptor)


def give(name: str, place: int) -> None:
    """Make what was made in a folder its owner's: where Tower is root, the attempt is somebody else."""
    owner = os.fstat(place)
    if owner.st_uid != os.geteuid():
        os.chown(name, owner.st_uid, owner.st_gid, dir_fd=place, follow_symlinks=False)
