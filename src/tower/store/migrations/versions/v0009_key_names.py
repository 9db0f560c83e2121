"""The name of an API key is one among those of its owner, and tells nothing about the keys of others."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0009"
down_revision = "0008"
branch_labels = None
depends_on = None

_LIVE = sa.text("deleted_at IS NULL AND replaced_by = ''")


def upgrade() -> None:
    """Names that were unique among all are unique among each owner's."""
    op.drop_index("ix_api_keys_live_name", "api_keys")
    op.create_index(
        "ix_api_keys_live_name",
        "api_keys",
        ["name", "subject"],
        unique=True,
        sqlite_where=_LIVE,
        postgresql_where=_LIVE,
    )
