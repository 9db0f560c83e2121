"""The scalar types: one row per type with its field on the wire and both conversions."""

from __future__ import annotations

import datetime as dt
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Final

from flyteidl2.core import literals_pb2, types_pb2
from google.protobuf import duration_pb2, timestamp_pb2

from flyte._values.codec import Literal, LiteralType, wrong_literal
from flyte._values.faults import mismatch
from flyte.errors import RemoteTaskUsageError

_REFUSED: Final = object()
_INT64 = range(-(2**63), 2**63)
_LONGEST = dt.timedelta(days=3_652_500)  # google.protobuf.Duration ends at 10,000 years


@dataclass(frozen=True)
class PrimitiveCodec:
    """A scalar type.

    :ivar take: what goes on the wire for a value, or `_REFUSED`.
    :ivar give: the value for what came over the wire.
    :ivar read: takes what a JSON client writes for such a value (ISO 8601 text, seconds), or `_REFUSED`.
    """

    python: type
    simple: types_pb2.SimpleType
    field: str
    take: Callable[[Any], Any]
    give: Callable[[Any], Any]
    read: Callable[[Any], Any] | None = None
    lenient: bool = False
    also: tuple[str, ...] = ()

    @cached_property
    def label(self) -> str:
        return self.python.__name__

    @cached_property
    def tag(self) -> str:
        return self.python.__name__

    @cached_property
    def type(self) -> LiteralType:
        return LiteralType(simple=self.simple)

    def exact(self, value: Any) -> bool:
        """Whether the value is of this type and no other."""
        return type(value) is self.python

    def encode(self, value: Any, path: str) -> Literal:
        wire = self.take(value)
        if wire is _REFUSED and self.lenient and self.read is not None:
            wire = self.read(value)
        if wire is _REFUSED:
            raise mismatch(path, self.label, value)
        return Literal(scalar=literals_pb2.Scalar(primitive=literals_pb2.Primitive(**{self.field: wire})))

    def decode(self, literal: Literal, path: str) -> Any:
        if literal.HasField("scalar") and literal.scalar.HasField("primitive"):
            kind = literal.scalar.primitive.WhichOneof("value")
            if kind == self.field or kind in self.also:
                try:
                    return self.give(getattr(literal.scalar.primitive, kind))
                except (ValueError, OverflowError):
                    raise RemoteTaskUsageError(f"{path}: beyond the range of {self.label}.") from None
        raise wrong_literal(path, self.label, literal)


def _integer(value: Any) -> Any:
    if isinstance(value, bool) or not isinstance(value, int) or value not in _INT64:
        return _REFUSED
    return int(value)


def _number(value: Any) -> Any:
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        return _REFUSED
    try:
        return float(value)
    except OverflowError:
        return _REFUSED


def _text(value: Any) -> Any:
    if not isinstance(value, str):
        return _REFUSED
    try:
        value.encode()
    except UnicodeEncodeError:
        return _REFUSED
    return str.__str__(value)


def _truth(value: Any) -> Any:
    return value if isinstance(value, bool) else _REFUSED


def _instant(value: Any) -> Any:
    if not isinstance(value, dt.datetime):
        return _REFUSED
    stamp = timestamp_pb2.Timestamp()
    try:
        aware = value if value.tzinfo is not None else value.replace(tzinfo=dt.UTC)
        stamp.FromDatetime(aware.astimezone(dt.UTC))
    except (ValueError, OverflowError):
        return _REFUSED
    return stamp


def _instant_from_json(value: Any) -> Any:
    if type(value) is dt.date:
        return _day(value)
    if not isinstance(value, str):
        return _REFUSED
    try:
        return _instant(dt.datetime.fromisoformat(value))
    except ValueError:
        return _REFUSED


def _day(value: Any) -> Any:
    if not isinstance(value, dt.date) or isinstance(value, dt.datetime):
        return _REFUSED
    return _instant(dt.datetime.combine(value, dt.time(), tzinfo=dt.UTC))


def _span(value: Any) -> Any:
    if not isinstance(value, dt.timedelta) or not -_LONGEST <= value <= _LONGEST:
        return _REFUSED
    span = duration_pb2.Duration()
    span.FromTimedelta(value)
    return span


def _span_from_json(value: Any) -> Any:
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        return _REFUSED
    try:
        return _span(dt.timedelta(seconds=value))
    except (ValueError, OverflowError):
        return _REFUSED


def _same(value: Any) -> Any:
    return value


def _aware(stamp: timestamp_pb2.Timestamp) -> dt.datetime:
    moment: dt.datetime = stamp.ToDatetime(tzinfo=dt.UTC)
    return moment


_ROWS = (
    PrimitiveCodec(int, types_pb2.INTEGER, "integer", _integer, _same),
    PrimitiveCodec(float, types_pb2.FLOAT, "float_value", _number, float, also=("integer",)),
    PrimitiveCodec(str, types_pb2.STRING, "string_value", _text, _same),
    PrimitiveCodec(bool, types_pb2.BOOLEAN, "boolean", _truth, _same),
    PrimitiveCodec(dt.datetime, types_pb2.DATETIME, "datetime", _instant, _aware, _instant_from_json),
    PrimitiveCodec(dt.date, types_pb2.DATETIME, "datetime", _day, lambda stamp: _aware(stamp).date()),
    PrimitiveCodec(
        dt.timedelta,
        types_pb2.DURATION,
        "duration",
        _span,
        lambda span: span.ToTimedelta(),
        _span_from_json,
    ),
)

BY_PYTHON: Mapping[type, PrimitiveCodec] = {row.python: row for row in _ROWS}
"""By the annotation of a parameter: values must be of that type (an int will do for a float)."""

BY_SIMPLE: Mapping[int, PrimitiveCodec] = {
    row.simple: PrimitiveCodec(
        row.python, row.simple, row.field, row.take, row.give, row.read, lenient=True, also=row.also
    )
    for row in _ROWS
    if row.python is not dt.date
}
"""By the simple type of an interface: values may also be what JSON has in place of the type."""
