"""What a run costs to write: small contents have a table of their own, and leave the rows of actions."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0007"
down_revision = "0006"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Make the table and move what lies in the rows."""
    op.create_table(
        "blobs",
        sa.Column("key", sa.String(), nullable=False),
        sa.Column("content", sa.LargeBinary(), nullable=False),
        sa.Column("created_at", sa.Float(), nullable=False),
        sa.PrimaryKeyConstraint("key", name=op.f("pk_blobs")),
    )
    # a URI is "tower://" and the key of a directory
    op.execute(
        "INSERT INTO blobs (key, content, created_at) "
        "SELECT substr(inputs_uri, 9) || '/inputs.pb', inputs, created_at "
        "FROM actions WHERE inputs IS NOT NULL AND inputs_uri LIKE 'tower://%' ON CONFLICT DO NOTHING"
    )
    op.execute(
        "INSERT INTO blobs (key, content, created_at) "
        "SELECT substr(outputs_uri, 9) || '/outputs.pb', outputs, coalesce(ended_at, created_at) "
        "FROM actions WHERE outputs IS NOT NULL AND outputs_uri LIKE 'tower://%' ON CONFLICT DO NOTHING"
    )
    op.drop_column("actions", "inputs")
    op.drop_column("actions", "outputs")
