"""The logins of this machine's user: `logins.json` in `$FLYTE_HOME` or `~/.flyte`, for its owner alone.

One entry for each control plane, told apart by scheme, host and port: a token never travels to another one.
With `FLYTE_KEYRING=1` and the package `keyring` the secrets lie in the system's keyring instead.
"""

from __future__ import annotations

import importlib
import json
import time
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, suppress
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

from flyte._config import Endpoint, flag
from flyte.errors import FlyteError
from flyte.transport.credentials import Unwritten
from flyte.transport.login.records import PrivateRecords, folder, is_at, place

_SERVICE = "flyte"
_SECRETS = ("access_token", "refresh_token", "key")


class LoginCacheError(FlyteError):
    """The file of logins cannot be used as it is."""

    default_code = "logins"


@dataclass(frozen=True, slots=True)
class Entry(Unwritten):
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


class LoginCache:
    """The file.

    :param path: by default `logins.json` in `folder()`.
    """

    def __init__(self, path: Path | None = None) -> None:
        self.path = path or folder() / "logins.json"
        self._file = PrivateRecords(
            self.path,
            noun="logins",
            error=LoginCacheError,
            if_open=f"Run `flyte logout` and `flyte login` after `chmod 600 {self.path}`.",
            if_damaged="Move it away and sign in again.",
        )

    def find(self, endpoint: Endpoint) -> Entry | None:
        """The login for this very endpoint. Raises LoginCacheError."""
        found = next((entry for entry in self._read() if is_at(entry.endpoint, endpoint)), None)
        if found is None or not found.in_keyring:
            return found
        keyring = _keyring()
        with _asked(keyring):
            secrets = keyring.get_password(_SERVICE, found.endpoint)
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
        there = place(entry.endpoint)
        stored = entry
        if flag("FLYTE_KEYRING"):
            secrets = {name: getattr(entry, name) for name in _SECRETS}
            keyring = _keyring()
            with _asked(keyring):
                keyring.set_password(_SERVICE, entry.endpoint, json.dumps(secrets))
            stored = replace(entry, access_token="", refresh_token="", key="", in_keyring=True)
        self._write([*(known for known in self._read() if not is_at(known.endpoint, there)), stored])

    def remove(self, endpoint: Endpoint) -> bool:
        """Forget a login; whether there was one."""
        known = self._read()
        left = [entry for entry in known if not is_at(entry.endpoint, endpoint)]
        for entry in known:
            if entry.in_keyring and is_at(entry.endpoint, endpoint):
                with suppress(Exception):
                    _keyring().delete_password(_SERVICE, entry.endpoint)
        if len(left) == len(known):
            return False
        self._write(left)
        return True

    def locked(self) -> AbstractContextManager[None]:
        """Alone among all processes and threads of this user. Blocks: call it outside the event loop."""
        return self._file.locked()

    def _read(self) -> list[Entry]:
        try:
            return [Entry(**record) for record in self._file.read()]
        except TypeError:
            raise self._file.damaged() from None

    def _write(self, entries: list[Entry]) -> None:
        self._file.write([asdict(entry) for entry in entries])


def _keyring() -> Any:
    try:
        return importlib.import_module("keyring")
    except ImportError:
        raise LoginCacheError(
            "FLYTE_KEYRING asks for the system's keyring, and the package keyring is not installed.",
            hint="Install it beside flyte-tower, or unset FLYTE_KEYRING.",
        ) from None


@contextmanager
def _asked(keyring: Any) -> Iterator[None]:
    """Errors of the keyring, a locked or an absent one, as ours; they do not repeat what was stored."""
    try:
        yield
    except keyring.errors.KeyringError as error:
        raise LoginCacheError(
            f"The system's keyring does not answer ({type(error).__name__}).",
            hint="Unlock it, or unset FLYTE_KEYRING and sign in again.",
        ) from None
