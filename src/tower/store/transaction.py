"""What a writing function holds while it runs: statements, the time, and what follows the commit."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias, TypeVarTuple, overload

from sqlalchemy import CursorResult, Table
from sqlalchemy import insert as insert_into
from sqlalchemy.engine import Connection, Dialect
from sqlalchemy.exc import DBAPIError
from sqlalchemy.sql.base import Executable
from sqlalchemy.sql.selectable import TypedReturnsRows

_Ts = TypeVarTuple("_Ts")
Parameters: TypeAlias = Mapping[str, Any] | Sequence[Mapping[str, Any]]


@dataclass(frozen=True, slots=True)
class _Prepared:
    """An INSERT compiled once for a table and a list of columns."""

    sql: str
    names: tuple[str, ...]  # in the order of the driver's parameters
    converters: tuple[tuple[str, Callable[[Any], Any]], ...]
    positional: bool


class Session:
    """The writer's connection with what is worth keeping between transactions. Used by one thread."""

    __slots__ = ("_inserts", "_raw", "connection")

    def __init__(self, connection: Connection) -> None:
        self.connection = connection
        self._raw = connection.connection.driver_connection
        self._inserts: dict[tuple[Table, tuple[str, ...]], _Prepared] = {}

    def run(self, sql: str) -> None:
        """Run a statement without parameters at driver level."""
        assert self._raw is not None
        cursor = self._raw.cursor()
        try:
            cursor.execute(sql)
        finally:
            cursor.close()

    def insert(self, table: Table, values: dict[str, Any]) -> None:
        """Insert one row at driver level; driver errors come as those of SQLAlchemy."""
        assert self._raw is not None
        key = (table, tuple(values))
        prepared = self._inserts.get(key)
        if prepared is None:
            prepared = self._inserts[key] = _prepare(table, key[1], self.connection.dialect)
        for name, convert in prepared.converters:
            values[name] = convert(values[name])
        arguments = tuple([values[name] for name in prepared.names]) if prepared.positional else values
        cursor = self._raw.cursor()
        try:
            cursor.execute(prepared.sql, arguments)
        except self.connection.dialect.loaded_dbapi.Error as error:
            raise DBAPIError.instance(
                prepared.sql,
                None,
                error,
                self.connection.dialect.loaded_dbapi.Error,
                hide_parameters=True,
                dialect=self.connection.dialect,
            ) from error
        finally:
            cursor.close()


class Transaction:
    """One function's part of a transaction. It ends with the function: never keep it, nor a result of it."""

    __slots__ = ("_callbacks", "_ended", "_memory", "_own", "_session", "now")

    now: float
    """The time of this transaction, seconds since the epoch (UTC)."""

    def __init__(self, session: Session, *, now: float, memory: Mapping[str, Any]) -> None:
        self._session = session
        self._memory = memory
        self._own: dict[str, Any] = {}
        self._callbacks: list[Callable[[], object]] = []
        self._ended = False
        self.now = now

    @overload
    def execute(
        self, statement: TypedReturnsRows[*_Ts], parameters: Parameters | None = None, /
    ) -> CursorResult[*_Ts]: ...

    @overload
    def execute(
        self, statement: Executable, parameters: Parameters | None = None, /
    ) -> CursorResult[*tuple[Any, ...]]: ...

    def execute(self, statement: Executable, parameters: Parameters | None = None, /) -> CursorResult[Any]:
        """Run a statement of SQLAlchemy Core; a list of parameters runs it for each."""
        self._check()
        return self._session.connection.execute(statement, parameters)

    def insert(self, table: Table, /, **values: Any) -> None:
        """Insert one row on the fast path: compiled once per table and columns, run by the driver itself.

        Columns not named get their server default. Raises sqlalchemy.exc.IntegrityError as `execute` does.
        """
        self._check()
        self._session.insert(table, values)

    def after_commit(self, callback: Callable[[], object], /) -> None:
        """Have `callback` called in the event loop once the commit is durable, before the caller resumes."""
        self._check()
        self._callbacks.append(callback)

    def recall(self, key: str) -> Any:
        """What an earlier transaction of this writer left by `remember`, or None: be able to reload it."""
        self._check()
        return self._own[key] if key in self._own else self._memory.get(key)

    def remember(self, key: str, value: object) -> None:
        """Leave an immutable value for later transactions; undone when this one is undone."""
        self._check()
        self._own[key] = value

    def _end(self) -> tuple[list[Callable[[], object]], dict[str, Any]]:
        self._ended = True
        return self._callbacks, self._own

    def _check(self) -> None:
        if self._ended:
            raise RuntimeError("This transaction has ended. Use it inside the function that it was given to.")


Reader: TypeAlias = Connection | Transaction
"""What a reading query takes: the connection of a read or a transaction."""


def _prepare(table: Table, columns: tuple[str, ...], dialect: Dialect) -> _Prepared:
    compiled = insert_into(table).compile(dialect=dialect, column_keys=list(columns))
    names = tuple(compiled.positiontup) if compiled.positiontup is not None else columns
    converters = []
    for name in columns:
        convert = table.c[name].type.dialect_impl(dialect).bind_processor(dialect)
        if convert is not None:
            converters.append((name, convert))
    return _Prepared(str(compiled), names, tuple(converters), positional=compiled.positiontup is not None)
