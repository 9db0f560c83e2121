"""The audit chain of a home or of an exported file, looked at without a server and without any change."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from tower.clock import SystemClock
from tower.control import auditing
from tower.control.auditing import HEAD_FILE, prove_home
from tower.control.provenance import Tracing, document
from tower.control.proving import (
    LONGEST_LINE,
    Genuine,
    Proof,
    checkpoint_line,
    header,
    prove_export,
    read_export,
    record_line,
    signed_by_file,
    signed_by_us,
)
from tower.control.vouching import Vouched
from tower.control.vouching import kept as vouched
from tower.errors import Precondition
from tower.identity.signing import SigningKey
from tower.settings import Settings
from tower.store import audit
from tower.store.database import Database

__all__ = ["HEAD_FILE", "exported", "prove", "prove_end"]


def prove(
    home: Path, *, file: Path | None = None, key: Path | None = None, run: str | None = None
) -> tuple[Proof, dict[str, Any] | None]:
    """Look at the database of a home, or at an exported file, and at the chain of one run in it.

    `key` is a PEM file of the installation's public key; with it and a file no home is needed. What is found
    of the run is as `tower.control.provenance.document` has it, None when there is no such run.
    """
    tracing = None if run is None else Tracing(run)
    if file is not None:
        with file.open("rb") as lines:
            export = read_export(iter(lambda: lines.readline(LONGEST_LINE + 1), b""))
        genuine = _genuine(home, key, export.keys)
        proof = prove_export(export, genuine=genuine, tracing=tracing)
    else:
        genuine = _genuine(home, key, vouched(home))
        _signing_key(home)
        database = _open(home)
        try:
            proof = database.read_now(
                lambda reader: prove_home(home, reader, genuine=genuine, tracing=tracing)
            )
        finally:
            asyncio.run(database.close())
    found = None if tracing is None else tracing.found()
    return proof, None if found is None else document(found, signed=proof.signed)


def prove_end(home: Path) -> Proof:
    """Look at the end of the chain of a home, from its last checkpoint on."""
    genuine = _genuine(home, None, vouched(home))
    database = _open(home)
    try:
        return database.read_now(lambda reader: auditing.prove_end(home, reader, genuine=genuine))
    finally:
        asyncio.run(database.close())


def _genuine(home: Path, key: Path | None, keys: Iterable[Vouched]) -> Genuine:
    """A check of signatures by the key in a file, or the home's own, and by those that it vouches for."""
    return signed_by_us(_signing_key(home), keys) if key is None else signed_by_file(key, keys)


def exported(home: Path) -> Iterator[str]:
    """The chain of a home as the lines of an export."""
    database = _open(home)
    try:
        key_id, keys = _signing_key(home).kid, vouched(home)
        entries, signed = database.read_now(
            lambda reader: (list(audit.whole(reader)), audit.checkpoints(reader))
        )
        after = entries[0].seq - 1 if entries else 0
        checkpoints = {each.seq: each for each in signed}
        yield _line(header(after, key_id=key_id, keys=keys))
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
