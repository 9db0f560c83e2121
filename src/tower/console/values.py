"""Literals of the wire as text for a page. What cannot be read is shown by its kind, never a failure."""

from __future__ import annotations

import json
from collections.abc import Iterable
from datetime import timedelta
from itertools import islice, takewhile
from typing import Any

import msgpack
from flyteidl2.core import literals_pb2
from google.protobuf.json_format import MessageToDict

MAX_TEXT = 20_000
MAX_DEPTH = 20
MAX_VALUES = 1_000
"""So many inputs or outputs are shown."""

_PARTS = 20_000
_PARTS_OF_A_PAGE = 200_000
_MAX_PACKED = 1024 * 1024
_MAX_STRUCT = 256 * 1024
_EXACT_DAYS = 10_000


class Room:
    """How many parts of a value are looked at: it is as long as its author likes (T45)."""

    def __init__(self, parts: int) -> None:
        self.parts = parts
        self.taken = 0

    def take(self) -> bool:
        """Whether there is room for one more."""
        self.taken += 1
        return not self.over

    @property
    def over(self) -> bool:
        """Whether something is left out."""
        return self.taken > self.parts


def show_all(literals: Iterable[tuple[str, literals_pb2.Literal]]) -> list[tuple[str, str]]:
    """Named values as text, the first of them where there are more than a page has room for."""
    shown, left = [], _PARTS_OF_A_PAGE
    for name, literal in islice(literals, MAX_VALUES):
        room = Room(min(_PARTS, max(left, 0)))
        shown.append((name, show(literal, room)))
        left -= room.taken
    return shown


def show(literal: literals_pb2.Literal, room: Room | None = None) -> str:
    """A value as people write it: JSON, but for a single text, which stands as it is."""
    room = Room(_PARTS) if room is None else room
    value = _plain(literal, 0, room)
    text = value if isinstance(value, str) else json.dumps(value, ensure_ascii=False, indent=2, default=str)
    if room.over:
        return f"{text[:MAX_TEXT]}\n… (too long to show)"
    return text if len(text) <= MAX_TEXT else f"{text[:MAX_TEXT]}\n… ({len(text)} characters)"


def _plain(literal: literals_pb2.Literal, depth: int, room: Room) -> Any:
    if depth > MAX_DEPTH or not room.take():
        return "…"
    match literal.WhichOneof("value"):
        case "scalar":
            try:
                return _scalar(literal.scalar, depth, room)
            except (ValueError, OverflowError):  # times out of every range, a struct with what JSON has not
                return f"({literal.scalar.WhichOneof('value')} that cannot be read)"
        case "collection":
            within = takewhile(lambda _: not room.over, literal.collection.literals)
            return [_plain(each, depth + 1, room) for each in within]
        case "map":
            pairs = takewhile(lambda _: not room.over, literal.map.literals.items())
            return {key: _plain(each, depth + 1, room) for key, each in pairs}
        case "offloaded_metadata":
            return f"(stored at {literal.offloaded_metadata.uri})"
        case _:
            return None


def _scalar(scalar: literals_pb2.Scalar, depth: int, room: Room) -> Any:
    match scalar.WhichOneof("value"):
        case "primitive":
            return _primitive(scalar.primitive)
        case "union":
            return _plain(scalar.union.value, depth + 1, room)
        case "none_type":
            return None
        case "binary":
            return _binary(scalar.binary, room)
        case "generic":
            size = scalar.generic.ByteSize()
            return MessageToDict(scalar.generic) if size <= _MAX_STRUCT else f"({size} bytes)"
        case "blob":
            return f"(stored at {scalar.blob.uri})"
        case "structured_dataset":
            return f"(stored at {scalar.structured_dataset.uri})"
        case kind:
            return f"({kind})"


def _primitive(primitive: literals_pb2.Primitive) -> Any:
    match primitive.WhichOneof("value"):
        case "datetime":
            return primitive.datetime.ToJsonString()
        case "duration":
            days, rest = divmod(primitive.duration.seconds, 86400)
            return str(timedelta(days=days, seconds=rest)) if abs(days) < _EXACT_DAYS else f"{days} days"
        case None:
            return None
        case kind:
            return getattr(primitive, kind)


def _binary(binary: literals_pb2.Binary, room: Room) -> Any:
    if binary.tag != "msgpack" or len(binary.value) > _MAX_PACKED:
        return f"({len(binary.value)} bytes)"
    try:
        return _readable(msgpack.unpackb(binary.value, strict_map_key=False), room)
    except (ValueError, TypeError, RecursionError, msgpack.UnpackException):
        return f"({len(binary.value)} bytes that cannot be read)"


def _readable(value: Any, room: Room) -> Any:
    """Keys of every kind as text, so that JSON can hold them."""
    if not room.take():
        return "…"
    if isinstance(value, dict):
        pairs = takewhile(lambda _: not room.over, value.items())
        return {str(key): _readable(each, room) for key, each in pairs}
    if isinstance(value, list | tuple):
        return [_readable(each, room) for each in takewhile(lambda _: not room.over, value)]
    return f"({len(value)} bytes)" if isinstance(value, bytes) else value
