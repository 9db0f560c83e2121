"""The keys that this machine's user made: `flyte get api-key` can show them again, the server cannot.

A JSON file in `$FLYTE_HOME` or `~/.flyte`, readable by its owner alone. A key is told apart by the endpoint
it belongs to and the id that the server gave it; a key made again under the same name replaces the old one.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass, field, replace
from pathlib import Path

from flyte._config import Endpoint
from flyte.errors import FlyteError
from flyte.transport.login.records import PrivateRecords, folder, is_at, place


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


class Keystore:
    """The file of keys.

    :param path: by default `keys.json` in `folder()`.
    """

    def __init__(self, path: Path | None = None) -> None:
        self.path = path or folder() / "keys.json"
        self._file = PrivateRecords(
            self.path,
            noun="keys",
            error=KeystoreError,
            if_open=f"If that was not intended, make new keys; then `chmod 600 {self.path}`.",
            if_damaged="Move it away; the keys in it stay valid until deleted.",
        )

    def find(self, endpoint: Endpoint, *, name: str, user: str) -> StoredKey | None:
        """The key of that name and person for that endpoint."""
        return next((key for key in self._at(endpoint) if (key.name, key.user) == (name, user)), None)

    def check(self) -> None:
        """Raise KeystoreError where the file cannot be used."""
        self._read()

    def default(self, endpoint: Endpoint) -> StoredKey | None:
        """The one key marked as default for that endpoint; None when there is not exactly one."""
        marked = [key for key in self._at(endpoint) if key.default]
        return marked[0] if len(marked) == 1 else None

    def add(self, key: StoredKey) -> None:
        """Keep a key in place of one of the same person, name and endpoint; a new default unmarks the old."""
        there = place(key.endpoint)
        with self._file.locked():
            others = [
                replace(known, default=known.default and not (key.default and is_at(known.endpoint, there)))
                for known in self._read()
                if not ((known.name, known.user) == (key.name, key.user) and is_at(known.endpoint, there))
            ]
            self._write([*others, key])

    def remove(self, endpoint: Endpoint, *, name: str, user: str) -> bool:
        """Forget a key; whether there was one."""
        with self._file.locked():
            known = self._read()
            left = [
                key
                for key in known
                if not ((key.name, key.user) == (name, user) and is_at(key.endpoint, endpoint))
            ]
            if len(left) < len(known):
                self._write(left)
        return len(left) < len(known)

    def _at(self, endpoint: Endpoint) -> list[StoredKey]:
        return [key for key in self._read() if is_at(key.endpoint, endpoint)]

    def _read(self) -> list[StoredKey]:
        try:
            return [StoredKey(**record) for record in self._file.read()]
        except TypeError:
            raise self._file.damaged() from None

    def _write(self, keys: list[StoredKey]) -> None:
        self._file.write([asdict(key) for key in keys])
