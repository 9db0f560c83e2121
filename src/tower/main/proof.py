"""The audit chain of a home or of an exported file, looked at without a server and without any change."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Iterator
from pathlib import Path

from tower.clock import SystemClock
from tower.control.auditing import HEAD_FILE, prove_home
from tower.control.proving import (
    FORM,
    Proof,
    checkpoint_line,
    prove_export,
    read_export,
    record_line,
    signed_by_file,
    signed_by_us,
)
from tower.errors import Precondition
from tower.identity.signing import SigningKey
from tower.settings import Settings
from tower.store import audit
from tower.store.database import Database

__all__ = ["HEAD_FILE", "exported", "prove"]


def prove(home: Path, *, file: Path | None = None, key: Path | None = None) -> Proof:
    """Look at the database of a home, or at an exported file. `key` is a PEM file of the public key."""
    own = None if key is None else signed_by_file(key)
    if file is not None:
        with file.open() as lines:
            export = read_export(lines)
        return prove_export(export, genuine=own or signed_by_us(_signing_key(home)))
    _signing_key(home)
    database = _open(home)
    try:
        return database.read_now(lambda reader: prove_home(home, reader, genuine=own))
    finally:
        asyncio.run(database.close())


def exported(home: Path) -> Iterator[str]:
    """The chain of a home as the lines of an export."""
    database = _open(home)
    try:
        key_id = _signing_key(home).kid
        entries, signed = database.read_now(
            lambda reader: (list(audit.whole(reader)), audit.checkpoints(reader))
        )
        after = entries[0].seq - 1 if entries else 0
        checkpoints = {each.seq: each for each in signed}
        yield _line({"type": "export", "form": FORM, "after": after, "key_id": key_id})
        if after in checkpoints:
            yield _line(checkpoint_line(checkpoints[after]))
        for entry in entries:
            yield _line(record_line(entry))
            if entry.seq in checkpoints:
                yield _line(checkpoint_line(checkpoints[entry.seq]))
        yield _line({"type": "end", "seq": entries[-1].seq if entries else after})
    finally:
        asyncio.run(database.close())


def _open(home: Path) -> Database:
    path = Settings(home=home).database
    if not path.exists():
        raise Precondition(f"There is no database in {home}.", hint="Name the home with --home.")
    return Database.open(path, clock=SystemClock(), migrate=False, read_only=True)


def _signing_key(home: Path) -> SigningKey:
    path = home / "signing.key"
    if not path.exists():
        raise Precondition(f"There is no signing key in {home}.", hint="Name the home, or give --key.")
    return SigningKey.load_or_create(path)


def _line(value: dict[str, object]) -> str:
    return json.dumps(value, separators=(",", ":"), allow_nan=False) + "\n"
