"""Schedules: what starts without anybody present."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0005"
down_revision = "0004"
branch_labels = None
depends_on = None

_DUE = sa.text("next_at IS NOT NULL")
_KEY = ("project", "domain", "task", "name")


def upgrade() -> None:
    """Make the tables."""
    op.create_table(
        "triggers",
        *(sa.Column(name, sa.String(), nullable=False) for name in _KEY),
        sa.Column("revision", sa.Integer(), nullable=False),
        sa.Column("version", sa.String(), nullable=False),
        sa.Column("automation", sa.LargeBinary(), nullable=False),
        sa.Column("inputs", sa.LargeBinary(), nullable=False),
        sa.Column("run_spec", sa.LargeBinary(), nullable=False),
        sa.Column("description", sa.Text(), server_default="", nullable=False),
        sa.Column("state", sa.String(), nullable=False),
        sa.Column("notice", sa.Text(), server_default="", nullable=False),
        sa.Column("deployed_by", sa.String(), nullable=False),
        sa.Column("deployed_at", sa.Float(), nullable=False),
        sa.Column("updated_by", sa.String(), nullable=False),
        sa.Column("updated_at", sa.Float(), nullable=False),
        sa.Column("run_as", sa.String(), server_default="", nullable=False),
        sa.Column("credential_kind", sa.String(), server_default="", nullable=False),
        sa.Column("credential_id", sa.String(), server_default="", nullable=False),
        sa.Column("actors", sa.Text(), server_default="[]", nullable=False),
        sa.Column("ceilings", sa.Text(), server_default="[]", nullable=False),
        sa.Column("since", sa.Float(), nullable=False),
        sa.Column("next_at", sa.Float(), nullable=True),
        sa.Column("last_at", sa.Float(), nullable=True),
        sa.Column("last_run", sa.String(), server_default="", nullable=False),
        sa.PrimaryKeyConstraint(*_KEY, name=op.f("pk_triggers")),
    )
    op.create_index("ix_triggers_due", "triggers", ["next_at"], sqlite_where=_DUE, postgresql_where=_DUE)
    op.create_table(
        "trigger_revisions",
        *(sa.Column(name, sa.String(), nullable=False) for name in _KEY),
        sa.Column("revision", sa.Integer(), autoincrement=False, nullable=False),
        sa.Column("action", sa.Integer(), nullable=False),
        sa.Column("at", sa.Float(), nullable=False),
        sa.Column("by", sa.String(), nullable=False),
        sa.Column("version", sa.String(), nullable=False),
        sa.Column("automation", sa.LargeBinary(), nullable=False),
        sa.Column("inputs", sa.LargeBinary(), nullable=False),
        sa.Column("run_spec", sa.LargeBinary(), nullable=False),
        sa.Column("description", sa.Text(), nullable=False),
        sa.Column("state", sa.String(), nullable=False),
        sa.Column("run_as", sa.String(), nullable=False),
        sa.PrimaryKeyConstraint(*_KEY, "revision", name=op.f("pk_trigger_revisions")),
    )
    op.create_table(
        "trigger_firings",
        *(sa.Column(name, sa.String(), nullable=False) for name in _KEY),
        sa.Column("revision", sa.Integer(), autoincrement=False, nullable=False),
        sa.Column("due_at", sa.Float(), nullable=False),
        sa.Column("at", sa.Float(), nullable=False),
        sa.Column("outcome", sa.String(), nullable=False),
        sa.Column("run", sa.String(), server_default="", nullable=False),
        sa.Column("reason", sa.Text(), server_default="", nullable=False),
        sa.PrimaryKeyConstraint(*_KEY, "revision", "due_at", name=op.f("pk_trigger_firings")),
    )
