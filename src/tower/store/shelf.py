"""Small contents as rows: stored in the transaction of what refers to them, with one fsync for both."""

from __future__ import annotations

from dataclasses import replace

from sqlalchemy import bindparam, delete, func, select

from tower.store.database import Reader, Transaction
from tower.store.prepared import prepared
from tower.store.schema_blobs import blobs
from tower.store.transaction import Form

SMALL = 16 * 1024
"""Contents of at most so many bytes are rows, larger ones are files."""

_ROW = Form(blobs, ("key", "content", "created_at"))
_SAME = replace(_ROW, once=True)
_ONE = blobs.c.key == bindparam("one")
_CONTENT = prepared(select(blobs.c.content).where(_ONE))
_SIZE = prepared(select(func.length(blobs.c.content)).where(_ONE))
_DELETE = prepared(delete(blobs).where(_ONE))


def add(tx: Transaction, key: str, content: bytes) -> None:
    """Store a content under a key made of its digest: where the key is taken, this content is there."""
    tx.insert_row(_SAME, (key, content, tx.now))


def write(tx: Transaction, key: str, content: bytes) -> None:
    """Store or replace a content."""
    tx.execute(_DELETE, {"one": key})
    tx.insert_row(_ROW, (key, content, tx.now))


def read(reader: Reader, key: str) -> bytes | None:
    """A content, or None."""
    found: bytes | None = reader.execute(_CONTENT, {"one": key}).scalar()
    return found


def size(reader: Reader, key: str) -> int | None:
    """The size of a content in bytes, None where there is none."""
    found: int | None = reader.execute(_SIZE, {"one": key}).scalar()
    return found


def remove(tx: Transaction, key: str) -> None:
    """Remove a content; nothing happens where there is none."""
    tx.execute(_DELETE, {"one": key})
