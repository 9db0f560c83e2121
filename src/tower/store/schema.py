"""The tables. Times are seconds since the epoch (UTC), JSON is text, digests are hexadecimal SHA-256."""

from __future__ import annotations

from sqlalchemy import (
    BigInteger,
    Boolean,
    Column,
    Float,
    ForeignKeyConstraint,
    Index,
    Integer,
    LargeBinary,
    MetaData,
    String,
    Table,
    Text,
    event,
    false,
    text,
)
from sqlalchemy.engine import Connection

metadata = MetaData(
    naming_convention={
        "ix": "ix_%(table_name)s_%(column_0_N_name)s",
        "uq": "uq_%(table_name)s_%(column_0_N_name)s",
        "pk": "pk_%(table_name)s",
        "fk": "fk_%(table_name)s_%(column_0_N_name)s",
    }
)


@event.listens_for(metadata, "before_create")
def _partial(of: MetaData, connection: Connection, **_: object) -> None:
    """The same conditions on PostgreSQL. To name them with each index would load its dialect everywhere."""
    if connection.dialect.name == "postgresql":
        for index in (each for table in of.tables.values() for each in table.indexes):
            index.dialect_options["postgresql"]["where"] = index.dialect_options["sqlite"]["where"]


meta = Table("meta", metadata, Column("key", String, primary_key=True), Column("value", Text, nullable=False))

projects = Table(
    "projects",
    metadata,
    Column("name", String, primary_key=True),
    Column("description", Text, nullable=False, server_default=""),
    Column("created_at", Float, nullable=False),
    Column("created_by", String, nullable=False),
    Column("archived_at", Float),
)

users = Table(
    "users",
    metadata,
    Column("subject", String, primary_key=True),
    Column("kind", String, nullable=False),  # user | service
    Column("name", String, nullable=False, server_default=""),
    Column("email", String, nullable=False, server_default=""),
    Column("created_at", Float, nullable=False),
    Column("created_by", String, nullable=False),
    Column("disabled_at", Float),
)

bindings = Table(
    "bindings",
    metadata,
    Column("subject", String, primary_key=True),  # a user or service, or "group:<name>"
    Column("role", String, primary_key=True),  # built in or from `roles`
    Column("project", String, primary_key=True),  # "*" is every project
    Column("domain", String, primary_key=True),  # "*" is every domain
    Column("kind", String, primary_key=True, server_default=""),  # task | app | service, or "" for all there
    Column("name", String, primary_key=True, server_default=""),  # of that one thing
    Column("created_at", Float, nullable=False),
    Column("created_by", String, nullable=False),
)

roles = Table(
    "roles",
    metadata,
    Column("name", String, primary_key=True),
    Column("actions", Text, nullable=False),  # JSON list
    Column("description", Text, nullable=False, server_default=""),
    Column("updated_at", Float, nullable=False),
    Column("updated_by", String, nullable=False),
)

groups = Table(
    "groups",
    metadata,
    Column("name", String, primary_key=True),
    Column("external", String, nullable=False, server_default=""),  # the name in a provider's claim
    Column("description", Text, nullable=False, server_default=""),
    Column("created_at", Float, nullable=False),
    Column("created_by", String, nullable=False),
)

group_members = Table(
    "group_members",
    metadata,
    Column("group", String, primary_key=True),
    Column("subject", String, primary_key=True),
    Index("ix_group_members_subject", "subject"),
)

external_groups = Table(
    "external_groups",
    metadata,
    # what an identity provider said at the last sign-in
    Column("subject", String, primary_key=True),
    Column("source", String, primary_key=True),  # the issuer
    Column("name", String, primary_key=True),
)

external_identities = Table(
    "external_identities",
    metadata,
    Column("issuer", String, primary_key=True),
    Column("sub", String, primary_key=True),
    Column("subject", String, nullable=False, unique=True),
    Column("created_at", Float, nullable=False),
    Column("heard_at", Float, nullable=False, server_default="0"),
)

policies = Table(
    "policies",
    metadata,
    Column("name", String, primary_key=True),
    Column("text", Text, nullable=False),  # Cedar
    Column("project", String, nullable=False, server_default="*"),
    Column("domain", String, nullable=False, server_default="*"),
    Column("kind", String, nullable=False, server_default=""),  # task | app, or "" for all there
    Column("target", String, nullable=False, server_default=""),  # name of that task or app
    Column("description", Text, nullable=False, server_default=""),
    Column("updated_at", Float, nullable=False),
    Column("updated_by", String, nullable=False),
)

policy_revisions = Table(
    "policy_revisions",
    metadata,
    # every rule book there ever was: what `audit.policy_revision` names
    Column("number", Integer, primary_key=True, autoincrement=False),
    Column("revision", String, nullable=False),
    Column("document", Text, nullable=False),  # JSON: all policies and roles
    Column("created_at", Float, nullable=False),
    Column("created_by", String, nullable=False),
    Index("ix_policy_revisions_revision", "revision"),
)

app_ceilings = Table(
    "app_ceilings",
    metadata,
    Column("project", String, primary_key=True),
    Column("domain", String, primary_key=True),
    Column("name", String, primary_key=True),
    Column("source", String, primary_key=True),  # deploy | admin: both hold
    Column("limits", Text, nullable=False),  # JSON object: actions, projects, tasks
    Column("updated_at", Float, nullable=False),
    Column("updated_by", String, nullable=False),
)

api_keys = Table(
    "api_keys",
    metadata,
    Column("id", String, primary_key=True),  # public, part of the key
    Column("name", String, nullable=False),
    Column("subject", String, nullable=False),
    Column("hash", LargeBinary, nullable=False),  # SHA-256 of the secret half
    Column("role", String),  # ceiling; NULL is none
    Column("project", String, nullable=False, server_default="*"),
    Column("domain", String, nullable=False, server_default="*"),
    Column("created_at", Float, nullable=False),
    Column("created_by", String, nullable=False),
    Column("expires_at", Float),
    Column("last_used_at", Float),
    Column("deleted_at", Float),
    Column("disabled_at", Float),
    Column("replaced_by", String, nullable=False, server_default=""),  # id of the key it was rotated to
    Column("actions", Text),  # ceiling: a JSON list; NULL is none
    Column(
        "maker", String, nullable=False, server_default=""
    ),  # who made it for another, whom it is not above
    Index(
        "ix_api_keys_live_name",
        "name",
        "subject",
        unique=True,
        sqlite_where=text("deleted_at IS NULL AND replaced_by = ''"),
    ),
    Index("ix_api_keys_subject", "subject"),
)

sessions = Table(
    "sessions",
    metadata,
    Column("hash", LargeBinary, primary_key=True),
    Column("id", String, nullable=False, unique=True),  # public
    Column("subject", String, nullable=False, index=True),
    Column("host", String, nullable=False),  # the host that the cookie is for
    Column("parent", String, nullable=False, server_default=""),  # id of the console session it came from
    Column("created_at", Float, nullable=False),
    Column("expires_at", Float, nullable=False),
    Column("revoked_at", Float),
)

links = Table(
    "links",
    metadata,
    Column("hash", LargeBinary, primary_key=True),
    Column("subject", String, nullable=False),
    Column("host", String, nullable=False, server_default=""),  # "" is the console
    Column("session", String, nullable=False, server_default=""),
    Column("created_at", Float, nullable=False),
    Column("created_by", String, nullable=False),
    Column("expires_at", Float, nullable=False),
    Column("used_at", Float),
)

tasks = Table(
    "tasks",
    metadata,
    Column("project", String, primary_key=True),
    Column("domain", String, primary_key=True),
    Column("name", String, primary_key=True),
    Column("version", String, primary_key=True),
    Column("spec", LargeBinary, nullable=False),  # flyteidl2.task.TaskSpec
    Column("digest", String, nullable=False),  # of the spec; the same version with another digest is refused
    Column("code_digest", String, nullable=False, server_default=""),
    Column("short_name", String, nullable=False, server_default=""),
    Column("environment", String, nullable=False, server_default=""),
    Column("description", Text, nullable=False, server_default=""),
    Column("deployed_by", String, nullable=False),
    Column("deployed_at", Float, nullable=False),
    Column("serial", BigInteger, nullable=False),  # rises with each deployment; the latest is the highest
    Column("privileges", Text, nullable=False, server_default=""),  # JSON, see control.privileges; "" is none
    Index("ix_tasks_latest", "project", "domain", "name", "serial"),
    Index("ix_tasks_serial", "project", "domain", "serial"),
)

_OPEN, _ASKED = text("phase < 5"), text("parent IS NOT NULL")

actions = Table(
    "actions",
    metadata,
    # a run is its root action a0
    Column("project", String, primary_key=True),
    Column("domain", String, primary_key=True),
    Column("run", String, primary_key=True),
    Column("action", String, primary_key=True),
    Column("parent", String),  # NULL for the root
    Column("task_project", String, nullable=False),
    Column("task_domain", String, nullable=False),
    Column("task_name", String, nullable=False),
    Column("task_version", String, nullable=False),
    Column("spec", LargeBinary),  # a TaskSpec sent with the run instead of a deployed task
    Column("code_digest", String, nullable=False, server_default=""),
    Column("inputs_uri", String, nullable=False),  # a directory in the blob store
    Column("inputs_hash", String, nullable=False),
    Column("run_spec", LargeBinary, nullable=False),  # flyteidl2.task.RunSpec
    Column("labels", Text, nullable=False, server_default="{}"),  # JSON object: the run's own labels
    Column("executed_by", String, nullable=False),
    Column("via_app", String, nullable=False, server_default=""),  # project/domain/name
    Column("credential_kind", String, nullable=False),
    Column("credential_id", String, nullable=False),  # public id, e.g. of the API key behind an app token
    Column("actors", Text, nullable=False, server_default="[]"),  # JSON list of "kind:id", oldest first
    Column("ceilings", Text, nullable=False, server_default="[]"),  # JSON list, see control.grants
    Column("decision", String, nullable=False, server_default=""),  # ids of the policies that allowed it
    Column("policy_revision", String, nullable=False, server_default=""),
    Column("request_id", String),
    Column("phase", Integer, nullable=False),
    Column("attempts", Integer, nullable=False, server_default="0"),
    Column("max_attempts", Integer, nullable=False, server_default="1"),
    Column("queue_timeout", Float),
    Column("run_timeout", Float),
    Column("created_at", Float, nullable=False),
    Column("queued_at", Float, nullable=False),
    Column("started_at", Float),
    Column("ended_at", Float),
    Column("outputs_uri", String, nullable=False, server_default=""),
    Column("error", Text, nullable=False, server_default=""),  # JSON: message, kind user|system, code
    Column("abort_reason", Text, nullable=False, server_default=""),
    Column("aborted_by", String, nullable=False, server_default=""),
    Column("turn", Integer, nullable=False, server_default="0"),  # the lowest starts first; -1 for each asker
    # how long the run may act for its person, in the row of its root
    Column("grant_expires_at", Float),
    Column("grant_revoked_at", Float),
    Column("grant_revoked_by", String, nullable=False, server_default=""),
    Column("warning", String, nullable=False, server_default=""),  # what its page warns of: foreign-code
    Index(
        "ix_actions_request",
        "executed_by",
        "request_id",
        unique=True,
        sqlite_where=text("request_id IS NOT NULL"),
    ),
    Index("ix_actions_recent", "project", "domain", "created_at", "run"),
    Index("ix_actions_owner", "executed_by", "created_at", "run"),
    Index("ix_actions_open", "phase", "turn", "queued_at", sqlite_where=_OPEN),
    Index(
        "ix_actions_children",
        *("project", "domain", "run", "parent"),
        sqlite_where=_ASKED,
    ),
)

attempts = Table(
    "attempts",
    metadata,
    Column("project", String, primary_key=True),
    Column("domain", String, primary_key=True),
    Column("run", String, primary_key=True),
    Column("action", String, primary_key=True),
    Column("attempt", Integer, primary_key=True),  # from 1
    Column("phase", Integer, nullable=False),
    Column("created_at", Float, nullable=False),
    Column("started_at", Float),
    Column("ended_at", Float),
    Column("outputs_uri", String, nullable=False, server_default=""),
    Column("error", Text, nullable=False, server_default=""),
    Column("has_logs", Boolean, nullable=False, server_default=false()),
    ForeignKeyConstraint(
        ["project", "domain", "run", "action"],
        ["actions.project", "actions.domain", "actions.run", "actions.action"],
    ),
)
