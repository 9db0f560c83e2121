"""The keys that this machine's user made: `flyte get api-key` can show them again, the server cannot.

A JSON file in `$FLYTE_HOME` or `~/.flyte`, readable by its owner alone. A key is told apart by the endpoint
it belongs to and the id that the server gave it; a key made again under the same name replaces the old one.
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import stat
import tempfile
from collections.abc import Iterator
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

from flyte._config import Endpoint
from flyte.errors import FlyteError, InitializationError

VERSION = 1
MAX_BYTES = 1024 * 1024


class KeystoreError(FlyteError):
    """The file of keys cannot be used as it is."""

    default_code = "keystore"


@dataclass(frozen=True, slots=True)
class StoredKey:
    """A key as it was made. `default` marks the one to use when `FLYTE_API_KEY` is not set."""

    endpoint: str
    name: str
    id: str
    user: str
    key: str = field(repr=False)
    default: bool = False


def folder() -> Path:
    """`$FLYTE_HOME`, or `.flyte` in the home directory."""
    named = os.environ.get("FLYTE_HOME")
    return Path(named).expanduser() if named else Path.home() / ".flyte"


class Keystore:
    """The file of keys.

    :param path: by default `keys.json` in `folder()`.
    """

    def __init__(self, path: Path | None = None) -> None:
        self.path = path or folder() / "keys.json"

    def find(self, endpoint: Endpoint, *, name: str) -> StoredKey | None:
        """The key of that name for that endpoint."""
        return next((key for key in self._at(endpoint) if key.name == name), None)

    def default(self, endpoint: Endpoint) -> StoredKey | None:
        """The one key marked as default for that endpoint; None when there is not exactly one."""
        marked = [key for key in self._at(endpoint) if key.default]
        return marked[0] if len(marked) == 1 else None

    def add(self, key: StoredKey) -> None:
        """Keep a key. It replaces one of the same name and endpoint; a new default unmarks the old one."""
        place = Endpoint.parse(key.endpoint, insecure=key.endpoint.startswith("http://"))
        with self._alone():
            others = [
                replace(known, default=known.default and not (key.default and _is_at(known, place)))
                for known in self._read()
                if not (known.name == key.name and _is_at(known, place))
            ]
            self._write([*others, key])

    def remove(self, endpoint: Endpoint, *, name: str) -> bool:
        """Forget a key; whether there was one."""
        with self._alone():
            known = self._read()
            left = [key for key in known if not (key.name == name and _is_at(key, endpoint))]
            if len(left) < len(known):
                self._write(left)
        return len(left) < len(known)

    @contextlib.contextmanager
    def _alone(self) -> Iterator[None]:
        """Keep other commands of this user from changing the file meanwhile."""
        try:
            self.path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            descriptor = os.open(self.path.with_suffix(".lock"), os.O_CREAT | os.O_RDWR | os.O_CLOEXEC, 0o600)
        except OSError as error:
            raise KeystoreError(f"{self.path} cannot be written: {error.strerror}.") from None
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX)
            yield
        finally:
            os.close(descriptor)

    def _at(self, endpoint: Endpoint) -> list[StoredKey]:
        return [key for key in self._read() if _is_at(key, endpoint)]

    def _read(self) -> list[StoredKey]:
        try:
            descriptor = os.open(self.path, os.O_RDONLY | os.O_CLOEXEC)
        except FileNotFoundError:
            return []
        except OSError as error:
            raise KeystoreError(f"{self.path} cannot be read: {error.strerror}.") from None
        with os.fdopen(descriptor, "rb") as stream:
            status = os.fstat(stream.fileno())
            if status.st_uid != os.getuid() or stat.S_IMODE(status.st_mode) & 0o077:
                raise KeystoreError(
                    f"{self.path} can be read or written by others.",
                    hint=f"If that was not intended, make new keys; then `chmod 600 {self.path}`.",
                )
            raw = stream.read(MAX_BYTES + 1)
        try:
            document: Any = json.loads(raw) if len(raw) <= MAX_BYTES else None
            if document["version"] != VERSION:
                raise KeystoreError(f"{self.path} was written by another version of flyte.")
            return [StoredKey(**entry) for entry in document["keys"]]
        except (ValueError, KeyError, TypeError):
            raise KeystoreError(
                f"{self.path} is damaged.", hint="Move it away; the keys in it stay valid until deleted."
            ) from None

    def _write(self, keys: list[StoredKey]) -> None:
        document = {"version": VERSION, "keys": [asdict(key) for key in keys]}
        try:
            # mkstemp makes the file 0600, and the rename puts it in place whole.
            descriptor, temporary = tempfile.mkstemp(dir=self.path.parent, prefix=".keys-")
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
            raise KeystoreError(f"{self.path} cannot be written: {error.strerror}.") from None


def _is_at(key: StoredKey, endpoint: Endpoint) -> bool:
    """Whether a key belongs to the very endpoint: a key must not travel to another scheme either."""
    try:
        stored = Endpoint.parse(key.endpoint, insecure=key.endpoint.startswith("http://"))
    except InitializationError:
        return False
    return stored.scheme == endpoint.scheme and stored.same_place(endpoint)
