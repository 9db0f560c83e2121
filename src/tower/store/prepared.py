"""Statements on the way of every run: compiled once for the process, executed by the driver itself.

SQLAlchemy takes some thirty microseconds around each execution of a statement that SQLite answers in five.
What a module builds once as `NAME = prepared(select(...))` goes past that, with the same conversions of
values: in lookups (`Database.read_now`) and in transactions, on SQLite. All else is executed as ever.
"""

from __future__ import annotations

from collections import namedtuple
from collections.abc import Callable, Iterator, Mapping
from typing import Any, TypeVar

from sqlalchemy.engine import Connection, Dialect
from sqlalchemy.exc import DBAPIError, MultipleResultsFound, NoResultFound
from sqlalchemy.sql.base import Executable

_S = TypeVar("_S", bound=Executable)
_Converters = tuple[tuple[int, Callable[[Any], Any]], ...]
_NOTHING: Mapping[str, Any] = {}

_marked: dict[int, Executable] = {}
_plans: dict[int, _Plan] = {}


def prepared(statement: _S) -> _S:
    """Mark a statement that a module builds once and never changes."""
    _marked[id(statement)] = statement
    return statement


def execute(driver: Any, dialect: Dialect, statement: Executable, parameters: Any) -> Rows | None:
    """Run a statement that was marked; None for any other, or for several rows of parameters.

    Raises what SQLAlchemy raises for errors of the driver.
    """
    plan = _plans.get(id(statement))
    if plan is None:
        if id(statement) not in _marked:
            return None
        plan = _plans[id(statement)] = _Plan(statement, dialect)
    if parameters is None:
        parameters = _NOTHING
    elif not isinstance(parameters, Mapping):
        return None
    try:
        cursor = driver.execute(plan.sql, plan.arguments(parameters))
        return Rows(plan, cursor)
    except dialect.loaded_dbapi.Error as error:
        wrapped = dialect.loaded_dbapi.Error
        raise DBAPIError.instance(
            plan.sql, None, error, wrapped, hide_parameters=True, dialect=dialect
        ) from error


class Lookup:
    """A connection to read from, for one function: what was marked goes to the driver, the rest as ever."""

    __slots__ = ("_connection", "_dialect", "_driver")

    def __init__(self, connection: Connection, driver: Any) -> None:
        self._connection = connection
        self._driver = driver
        self._dialect = connection.dialect

    def execute(self, statement: Any, parameters: Any = None, /, **options: Any) -> Any:
        """As of a connection."""
        if not options:
            rows = execute(self._driver, self._dialect, statement, parameters)
            if rows is not None:
                return rows
        return self._connection.execute(statement, parameters, **options)

    @property
    def plain(self) -> Connection:
        """The connection itself, for what looks into the schema."""
        return self._connection

    def __getattr__(self, name: str) -> Any:
        return getattr(self._connection, name)


class Rows:
    """What a statement gave: the part of SQLAlchemy's result that the queries of this package use."""

    __slots__ = ("_rows", "rowcount")

    def __init__(self, plan: _Plan, cursor: Any) -> None:
        self.rowcount: int = cursor.rowcount
        self._rows = plan.rows(cursor.fetchall()) if plan.row is not None else []

    def __iter__(self) -> Iterator[Any]:
        return iter(self._rows)

    def all(self) -> list[Any]:
        """Every row."""
        return self._rows

    def first(self) -> Any:
        """The first row, or None."""
        return self._rows[0] if self._rows else None

    def one(self) -> Any:
        """The only row. Raises as SQLAlchemy does when there is another number of them."""
        if not self._rows:
            raise NoResultFound("No row was found when one was required")
        if len(self._rows) > 1:
            raise MultipleResultsFound("Multiple rows were found when exactly one was required")
        return self._rows[0]

    def one_or_none(self) -> Any:
        """The only row, or None. Raises as SQLAlchemy does when there are several."""
        return self.one() if self._rows else None

    def scalar(self) -> Any:
        """The first value of the first row, or None."""
        return self._rows[0][0] if self._rows else None


class _Plan:
    """A statement as the driver takes it, and how values become those of Python."""

    __slots__ = ("_binds", "_converters", "_defaults", "_order", "row", "sql")

    def __init__(self, statement: Executable, dialect: Dialect) -> None:
        compiled: Any = statement.compile(dialect=dialect)  # type: ignore[attr-defined]
        if compiled.post_compile_params:
            raise TypeError("a statement with a list of values is another one for each length of the list")
        self.sql = str(compiled)
        self._order: tuple[str, ...] = tuple(compiled.positiontup or ())
        given = compiled.params
        self._defaults = {name: given[name] for name in self._order if not compiled.binds[name].required}
        self._binds: dict[str, Callable[[Any], Any]] = dict(compiled._bind_processors)
        columns = getattr(compiled, "_result_columns", ())
        self.row: Any = namedtuple("Row", [each.keyname for each in columns]) if columns else None  # noqa: PYI024
        self._converters: _Converters = tuple(
            (place, convert)
            for place, each in enumerate(columns)
            if (convert := each.type.dialect_impl(dialect).result_processor(dialect, None)) is not None
        )

    def arguments(self, given: Mapping[str, Any]) -> tuple[Any, ...]:
        """The values in the order of the statement. Raises KeyError for one that is missing."""
        defaults, binds = self._defaults, self._binds
        if not binds and not defaults:
            return tuple([given[name] for name in self._order])
        values = []
        for name in self._order:
            value = given[name] if name in given else defaults[name]
            convert = binds.get(name)
            values.append(value if convert is None else convert(value))
        return tuple(values)

    def rows(self, found: list[tuple[Any, ...]]) -> list[Any]:
        """Rows of the driver with the values and names that the statement's columns have."""
        make = self.row._make
        if not self._converters:
            return [make(values) for values in found]
        made = []
        for each in found:
            values = list(each)
            for place, convert in self._converters:
                values[place] = convert(values[place])
            made.append(make(values))
        return made
