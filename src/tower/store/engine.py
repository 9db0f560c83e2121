"""The engine of a database: the only place that knows one dialect from another."""

from __future__ import annotations

import fcntl
import os
import time
from pathlib import Path
from typing import Any

from sqlalchemy import Engine, event
from sqlalchemy import create_engine as create
from sqlalchemy.engine import URL, Connection, make_url
from sqlalchemy.pool import NullPool

from tower.errors import InUse, Invalid

_SECONDS_FOR_A_LOCK = 5
_PAGES_BEFORE_CHECKPOINT = 4000
_PATIENCE = 3.0
"""Seconds to wait for a process that is about to let go of the file: a command, a server that drains."""


def address(target: str | Path) -> URL:
    """The URL of a database: a path (an SQLite file) or an SQLAlchemy URL. Raises Invalid."""
    if isinstance(target, Path) or "://" not in target:
        return URL.create("sqlite", database=str(target))
    url = make_url(target)
    if url.get_backend_name() == "sqlite" and url.database in (None, "", ":memory:"):
        raise Invalid("A database in memory cannot be shared between threads.", hint="Give a file.")
    return url


def create_engine(url: URL, *, writable: bool) -> Engine:
    """An engine whose connections are opened and closed by their owner; parameters never reach a message."""
    arguments: dict[str, Any] = {}
    sqlite = url.get_backend_name() == "sqlite"
    if sqlite:
        # isolation_level None: the driver begins nothing by itself, the event below and the readers do
        arguments = {"check_same_thread": False, "isolation_level": None, "cached_statements": 512}
    engine = create(url, poolclass=NullPool, hide_parameters=True, connect_args=arguments)
    if sqlite:
        _tune_sqlite(engine, writable=writable)
    elif not writable:
        engine = engine.execution_options(isolation_level="REPEATABLE READ")
    return engine


def lock(url: URL) -> int | None:
    """Claim a database file for this process until the descriptor is closed. Raises InUse.

    The writer keeps the end of the audit chain in memory, so one file has one writing process. The lock is
    on a file beside the database: SQLite's own locks would be dropped by closing any descriptor of its file.
    """
    if url.get_backend_name() != "sqlite":
        return None
    database = Path(str(url.database))
    # SQLite gives its journal files the mode of the database file
    os.close(os.open(database, os.O_CREAT | os.O_RDWR | os.O_CLOEXEC, 0o600))
    descriptor = os.open(f"{database}.lock", os.O_CREAT | os.O_RDWR | os.O_CLOEXEC, 0o600)
    ends_at = time.monotonic() + _PATIENCE
    while True:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            if time.monotonic() < ends_at:
                time.sleep(0.05)
                continue
            os.close(descriptor)
            raise InUse(
                "Another Tower is using this database.",
                hint="Stop it first, or give this one another TOWER_HOME.",
                cause=str(database),
            ) from error
        return descriptor


def _tune_sqlite(engine: Engine, *, writable: bool) -> None:
    pragmas = [
        f"PRAGMA busy_timeout = {_SECONDS_FOR_A_LOCK * 1000}",
        "PRAGMA foreign_keys = ON",
        "PRAGMA temp_store = MEMORY",
    ]
    if writable:
        pragmas += [
            "PRAGMA journal_mode = WAL",
            "PRAGMA synchronous = FULL",  # each commit is on the disk before it is answered
            f"PRAGMA wal_autocheckpoint = {_PAGES_BEFORE_CHECKPOINT}",
            "PRAGMA journal_size_limit = 67108864",
        ]
    else:
        pragmas += ["PRAGMA query_only = ON"]

    @event.listens_for(engine, "connect")
    def connected(connection: Any, _record: object) -> None:
        for pragma in pragmas:
            connection.execute(pragma).fetchall()

    if not writable:
        return  # `Database.read_now` begins by itself

    @event.listens_for(engine, "begin")
    def begun(connection: Connection) -> None:
        driver: Any = connection.connection.driver_connection
        driver.execute("BEGIN IMMEDIATE")  # by itself: through the engine it takes four times as long
