"""The tables of secrets. Times, JSON and digests as in `schema`."""

from __future__ import annotations

from sqlalchemy import Column, Float, Integer, LargeBinary, String, Table, UniqueConstraint

from tower.store.schema import metadata

secrets = Table(
    "secrets",
    metadata,
    Column("id", String, primary_key=True),  # public
    Column("name", String, nullable=False),
    Column("project", String, nullable=False, server_default=""),  # "" for one of the whole installation
    Column("domain", String, nullable=False, server_default=""),  # "" for one of the whole project
    Column("owner", String, nullable=False, server_default=""),  # whose it is alone, "" for nobody's
    Column("version", Integer, nullable=False),
    Column("key_id", String, nullable=False),  # which key outside of the database it is sealed with
    Column("wrapped", LargeBinary, nullable=False),
    Column("content", LargeBinary, nullable=False),
    Column("created_at", Float, nullable=False),
    Column("created_by", String, nullable=False),
    Column("updated_at", Float, nullable=False),
    Column("updated_by", String, nullable=False),
    UniqueConstraint("owner", "project", "domain", "name"),
)

secret_grants = Table(
    "secret_grants",
    metadata,
    Column("project", String, primary_key=True),
    Column("domain", String, primary_key=True),
    Column("task", String, primary_key=True),
    Column("version", String, primary_key=True),
    # JSON: for each declared name the levels (domain, project, org) that the deployer could use it at
    Column("levels", String, nullable=False),
    Column("granted_by", String, nullable=False),
    Column("granted_at", Float, nullable=False),
)
