"""The tables of passwords and of the OAuth server. Times, JSON and digests as in `schema`."""

from __future__ import annotations

from sqlalchemy import Column, Float, LargeBinary, String, Table

from tower.store.schema import metadata

passwords = Table(
    "passwords",
    metadata,
    Column("subject", String, primary_key=True),
    Column("hash", String, nullable=False),  # argon2id, in the PHC string format
    Column("changed_at", Float, nullable=False),
    Column("changed_by", String, nullable=False),
)

oauth_logins = Table(
    "oauth_logins",
    metadata,
    Column("id", String, primary_key=True),  # public
    Column("subject", String, nullable=False, index=True),
    Column("client", String, nullable=False),
    Column("scope", String, nullable=False),
    Column("device", String, nullable=False, server_default=""),  # what it runs on, as it said itself
    Column("place", String, nullable=False, server_default=""),  # the address that asked
    Column("authenticated_at", Float, nullable=False),  # when the person showed who they are
    Column("created_at", Float, nullable=False),
    Column("expires_at", Float, nullable=False, index=True),
    Column("revoked_at", Float),
)

oauth_codes = Table(
    "oauth_codes",
    metadata,
    Column("hash", LargeBinary, primary_key=True),
    Column("subject", String, nullable=False),
    Column("client", String, nullable=False),
    Column("redirect_uri", String, nullable=False),
    Column("challenge", String, nullable=False),  # PKCE S256
    Column("scope", String, nullable=False),
    Column("nonce", String, nullable=False, server_default=""),
    Column("session", String, nullable=False),  # of the person who allowed it
    Column("place", String, nullable=False, server_default=""),
    Column("authenticated_at", Float, nullable=False),
    Column("created_at", Float, nullable=False),
    Column("expires_at", Float, nullable=False, index=True),
    Column("used_at", Float),
    Column("login", String, nullable=False, server_default=""),  # what the first use opened
)

oauth_devices = Table(
    "oauth_devices",
    metadata,
    Column("hash", LargeBinary, primary_key=True),  # of the device code
    Column("user_code", String, nullable=False, unique=True),
    Column("client", String, nullable=False),
    Column("scope", String, nullable=False),
    Column("device", String, nullable=False, server_default=""),
    Column("place", String, nullable=False, server_default=""),
    Column("pace", Float, nullable=False),  # seconds between polls
    Column("polled_at", Float),
    Column("created_at", Float, nullable=False),
    Column("expires_at", Float, nullable=False, index=True),
    Column("state", String, nullable=False),  # pending | allowed | refused | used
    Column("subject", String, nullable=False, server_default=""),  # who answered
    Column("authenticated_at", Float),
)

oauth_refresh_tokens = Table(
    "oauth_refresh_tokens",
    metadata,
    Column("hash", LargeBinary, primary_key=True),
    Column("login", String, nullable=False, index=True),
    Column("created_at", Float, nullable=False),
    Column("expires_at", Float, nullable=False, index=True),
    Column("used_at", Float),
)

oauth_revoked_tokens = Table(
    "oauth_revoked_tokens",
    metadata,
    Column("jti", String, primary_key=True),
    Column("revoked_at", Float, nullable=False),
    Column("expires_at", Float, nullable=False, index=True),
)
