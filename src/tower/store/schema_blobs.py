"""The table of the blob store: contents that are too small for a file of their own."""

from __future__ import annotations

from sqlalchemy import Column, Float, LargeBinary, String, Table

from tower.store.schema import metadata

blobs = Table(
    "blobs",
    metadata,
    Column("key", String, primary_key=True),  # as in tower.store.blobs
    Column("content", LargeBinary, nullable=False),
    Column("created_at", Float, nullable=False),
)
