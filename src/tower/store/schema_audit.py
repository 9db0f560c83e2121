"""The tables of the audit chain. Times, JSON and digests as in `schema`."""

from __future__ import annotations

from sqlalchemy import BigInteger, Column, Float, Index, Integer, String, Table, Text, text

from tower.store.schema import metadata

audit = Table(
    "audit",
    metadata,
    Column("seq", BigInteger().with_variant(Integer, "sqlite"), primary_key=True, autoincrement=False),
    Column("at", Float, nullable=False),
    Column("event", String, nullable=False),  # noun.verb, see tower.audit
    Column("outcome", String, nullable=False),  # allowed | refused | failed | cancelled
    Column("subject", String, nullable=False),
    Column("credential_kind", String, nullable=False),
    Column("credential_id", String, nullable=False),
    Column("actors", Text, nullable=False),  # JSON list of "kind:id"
    Column("app", String, nullable=False),  # of the actors, the app nearest to the person
    Column("action", String, nullable=False),
    Column("resource", String, nullable=False),
    Column("request_id", String, nullable=False),
    Column("decision", String, nullable=False),
    Column("policy_revision", String, nullable=False),
    Column("detail", Text, nullable=False),  # JSON object
    Column("run", String, nullable=False),  # project/domain/name: the run it is about or came from
    Column("previous", String, nullable=False),
    Column("hash", String, nullable=False),
    Index("ix_audit_subject", "subject", "seq"),
    Index("ix_audit_resource", "resource", "seq"),
    Index("ix_audit_app", "app", "seq", sqlite_where=text("app <> ''")),
    Index("ix_audit_run", "run", "seq", sqlite_where=text("run <> ''")),
    Index(
        "ix_audit_outcome",
        "outcome",
        "seq",
        sqlite_where=text("outcome <> 'allowed'"),
    ),
)

audit_checkpoints = Table(
    "audit_checkpoints",
    metadata,
    Column("seq", BigInteger().with_variant(Integer, "sqlite"), primary_key=True, autoincrement=False),
    Column("hash", String, nullable=False),
    Column("at", Float, nullable=False),
    Column("key_id", String, nullable=False),  # thumbprint of the signing key
    Column("signature", String, nullable=False),  # Ed25519, base64url
)
