"""The tables of triggers. Times, JSON and digests as in `schema`."""

from __future__ import annotations

from sqlalchemy import Column, Float, Index, Integer, LargeBinary, String, Table, Text, text

from tower.store.schema import metadata

_DUE = text("next_at IS NOT NULL")

triggers = Table(
    "triggers",
    metadata,
    Column("project", String, primary_key=True),
    Column("domain", String, primary_key=True),
    Column("task", String, primary_key=True),
    Column("name", String, primary_key=True),
    Column("revision", Integer, nullable=False),  # rises with each change, also past a deletion
    Column("version", String, nullable=False),  # of the task: the one that runs, whatever is deployed later
    Column("automation", LargeBinary, nullable=False),  # flyteidl2.task.TriggerAutomationSpec
    Column("inputs", LargeBinary, nullable=False),  # flyteidl2.task.Inputs, without the time of firing
    Column("run_spec", LargeBinary, nullable=False),  # flyteidl2.task.RunSpec
    Column("description", Text, nullable=False, server_default=""),
    Column("state", String, nullable=False),  # active | inactive | suspended
    Column("notice", Text, nullable=False, server_default=""),  # what a person should look at
    Column("deployed_by", String, nullable=False),
    Column("deployed_at", Float, nullable=False),
    Column("updated_by", String, nullable=False),
    Column("updated_at", Float, nullable=False),
    # whom runs are started as: who activated it, with the limits of what they showed then
    Column("run_as", String, nullable=False, server_default=""),
    Column("credential_kind", String, nullable=False, server_default=""),
    Column("credential_id", String, nullable=False, server_default=""),
    Column("actors", Text, nullable=False, server_default="[]"),
    Column("ceilings", Text, nullable=False, server_default="[]"),
    Column("since", Float, nullable=False),  # what an interval without a start is counted from
    Column("next_at", Float),  # only of an active one
    Column("last_at", Float),  # when it was due last
    Column("last_run", String, nullable=False, server_default=""),
    Index("ix_triggers_due", "next_at", sqlite_where=_DUE),
)

trigger_revisions = Table(
    "trigger_revisions",
    metadata,
    # kept when the trigger is deleted: a revision is never used again
    Column("project", String, primary_key=True),
    Column("domain", String, primary_key=True),
    Column("task", String, primary_key=True),
    Column("name", String, primary_key=True),
    Column("revision", Integer, primary_key=True, autoincrement=False),
    Column("action", Integer, nullable=False),  # flyteidl2.trigger.TriggerRevisionAction
    Column("at", Float, nullable=False),
    Column("by", String, nullable=False),
    Column("version", String, nullable=False),
    Column("automation", LargeBinary, nullable=False),
    Column("inputs", LargeBinary, nullable=False),
    Column("run_spec", LargeBinary, nullable=False),
    Column("description", Text, nullable=False),
    Column("state", String, nullable=False),
    Column("run_as", String, nullable=False),
)

trigger_firings = Table(
    "trigger_firings",
    metadata,
    # the primary key is what makes a firing happen once
    Column("project", String, primary_key=True),
    Column("domain", String, primary_key=True),
    Column("task", String, primary_key=True),
    Column("name", String, primary_key=True),
    Column("revision", Integer, primary_key=True, autoincrement=False),
    Column("due_at", Float, primary_key=True),
    Column("at", Float, nullable=False),
    Column("outcome", String, nullable=False),  # started | missed | skipped | refused
    Column("run", String, nullable=False, server_default=""),
    Column("reason", Text, nullable=False, server_default=""),
)
