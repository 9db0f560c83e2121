"""When an issuer last said other groups of a person: an older token does not bring back older groups."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0010"
down_revision = "0009"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Nobody was heard of so far."""
    op.add_column("external_identities", sa.Column("heard_at", sa.Float, nullable=False, server_default="0"))
