"""A database: one writer with group commit, readers with snapshots, and its schema at the right revision."""

from __future__ import annotations

import asyncio
import os
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, Self, TypeVar

from sqlalchemy.engine import URL, Connection

from tower.clock import Clock
from tower.errors import Precondition, Unavailable
from tower.store.engine import address, create_engine, lock
from tower.store.migrations import check, upgrade
from tower.store.prepared import Lookup
from tower.store.transaction import Reader, Transaction
from tower.store.writer import Writer

__all__ = ["Database", "Reader", "Transaction"]

T = TypeVar("T")
_READERS = 2


class Database:
    """Opened once per process, shared by every room. All functions given to it are plain functions."""

    def __init__(self, url: URL, *, clock: Clock, migrate: bool, read_only: bool) -> None:
        """Use `open`."""
        self._closed = False
        self._local = threading.local()
        self._connections: list[Connection] = []
        self._lock = None if read_only else lock(url)
        self._reading = create_engine(url, writable=False)
        self._writer: Writer | None = None
        writing = create_engine(url, writable=not read_only)
        try:
            with writing.connect() as connection:
                if migrate and not read_only:
                    upgrade(connection)
                else:
                    check(connection)
        except BaseException:
            self._unlock()
            raise
        if not read_only:
            self._writer = Writer(writing, clock=clock)
        self._readers = ThreadPoolExecutor(_READERS, thread_name_prefix="tower-reader")

    @classmethod
    def open(cls, target: str | Path, *, clock: Clock, migrate: bool = True, read_only: bool = False) -> Self:
        """Open a database file or URL, claimed for this process, with the schema brought to this version.

        With `migrate=False` a database of another revision is refused instead. With `read_only=True` nothing
        is claimed or written, so that a running Tower's file can be inspected. Raises Precondition when
        another Tower holds the database, or when the database is newer than this Tower.
        """
        return cls(address(target), clock=clock, migrate=migrate, read_only=read_only)

    async def write(
        self, function: Callable[[Transaction], T], *, durable: bool = True, simple: bool = False
    ) -> T:
        """Run `function` in the writer thread; return when its changes are on the disk.

        Functions waiting together share one transaction, each in a savepoint of its own: one that raises
        undoes its own work and raises here. When the commit fails, each of its callers gets Unavailable.
        A cancelled caller's function still runs, wholly or not at all.

        With `durable=False` it returns after the commit without waiting for the disk: the end of the process
        takes nothing away, a power cut may take this change (never an earlier one of others). No audit
        record goes with such a write. `simple=True` promises that the function inserts rows, leaves errors
        of the database alone and may be run twice, the first time undone: many of them are then one insert.
        """
        if self._writer is None:
            raise Precondition("This database was opened for reading only.")
        return await self._writer.submit(function, durable=durable, simple=simple)

    async def read(self, function: Callable[[Connection], T]) -> T:
        """Run `function` in a reader thread on a snapshot that holds every write answered before the call."""
        if self._closed:
            raise Unavailable("The server is stopping.", hint="Try again in a moment.")
        return await asyncio.get_running_loop().run_in_executor(self._readers, self.read_now, function)

    def read_now(self, function: Callable[[Connection], T]) -> T:
        """Run `function` on a snapshot in the calling thread, at once.

        For lookups by primary key only, where some ten microseconds matter: in the event loop everything else
        stands still meanwhile, and a query without an index would stop the server.
        """
        connection, driver = self._own()
        if driver is None:
            try:
                return function(connection)
            finally:
                connection.rollback()
        connection = self._local.lookup
        if driver.in_transaction:  # a lookup within a lookup
            return function(connection)
        # SQLAlchemy's own way to begin and end takes longer than most of these lookups
        driver.execute("BEGIN")
        try:
            return function(connection)
        finally:
            driver.rollback()

    def version(self) -> int:
        """A number that is another one after every commit; compare it with what the same thread got before.

        It costs three microseconds: what was read under it may be used again while it stays the same.
        """
        driver: Any = self._own()[0].connection.driver_connection
        found: int = driver.execute("PRAGMA data_version").fetchone()[0]
        return found

    def _own(self) -> tuple[Connection, Any]:
        """The connection of the calling thread, and its driver's where that begins and ends what is read."""
        if self._closed:
            raise Unavailable("The server is stopping.", hint="Try again in a moment.")
        own: tuple[Connection, Any] | None = getattr(self._local, "own", None)
        if own is None:
            connection = self._reading.connect()
            self._connections.append(connection)
            driver = connection.connection.driver_connection if self._reading.name == "sqlite" else None
            own = self._local.own = connection, driver
            self._local.lookup = Lookup(connection, driver)
        return own

    async def close(self) -> None:
        """Finish the writes that were accepted, then close every connection. May be called again."""
        if self._closed:
            return
        self._closed = True
        loop = asyncio.get_running_loop()
        if self._writer is not None:
            self._writer.finish()
            await loop.run_in_executor(None, self._writer.join)
        await loop.run_in_executor(None, self._readers.shutdown)
        for connection in self._connections:
            connection.close()
        self._unlock()

    def _unlock(self) -> None:
        if self._lock is not None:
            os.close(self._lock)
            self._lock = None

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.close()
