"""Revisions of the schema. A new database gets the whole schema at once, an older one the steps it lacks."""

from __future__ import annotations

from pathlib import Path

from sqlalchemy import Column, MetaData, String, Table, insert, inspect, select
from sqlalchemy.engine import Connection

from tower.errors import Precondition
from tower.store import (  # noqa: F401  (their tables are in the metadata)
    schema_agents,
    schema_apps,
    schema_audit,
    schema_blobs,
    schema_oauth,
    schema_schedules,
    schema_secrets,
)
from tower.store.schema import metadata

HEAD = "0010"
"""The newest revision in `versions`; a test holds the two together."""

_version = Table("alembic_version", MetaData(), Column("version_num", String(32), primary_key=True))


def revision(connection: Connection) -> str | None:
    """The revision that a database is at, or None for an empty one. Raises Precondition for a foreign one."""
    tables = set(inspect(connection).get_table_names())
    if _version.name not in tables:
        if tables:
            raise Precondition(
                "This database holds tables, but not those of Tower.", hint="Give another one."
            )
        return None
    return connection.execute(select(_version.c.version_num)).scalar()


def check(connection: Connection) -> None:
    """Raise Precondition unless the database is at the revision of this code."""
    found = revision(connection)
    connection.rollback()
    if found != HEAD:
        raise Precondition(
            "This database is not at the schema of this version of Tower.",
            hint="Start it once with `tower up`.",
            cause=f"database at {found}, code at {HEAD}",
        )


def upgrade(connection: Connection) -> None:
    """Bring a database to HEAD in one transaction. Raises Precondition for a newer one."""
    found = revision(connection)
    if found is None:
        metadata.create_all(connection)
        _version.create(connection)
        connection.execute(insert(_version).values(version_num=HEAD))
    else:
        if found != HEAD:
            step(connection, found=found)
        _complete(connection)
    connection.commit()


def _complete(connection: Connection) -> None:
    """Raise Precondition where a column is missing: better no start than a failure with every request."""
    there = {
        (table, column["name"])
        for (_, table), columns in inspect(connection).get_multi_columns().items()
        for column in columns
    }
    missing = [
        f"{table.name}.{column.name}"
        for table in metadata.sorted_tables
        for column in table.columns
        if (table.name, column.name) not in there
    ]
    if missing:
        raise Precondition(
            "This database was written by an unfinished version of Tower.",
            hint="Start with a new TOWER_HOME.",
            cause=f"{missing[0]} is missing",
        )


def step(connection: Connection, *, found: str | None, to: str = HEAD) -> None:
    """Run the revisions after `found`, up to `to`, on a connection; the caller commits."""
    # imported here: only an older database pays for loading Alembic
    from alembic.config import Config
    from alembic.runtime.environment import EnvironmentContext
    from alembic.script import ScriptDirectory

    script = ScriptDirectory(str(Path(__file__).parent))
    known = {each.revision for each in script.walk_revisions()}
    if found is not None and found not in known:
        raise Precondition(
            "This database was written by a newer version of Tower.",
            hint="Install that version, or restore a backup made by this one.",
            cause=f"database at {found}, code at {HEAD}",
        )
    with EnvironmentContext(
        Config(), script, fn=lambda current, _context: script._upgrade_revs(to, current)
    ) as environment:
        environment.configure(connection=connection, target_metadata=metadata)
        environment.run_migrations()
