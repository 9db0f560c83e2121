"""What a run may lean on after its person signed out, and the agents that hold tokens for attempts."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0003"
down_revision = "0002"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Add the columns."""
    op.add_column("actions", sa.Column("grant_expires_at", sa.Float(), nullable=True))
    op.add_column("actions", sa.Column("grant_revoked_at", sa.Float(), nullable=True))
    op.add_column("actions", sa.Column("grant_revoked_by", sa.String(), server_default="", nullable=False))
    op.create_table(
        "agents",
        sa.Column("project", sa.String(), nullable=False),
        sa.Column("domain", sa.String(), nullable=False),
        sa.Column("run", sa.String(), nullable=False),
        sa.Column("action", sa.String(), nullable=False),
        sa.Column("attempt", sa.Integer(), nullable=False),
        sa.Column("key", sa.LargeBinary(), nullable=False),
        sa.Column("created_at", sa.Float(), nullable=False),
        sa.Column("ended_at", sa.Float(), nullable=True),
        sa.Column("why", sa.String(), server_default="", nullable=False),
        sa.PrimaryKeyConstraint("project", "domain", "run", "action", "attempt", name=op.f("pk_agents")),
    )
