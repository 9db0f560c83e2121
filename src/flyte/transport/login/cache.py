"""The logins of this machine's user: `logins.json` in `$FLYTE_HOME` or `~/.flyte`, for its owner alone.

One entry for each control plane, told apart by scheme, host and port: a token never travels to another one.
With `FLYTE_KEYRING=1` and the package `keyring` the secrets lie in the system's keyring instead.
"""

from __future__ import annotations

import contextlib
import importlib
import json
import os
import stat
import tempfile
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

from flyte._config import Endpoint, flag
from flyte.errors import FlyteError, InitializationError, UnavailableError

VERSION = 1
MAX_BYTES = 1024 * 1024
LOCK_SECONDS = 60.0
_SERVICE = "flyte"
_SECRETS = ("access_token", "refresh_token", "key")


class LoginCacheError(FlyteError):
    """The file of logins cannot be used as it is."""

    default_code = "logins"


@dataclass(frozen=True, slots=True)
class Entry:
    """A login at one control plane, or an API key kept for it.

    :ivar expires_at: when the access token ends, seconds since the epoch.
    """

    endpoint: str
    subject: str
    access_token: str = field(default="", repr=False)
    refresh_token: str = field(default="", repr=False)
    expires_at: float = 0.0
    scope: str = ""
    key: str = field(default="", repr=False)
    in_keyring: bool = False

    @property
    def bearer(self) -> str:
        """What a call carries."""
        return self.key or self.access_token

    def fresh(self, seconds: float) -> bool:
        """Whether it holds for that long still, as far as this machine's clock knows."""
        return bool(self.key) or self.expires_at - time.time() > seconds


def folder() -> Path:
    """`$FLYTE_HOME`, or `.flyte` in the home directory."""
    named = os.environ.get("FLYTE_HOME")
    return Path(named).expanduser() if named else Path.home() / ".flyte"


class LoginCache:
    """The file.

    :param path: by default `logins.json` in `folder()`.
    """

    def __init__(self, path: Path | None = None) -> None:
        self.path = path or folder() / "logins.json"

    def find(self, endpoint: Endpoint) -> Entry | None:
        """The login for this very endpoint. Raises LoginCacheError."""
        found = next((entry for entry in self._read() if _is_at(entry, endpoint)), None)
        if found is None or not found.in_keyring:
            return found
        secrets = _keyring().get_password(_SERVICE, found.endpoint)
        known: dict[str, Any] = json.loads(secrets or "null") or {}
        if not known:
            return None
        return replace(
            found,
            access_token=str(known["access_token"]),
            refresh_token=str(known["refresh_token"]),
            key=str(known["key"]),
        )

    def all(self) -> list[Entry]:
        """Every entry, secrets of the keyring left out."""
        return self._read()

    def put(self, entry: Entry) -> None:
        """Keep a login in place of an earlier one at the same endpoint."""
        place = _place(entry)
        stored = entry
        if flag("FLYTE_KEYRING"):
            secrets = {name: getattr(entry, name) for name in _SECRETS}
            _keyring().set_password(_SERVICE, entry.endpoint, json.dumps(secrets))
            stored = replace(entry, access_token="", refresh_token="", key="", in_keyring=True)
        self._write([*(known for known in self._read() if not _is_at(known, place)), stored])

    def remove(self, endpoint: Endpoint) -> bool:
        """Forget a login; whether there was one."""
        known = self._read()
        left = [entry for entry in known if not _is_at(entry, endpoint)]
        for entry in known:
            if entry.in_keyring and _is_at(entry, endpoint):
                with contextlib.suppress(Exception):
                    _keyring().delete_password(_SERVICE, entry.endpoint)
        if len(left) == len(known):
            return False
        self._write(left)
        return True

    @contextlib.contextmanager
    def locked(self) -> Iterator[None]:
        """Alone among all processes and threads of this user. Blocks: call it outside the event loop."""
        import fcntl

        self._make_folder()
        descriptor = os.open(
            self.path.with_suffix(".lock"), os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600
        )
        try:
            deadline = time.monotonic() + LOCK_SECONDS
            while True:
                try:
                    fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
                    break
                except BlockingIOError:
                    if time.monotonic() > deadline:
                        raise UnavailableError("Another process has been refreshing the login.") from None
                    time.sleep(0.02)
            yield
        finally:
            os.close(descriptor)

    def _read(self) -> list[Entry]:
        try:
            descriptor = os.open(self.path, os.O_RDONLY | os.O_CLOEXEC)
        except FileNotFoundError:
            return []
        except OSError as error:
            raise LoginCacheError(f"{self.path} cannot be read: {error.strerror}.") from None
        with os.fdopen(descriptor, "rb") as stream:
            status = os.fstat(stream.fileno())
            if status.st_uid != os.getuid() or stat.S_IMODE(status.st_mode) & 0o077:
                raise LoginCacheError(
                    f"{self.path} can be read or written by others.",
                    hint=f"Run `flyte logout` and `flyte login` after `chmod 600 {self.path}`.",
                )
            raw = stream.read(MAX_BYTES + 1)
        try:
            document: Any = json.loads(raw) if len(raw) <= MAX_BYTES else None
            if document["version"] != VERSION:
                raise LoginCacheError(f"{self.path} was written by another version of flyte.")
            return [Entry(**entry) for entry in document["logins"]]
        except (ValueError, KeyError, TypeError):
            raise LoginCacheError(
                f"{self.path} is damaged.", hint="Move it away and sign in again."
            ) from None

    def _write(self, entries: list[Entry]) -> None:
        document = {"version": VERSION, "logins": [asdict(entry) for entry in entries]}
        self._make_folder()
        try:
            # mkstemp makes the file 0600, and the rename puts it in place whole.
            descriptor, temporary = tempfile.mkstemp(dir=self.path.parent, prefix=".logins-")
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
            raise LoginCacheError(f"{self.path} cannot be written: {error.strerror}.") from None

    def _make_folder(self) -> None:
        try:
            self.path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        except OSError as error:
            raise LoginCacheError(f"{self.path.parent} cannot be made: {error.strerror}.") from None


def _keyring() -> Any:
    try:
        keyring = importlib.import_module("keyring")
    except ImportError:
        raise LoginCacheError(
            "FLYTE_KEYRING asks for the system's keyring, and the package keyring is not installed."
        ) from None
    return keyring


def _place(entry: Entry) -> Endpoint:
    return Endpoint.parse(entry.endpoint, insecure=entry.endpoint.startswith("http://"))


def _is_at(entry: Entry, endpoint: Endpoint) -> bool:
    try:
        stored = _place(entry)
    except InitializationError:
        return False
    return stored.scheme == endpoint.scheme and stored.same_place(endpoint)
