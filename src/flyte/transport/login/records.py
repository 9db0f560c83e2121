"""A JSON file of records in `$FLYTE_HOME` or `~/.flyte`, readable by its owner alone and refused otherwise.

Each record belongs to one endpoint, told apart by scheme, host and port: nothing of it travels elsewhere.
"""

from __future__ import annotations

import contextlib
import json
import os
import stat
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from flyte._config import Endpoint
from flyte.errors import FlyteError, InitializationError, UnavailableError

VERSION = 1
MAX_BYTES = 1024 * 1024
LOCK_SECONDS = 60.0

Record = dict[str, Any]


def folder() -> Path:
    """`$FLYTE_HOME`, or `.flyte` in the home directory."""
    named = os.environ.get("FLYTE_HOME")
    return Path(named).expanduser() if named else Path.home() / ".flyte"


def place(endpoint: str) -> Endpoint:
    """The endpoint of a record. Raises InitializationError."""
    return Endpoint.parse(endpoint, insecure=endpoint.startswith("http://"))


def is_at(stored: str, endpoint: Endpoint) -> bool:
    """Whether a record belongs to the very endpoint: a secret must not travel to another scheme either."""
    try:
        found = place(stored)
    except InitializationError:
        return False
    return found.scheme == endpoint.scheme and found.same_place(endpoint)


class PrivateRecords:
    """One such file. Every fault is an error of the class that it was given, with what to do."""

    def __init__(
        self, path: Path, *, noun: str, error: type[FlyteError], if_open: str, if_damaged: str
    ) -> None:
        """`noun` is what the records are; `if_open` and `if_damaged` say what to do about such a file."""
        self.path = path
        self._noun = noun
        self._error = error
        self._if_open = if_open
        self._if_damaged = if_damaged

    def read(self) -> list[Record]:
        """The records; none when there is no file."""
        try:
            descriptor = os.open(self.path, os.O_RDONLY | os.O_CLOEXEC)
        except FileNotFoundError:
            return []
        except OSError as error:
            raise self._error(f"{self.path} cannot be read: {error.strerror}.") from None
        with os.fdopen(descriptor, "rb") as stream:
            status = os.fstat(stream.fileno())
            if status.st_uid != os.getuid() or stat.S_IMODE(status.st_mode) & 0o077:
                raise self._error(f"{self.path} can be read or written by others.", hint=self._if_open)
            raw = stream.read(MAX_BYTES + 1)
        try:
            document: Any = json.loads(raw) if len(raw) <= MAX_BYTES else None
            if document["version"] != VERSION:
                raise self._error(f"{self.path} was written by another version of flyte.")
            return [dict(record) for record in document[self._noun]]
        except (ValueError, KeyError, TypeError):
            raise self.damaged() from None

    def damaged(self) -> FlyteError:
        """The error for a file that holds something else."""
        return self._error(f"{self.path} is damaged.", hint=self._if_damaged)

    def write(self, records: list[Record]) -> None:
        """Put these records in place of all others, whole or not at all."""
        document = {"version": VERSION, self._noun: records}
        self._make_folder()
        try:
            # mkstemp makes the file 0600, and the rename puts it in place whole.
            descriptor, temporary = tempfile.mkstemp(dir=self.path.parent, prefix=f".{self._noun}-")
            try:
                with os.fdopen(descriptor, "w") as stream:
                    json.dump(document, stream, indent=1)
                    stream.flush()
                    os.fsync(stream.fileno())
                Path(temporary).replace(self.path)
            except BaseException:
                Path(temporary).unlink(missing_ok=True)
                raise
        except OSError as error:
            raise self._error(f"{self.path} cannot be written: {error.strerror}.") from None

    @contextlib.contextmanager
    def locked(self) -> Iterator[None]:
        """Alone among all processes and threads of this user. Blocks: call it outside the event loop."""
        import fcntl

        self._make_folder()
        flags = os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW
        try:
            descriptor = os.open(self.path.with_suffix(".lock"), flags, 0o600)
        except OSError as error:
            raise self._error(f"{self.path} cannot be written: {error.strerror}.") from None
        try:
            deadline = time.monotonic() + LOCK_SECONDS
            while True:
                try:
                    fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
                    break
                except BlockingIOError:
                    if time.monotonic() > deadline:
                        raise UnavailableError(f"Another process has been using {self.path}.") from None
                    time.sleep(0.02)
            yield
        finally:
            os.close(descriptor)

    def _make_folder(self) -> None:
        try:
            self.path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        except OSError as error:
            raise self._error(f"{self.path.parent} cannot be made: {error.strerror}.") from None
