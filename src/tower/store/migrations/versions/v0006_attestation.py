"""What the page of a run warns of."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0006"
down_revision = "0005"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Add the column."""
    op.add_column("actions", sa.Column("warning", sa.String(), server_default="", nullable=False))
