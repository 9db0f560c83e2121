"""Files that Tower and the runtime of the official SDK hand each other, in a folder of the running attempt.

The runtime writes the inputs of a child to `run/<child>/inputs.pb` before it asks for the child, and reads
the outputs of one that succeeded from a folder that Tower names. The folder is the task's own, so nothing in
it is believed: every step of a path is opened without following a link, and only below that folder.
"""

from __future__ import annotations

import os
import re
import stat
from collections.abc import Awaitable, Callable
from contextlib import suppress
from pathlib import Path
from typing import Protocol
from urllib.parse import urlsplit

from tower.control.grounded import NEW, PLAIN, below, give
from tower.errors import Exhausted, Invalid, Unavailable
from tower.store.runs import ActionRow

RUN = "run"
RESULTS = "results"
INPUTS = "inputs.pb"
OUTPUTS = "outputs.pb"
_LARGEST_OUTPUTS = 64 * 1024 * 1024
_STEP = re.compile(r"[A-Za-z0-9][A-Za-z0-9_-]{0,63}")


class Blobs(Protocol):
    """Where outputs lie; `tower.store.blobs.Blobs` is one."""

    async def get(self, key: str, /, *, limit: int) -> bytes:
        """A content."""


Change = Callable[[bytes], Awaitable[bytes]]
"""Makes other outputs of outputs."""


class Handovers:
    """One per process: the folders of the attempts of official tasks that run now."""

    def __init__(self, *, blobs: Blobs) -> None:
        self._blobs = blobs
        self._folders: dict[str, Path] = {}

    def open(self, attempt: str, folder: Path) -> None:
        """An attempt (`project/domain/run/action/attempt`) of an official task starts."""
        self._folders[attempt] = folder

    def close(self, attempt: str) -> None:
        """It has ended."""
        self._folders.pop(attempt, None)

    def hosts(self, attempt: str) -> bool:
        """Whether this attempt is one of an official task that runs now."""
        return attempt in self._folders

    def inputs(self, attempt: str, child: str, uri: str, *, limit: int) -> bytes:
        """What the attempt wrote as the inputs of a child. Raises Invalid for anything but that very file."""
        folder = self.folder(attempt)
        said = urlsplit(uri)
        if said.scheme not in {"", "file"} or said.netloc or Path(said.path) != folder / RUN / child / INPUTS:
            raise Invalid("The inputs of the action are not where this run keeps them.")
        try:
            with below(folder, RUN, _named(child)) as place:
                descriptor = os.open(INPUTS, PLAIN, dir_fd=place)
                facts = os.fstat(descriptor)
                if not stat.S_ISREG(facts.st_mode) or facts.st_nlink > 1:
                    os.close(descriptor)
                    raise Invalid("The inputs of the action are no plain file.")
                with os.fdopen(descriptor, "rb") as file:  # of a folder that would leave the descriptor
                    data = file.read(limit + 1)
        except OSError as error:
            raise Invalid("The inputs of the action cannot be read.", cause=str(error)) from error
        if len(data) > limit:
            raise Exhausted(f"The inputs are larger than {limit} bytes.")
        return data

    async def outputs(self, attempt: str, row: ActionRow, *, change: Change | None = None) -> str:
        """Hand the outputs of a child that succeeded to the attempt: the folder where they lie now.

        They are written as `change` makes them.
        """
        folder = self.folder(attempt)
        data = await self._blobs.get(row.outputs_key, limit=_LARGEST_OUTPUTS)
        if change is not None:
            data = await change(data)
        try:
            with below(folder, RESULTS, _named(row.action), make=True) as place:
                # a fresh file each time: one that is there may be a link, or somebody's open file
                draft = f".{OUTPUTS}.draft"
                _remove(draft, place)
                descriptor = os.open(draft, NEW, 0o600, dir_fd=place)
                with os.fdopen(descriptor, "wb") as file:
                    file.write(data)
                give(draft, place)
                os.replace(draft, OUTPUTS, src_dir_fd=place, dst_dir_fd=place)
        except OSError as error:
            raise Unavailable("The outputs of a child could not be handed over.", cause=str(error)) from error
        return str(folder / RESULTS / row.action)

    def folder(self, attempt: str) -> Path:
        """The folder of an attempt. Raises Invalid when it has none."""
        folder = self._folders.get(attempt)
        if folder is None:
            raise Invalid("This attempt has no folder of its own.")
        return folder


def _named(step: str) -> str:
    """The name of an action as a step of a path. Raises Invalid."""
    if not _STEP.fullmatch(step):
        raise Invalid("That is no name for an action.")
    return step


def _remove(name: str, place: int) -> None:
    with suppress(FileNotFoundError):
        os.unlink(name, dir_fd=place)
