"""The tables of apps and of their webhooks. Times, JSON and digests as in `schema`."""

from __future__ import annotations

from sqlalchemy import Boolean, Column, Float, Integer, LargeBinary, String, Table, Text

from tower.store.schema import metadata

apps = Table(
    "apps",
    metadata,
    Column("project", String, primary_key=True),
    Column("domain", String, primary_key=True),
    Column("name", String, primary_key=True),
    Column("host", String, nullable=False, unique=True),
    Column("revision", Integer, nullable=False),
    Column("spec", LargeBinary, nullable=False),  # flyteidl2.app.App as stored
    Column("digest", String, nullable=False),
    Column("code_digest", String, nullable=False, server_default=""),
    Column("description", Text, nullable=False, server_default=""),
    Column("requires_auth", Boolean, nullable=False),
    Column("desired", Integer, nullable=False),
    Column("status", Integer, nullable=False),
    Column("message", Text, nullable=False, server_default=""),
    Column("deployed_by", String, nullable=False),
    Column("created_at", Float, nullable=False),
    Column("updated_at", Float, nullable=False),
    Column("started_at", Float),
)

app_revisions = Table(
    "app_revisions",
    metadata,
    Column("project", String, primary_key=True),
    Column("domain", String, primary_key=True),
    Column("name", String, primary_key=True),
    Column("revision", Integer, primary_key=True),
    Column("spec", LargeBinary, nullable=False),
    Column("deployed_by", String, nullable=False),
    Column("created_at", Float, nullable=False),
)

webhooks = Table(
    "webhooks",
    metadata,
    Column("project", String, primary_key=True),
    Column("domain", String, primary_key=True),
    Column("app", String, primary_key=True),
    Column("path", String, primary_key=True),
    Column("id", String, nullable=False, unique=True),  # public; a new one with each change
    Column("scheme", String, nullable=False),  # github | slack | standard | hmac
    Column("secret", LargeBinary, nullable=False),  # sealed, see tower.control.webhooks
    Column("subject", String, nullable=False, server_default=""),  # whom a delivery runs as; "" for nobody
    Column("senders", Text, nullable=False, server_default="{}"),  # JSON object: sender to subject
    Column("created_at", Float, nullable=False),
    Column("created_by", String, nullable=False),
)

webhook_deliveries = Table(
    "webhook_deliveries",
    metadata,
    # what was let through once, so that it is not let through again
    Column("webhook", String, primary_key=True),
    Column("digest", LargeBinary, primary_key=True),
    Column("ends_at", Float, nullable=False, index=True),
)
