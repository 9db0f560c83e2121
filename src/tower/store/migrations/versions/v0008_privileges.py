"""What the version of a task may do to people, keys, policies and secrets, and who gave it that."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0008"
down_revision = "0007"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Nobody gave anything before."""
    op.add_column("tasks", sa.Column("privileges", sa.Text(), server_default="", nullable=False))
