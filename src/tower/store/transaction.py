"""What a writing function holds while it runs: statements, the time, and what follows the commit."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from itertools import chain
from typing import Any, TypeAlias, TypeVarTuple, overload

from sqlalchemy import CursorResult, LargeBinary, Table
from sqlalchemy import insert as insert_into
from sqlalchemy.engine import Connection, Dialect
from sqlalchemy.exc import DBAPIError
from sqlalchemy.sql.base import Executable
from sqlalchemy.sql.selectable import TypedReturnsRows

from tower.store import prepared

_Ts = TypeVarTuple("_Ts")
Parameters: TypeAlias = Mapping[str, Any] | Sequence[Mapping[str, Any]]


_MOST_ROWS = 32
_MOST_PARAMETERS = 900
"""Of one statement: the least that an SQLite may be built with is 999."""


@dataclass(frozen=True, eq=False, slots=True)  # found again by identity: looking at 40 names takes longer
class Form:
    """What an INSERT is prepared for. A module makes one for each kind of row that it inserts often."""

    table: Table
    columns: tuple[str, ...]
    once: bool = False
    """A row whose key is there already stays as it is."""


class _Prepared:
    """An INSERT compiled once for a table and a list of columns."""

    __slots__ = ("_converters", "_group", "_order", "_sql", "_tail", "most", "names")

    def __init__(self, form: Form, dialect: Dialect) -> None:
        table, columns = form.table, form.columns
        compiled = insert_into(table).compile(dialect=dialect, column_keys=list(columns))
        self._sql = str(compiled)
        self._group = ", " + self._sql[self._sql.rindex("VALUES") + 6 :].strip()
        self._tail = " ON CONFLICT DO NOTHING" if form.once else ""
        self._converters = tuple(
            (place, convert)
            for place, name in enumerate(columns)
            if (convert := _converter(table.c[name].type, dialect)) is not None
        )
        positions = compiled.positiontup
        self.names = columns if positions is None else None
        self._order = None if positions is None else tuple(columns.index(name) for name in positions)
        if self._order == tuple(range(len(columns))):
            self._order = None
        several = dialect.name == "sqlite" and self._sql.endswith(")")
        self.most = max(1, min(_MOST_ROWS, _MOST_PARAMETERS // len(columns))) if several else 1

    def arguments(self, values: tuple[Any, ...]) -> tuple[Any, ...]:
        """The values of a row as the driver takes them, in its order."""
        if self._converters:
            converted = list(values)
            for place, convert in self._converters:
                converted[place] = convert(converted[place])
            values = tuple(converted)
        return values if self._order is None else tuple([values[place] for place in self._order])

    def sql(self, rows: int = 1) -> str:
        """The statement for as many rows."""
        return self._sql + self._group * (rows - 1) + self._tail


class Session:
    """The writer's connection with what is worth keeping between transactions. Used by one thread."""

    __slots__ = ("_forms", "_held", "_inserts", "_plain", "_raw", "connection", "holding")

    def __init__(self, connection: Connection) -> None:
        self.connection = connection
        self.holding = False
        """Whether rows wait for one another, to be inserted many at a time by `flush`."""
        self._held: dict[Form, list[tuple[Any, ...]]] = {}
        self._raw = connection.connection.driver_connection
        self._inserts: dict[Form, _Prepared] = {}
        self._forms: dict[tuple[Table, tuple[str, ...]], Form] = {}
        self._plain = connection.dialect.name == "sqlite"

    def run(self, sql: str, arguments: Any = ()) -> None:
        """Run a statement at driver level; driver errors come as those of SQLAlchemy."""
        assert self._raw is not None
        cursor = self._raw.cursor()
        try:
            cursor.execute(sql, arguments)
        except self.connection.dialect.loaded_dbapi.Error as error:
            raise DBAPIError.instance(
                sql,
                None,
                error,
                self.connection.dialect.loaded_dbapi.Error,
                hide_parameters=True,
                dialect=self.connection.dialect,
            ) from error
        finally:
            cursor.close()

    def execute(self, statement: Executable, parameters: Any) -> Any:
        """Run a statement of SQLAlchemy Core, at driver level where it was marked as `prepared`."""
        if self._plain:
            rows = prepared.execute(self._raw, self.connection.dialect, statement, parameters)
            if rows is not None:
                return rows
        return self.connection.execute(statement, parameters)

    def form(self, table: Table, columns: tuple[str, ...]) -> Form:
        """The form of rows with these columns."""
        return self._forms.setdefault((table, columns), Form(table, columns))

    def insert(self, form: Form, values: tuple[Any, ...]) -> None:
        """Insert one row, or hold it for `flush`."""
        prepared = self._inserts.get(form)
        if prepared is None:
            prepared = self._inserts[form] = _Prepared(form, self.connection.dialect)
        if self.holding and prepared.most > 1:
            held = self._held.get(form)
            if held is None:
                held = self._held[form] = []
            held.append(prepared.arguments(values))
            return
        arguments = prepared.arguments(values)
        named = prepared.names
        self.run(prepared.sql(), arguments if named is None else dict(zip(named, arguments, strict=True)))

    def flush(self) -> None:
        """Insert what is held, table by table in the order in which they came up.

        Each statement lets go of the interpreter once, and on a busy server getting it back costs more than
        the row: hence many rows in one. They come in few sizes, since each is a statement to prepare.
        """
        if not self._held:
            return
        held, self._held = self._held, {}
        for form, rows in held.items():
            prepared = self._inserts[form]
            place, left = 0, len(rows)
            while left:
                size = min(prepared.most, 1 << (left.bit_length() - 1))
                together = tuple(chain.from_iterable(rows[place : place + size]))
                self.run(prepared.sql(size), together)
                place, left = place + size, left - size

    def forget(self) -> None:
        """Drop what is held."""
        self._held = {}


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
        self._session.flush()
        found: CursorResult[Any] = self._session.execute(statement, parameters)
        return found

    def insert(self, table: Table, /, **values: Any) -> None:
        """Insert one row on the fast path: compiled once per table and columns, run by the driver itself.

        Columns not named get their server default. Raises sqlalchemy.exc.IntegrityError as `execute` does.
        """
        self._check()
        self._session.insert(self._session.form(table, tuple(values)), tuple(values.values()))

    def insert_row(self, form: Form, values: tuple[Any, ...], /) -> None:
        """`insert` where the columns are always the same."""
        self._check()
        self._session.insert(form, values)

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


def _converter(type_: Any, dialect: Dialect) -> Callable[[Any], Any] | None:
    if isinstance(type_, LargeBinary) and dialect.name == "sqlite":
        return None  # its driver takes bytes as they are
    convert: Callable[[Any], Any] | None = type_.dialect_impl(dialect).bind_processor(dialect)
    return convert
