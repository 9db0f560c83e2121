"""Agents on other nodes: which key holds the token of an attempt."""

from __future__ import annotations

from sqlalchemy import Column, Float, Integer, LargeBinary, String, Table

from tower.store.schema import metadata

agents = Table(
    "agents",
    metadata,
    Column("project", String, primary_key=True),
    Column("domain", String, primary_key=True),
    Column("run", String, primary_key=True),
    Column("action", String, primary_key=True),
    Column("attempt", Integer, primary_key=True),
    Column("key", LargeBinary, nullable=False),  # X25519, public
    Column("created_at", Float, nullable=False),
    Column("ended_at", Float),
    Column("why", String, nullable=False, server_default=""),
)
