"""Pages of a list: filters and sort order from an allow-list of columns, keyset pagination, opaque tokens.

Every value is a bound parameter and every column comes from a table in the code, so that nothing a caller
sends becomes part of a statement (T46).
"""

from __future__ import annotations

import base64
import binascii
import json
import operator
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from enum import StrEnum
from typing import Any, NamedTuple, TypeVar

from sqlalchemy import ColumnElement, Float, Integer, Select, Table, and_, false, func, not_, or_
from sqlalchemy import tuple_ as tuples

from tower.errors import Invalid

Row = TypeVar("Row")

MAX_PAGE = 1000
DEFAULT_PAGE = 100
MAX_FILTERS = 20
MAX_VALUES = 100
MAX_TEXT = 1024
_INTEGER = re.compile(r"-?[0-9]{1,18}")


class Seen(NamedTuple):
    """What of a scope a caller sees: everything, or the things of these names only."""

    project: str
    domain: str
    names: tuple[str, ...] | None = None


def within(table: Table, scopes: Sequence[Seen]) -> ColumnElement[bool]:
    """The condition for rows of these scopes."""
    return or_(false(), *(_within(table, scope) for scope in scopes))


def _within(table: Table, scope: Seen) -> ColumnElement[bool]:
    place = and_(table.c.project == scope.project, table.c.domain == scope.domain)
    return place if scope.names is None else and_(place, table.c.name.in_(scope.names))


class Op(StrEnum):
    """How a filter compares."""

    EQUAL = "equal"
    NOT_EQUAL = "not_equal"
    GREATER = "greater_than"
    GREATER_OR_EQUAL = "greater_than_or_equal"
    LESS = "less_than"
    LESS_OR_EQUAL = "less_than_or_equal"
    CONTAINS = "contains"
    CONTAINS_ANY_CASE = "contains_case_insensitive"
    IN = "value_in"
    NOT_IN = "value_not_in"
    ENDS_WITH = "ends_with"
    NOT_ENDS_WITH = "not_ends_with"
    EXISTS = "exists"
    NOT_EXISTS = "not_exists"


@dataclass(frozen=True, slots=True)
class Filter:
    """One condition, as the caller wrote it."""

    op: Op
    field: str
    values: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Query:
    """What a caller asks of a list; `sort` "" is the list's own order, `limit` 0 its own size."""

    limit: int = 0
    token: str = ""
    sort: str = ""
    descending: bool = True
    filters: tuple[Filter, ...] = ()


@dataclass(frozen=True, slots=True)
class Page:
    """A query after all checks, ready to be put on a statement."""

    limit: int
    sort: str
    column: ColumnElement[Any]
    descending: bool
    after: tuple[Any, ...] | None
    conditions: tuple[ColumnElement[bool], ...]

    def apply(self, statement: Select[*tuple[Any, ...]], *, ties: Sequence[Any]) -> Select[*tuple[Any, ...]]:
        """Filter, order and cut; one row more than the page, so that `cut` can tell whether more follows.

        `ties` are columns that make the order total; a row class must have attributes of their names.
        """
        keys = [self.column, *(tie for tie in ties if tie is not self.column)]
        statement = statement.where(*self.conditions)
        if self.after is not None:
            if len(self.after) != len(keys):
                raise _stale()
            key, place = tuples(*keys), tuple(self.after)
            statement = statement.where(key < place if self.descending else key > place)
        order = [key.desc() if self.descending else key.asc() for key in keys]
        return statement.order_by(*order).limit(self.limit + 1)

    def count(self, statement: Select[*tuple[Any, ...]]) -> Select[*tuple[int]]:
        """How many there are on all pages together."""
        counted = statement.where(*self.conditions).order_by(None)
        return counted.with_only_columns(func.count(), maintain_column_froms=True)

    def cut(self, rows: Sequence[Row], *, ties: Sequence[Any]) -> tuple[list[Row], str]:
        """The rows of the page, and the token of the next one: "" behind the last."""
        if len(rows) <= self.limit:
            return list(rows), ""
        kept = list(rows[: self.limit])
        keys = [self.column, *(tie for tie in ties if tie is not self.column)]
        place = [getattr(kept[-1], str(getattr(key, "key", ""))) for key in keys]
        content = json.dumps([self.sort, self.descending, place], separators=(",", ":"))
        return kept, base64.urlsafe_b64encode(content.encode()).decode().rstrip("=")


_ORDER: dict[Op, Callable[[Any, Any], Any]] = {
    Op.GREATER: operator.gt,
    Op.GREATER_OR_EQUAL: operator.ge,
    Op.LESS: operator.lt,
    Op.LESS_OR_EQUAL: operator.le,
}

Special = Callable[[str, Filter], "ColumnElement[bool] | None"]
"""Builds the condition of a field that is no column; None when the field is not its own."""


def prepare(
    query: Query,
    *,
    sorts: Mapping[str, Any],
    fields: Mapping[str, ColumnElement[Any]],
    special: Special | None = None,
    max_limit: int = MAX_PAGE,
) -> Page:
    """Check a query against what this list offers. Raises Invalid naming what may stand there."""
    sort = query.sort or next(iter(sorts))
    if sort not in sorts:
        raise Invalid("This list cannot be sorted by that field.", hint=f"Sort by {', '.join(sorts)}.")
    if len(query.filters) > MAX_FILTERS:
        raise Invalid(f"A list takes at most {MAX_FILTERS} filters.")
    after = None
    if query.token:
        named, descending, after = _place(query.token)
        if (named, descending) != (sort, query.descending):
            raise _stale()
    conditions = []
    for each in query.filters:
        condition = special(each.field, each) if special is not None else None
        if condition is None:
            column = fields.get(each.field)
            if column is None:
                known = ", ".join(fields)
                raise Invalid("This list cannot be filtered by that field.", hint=f"Filter by {known}.")
            condition = compare(column, each)
        conditions.append(condition)
    limit = min(query.limit or DEFAULT_PAGE, max_limit)
    return Page(limit, sort, sorts[sort], query.descending, after, tuple(conditions))


def compare(column: ColumnElement[Any], condition: Filter, *, parse: Any = None) -> ColumnElement[bool]:
    """The condition on a column. Raises Invalid for a value that is none of the column's."""
    if len(condition.values) > MAX_VALUES or any(len(value) > MAX_TEXT for value in condition.values):
        raise Invalid(f"The filter on {condition.field} is too long.")
    if condition.op in {Op.EXISTS, Op.NOT_EXISTS}:
        return column.is_not(None) if condition.op is Op.EXISTS else column.is_(None)
    if not condition.values:
        raise Invalid(f"The filter on {condition.field} has no value.")
    convert = parse or _parser(column)
    values = [convert(value, condition.field) for value in condition.values]
    first = values[0]
    several = {Op.IN, Op.NOT_IN, Op.EQUAL, Op.NOT_EQUAL, Op.CONTAINS, Op.CONTAINS_ANY_CASE}
    if len(values) > 1 and condition.op not in several:
        raise Invalid(f"The filter on {condition.field} takes one value.")
    if condition.op in _ORDER:
        ordered: ColumnElement[bool] = _ORDER[condition.op](column, first)
        return ordered
    match condition.op:
        case Op.EQUAL | Op.IN:
            return column.in_(values)
        case Op.NOT_EQUAL | Op.NOT_IN:
            return column.not_in(values)
        case _:
            return _text(column, condition, values)


def _text(column: ColumnElement[Any], condition: Filter, values: list[Any]) -> ColumnElement[bool]:
    if not all(isinstance(value, str) and value for value in values):
        raise Invalid(f"The filter on {condition.field} needs a text.")
    match condition.op:
        case Op.CONTAINS:
            # LIKE ignores case in SQLite and not in PostgreSQL; replacing is the same in both
            return or_(*(func.replace(column, value, "") != column for value in values))
        case Op.CONTAINS_ANY_CASE:
            return or_(*(column.icontains(value, autoescape=True) for value in values))
        case _:
            end = and_(
                func.length(column) >= len(values[0]),
                func.substr(column, func.length(column) - len(values[0]) + 1) == values[0],
            )
            return end if condition.op is Op.ENDS_WITH else not_(end)


def _parser(column: ColumnElement[Any]) -> Callable[[str, str], Any]:
    if isinstance(column.type, Integer):
        return integer
    return moment if isinstance(column.type, Float) else text


def text(value: str, field: str) -> str:
    """A text without NUL, which no stored text holds."""
    if "\0" in value:
        raise Invalid(f"The filter on {field} holds a character that no {field} has.")
    return value


def integer(value: str, field: str) -> int:
    """A whole number."""
    if not _INTEGER.fullmatch(value):
        raise Invalid(f"The filter on {field} needs a whole number.")
    return int(value)


def moment(value: str, field: str) -> float:
    """A time in ISO 8601 (UTC when it names no zone) as seconds since the epoch."""
    try:
        at = datetime.fromisoformat(value)
    except ValueError as error:
        raise Invalid(f"The filter on {field} needs a time such as 2026-01-31T12:00:00Z.") from error
    return (at if at.tzinfo is not None else at.replace(tzinfo=UTC)).timestamp()


def _place(token: str) -> tuple[str, bool, tuple[Any, ...]]:
    try:
        if len(token) > 4 * MAX_TEXT:
            raise _stale()
        content = json.loads(base64.urlsafe_b64decode(token + "=" * (-len(token) % 4)))
        sort, descending, place = content
    except (ValueError, TypeError, binascii.Error, RecursionError) as error:
        raise _stale() from error
    plain = isinstance(place, list) and all(isinstance(value, str | int | float) for value in place)
    if not (isinstance(sort, str) and isinstance(descending, bool) and plain):
        raise _stale()
    if any(isinstance(value, int) and abs(value) >= 2**63 for value in place):
        raise _stale()
    return sort, descending, tuple(place)


def _stale() -> Invalid:
    return Invalid("The page token does not belong to this list.", hint="Start again without a token.")
