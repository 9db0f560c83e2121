"""Literals of the wire as text for a page. What cannot be read is shown by its kind, never a failure."""

from __future__ import annotations

import json
from datetime import timedelta
from typing import Any

import msgpack
from flyteidl2.core import literals_pb2
from google.protobuf.json_format import MessageToDict

MAX_TEXT = 20_000
MAX_DEPTH = 20
_EXACT_DAYS = 10_000


def show(literal: literals_pb2.Literal) -> str:
    """A value as people write it: JSON, but for a single text, which stands as it is."""
    value = _plain(literal, 0)
    text = value if isinstance(value, str) else json.dumps(value, ensure_ascii=False, indent=2, default=str)
    return text if len(text) <= MAX_TEXT else f"{text[:MAX_TEXT]}\n… ({len(text)} characters)"


def _plain(literal: literals_pb2.Literal, depth: int) -> Any:
    if depth > MAX_DEPTH:
        return "…"
    match literal.WhichOneof("value"):
        case "scalar":
            try:
                return _scalar(literal.scalar, depth)
            except (ValueError, OverflowError):  # times out of every range, a struct with what JSON has not
                return f"({literal.scalar.WhichOneof('value')} that cannot be read)"
        case "collection":
            return [_plain(each, depth + 1) for each in literal.collection.literals]
        case "map":
            return {key: _plain(each, depth + 1) for key, each in literal.map.literals.items()}
        case "offloaded_metadata":
            return f"(stored at {literal.offloaded_metadata.uri})"
        case _:
            return None


def _scalar(scalar: literals_pb2.Scalar, depth: int) -> Any:
    match scalar.WhichOneof("value"):
        case "primitive":
            return _primitive(scalar.primitive)
        case "union":
            return _plain(scalar.union.value, depth + 1)
        case "none_type":
            return None
        case "binary":
            return _binary(scalar.binary)
        case "generic":
            return MessageToDict(scalar.generic)
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


def _binary(binary: literals_pb2.Binary) -> Any:
    if binary.tag != "msgpack":
        return f"({len(binary.value)} bytes)"
    try:
        return _readable(msgpack.unpackb(binary.value, strict_map_key=False))
    except (ValueError, TypeError, RecursionError, msgpack.UnpackException):
        return f"({len(binary.value)} bytes that cannot be read)"


def _readable(value: Any) -> Any:
    """Keys of every kind as text, so that JSON can hold them."""
    if isinstance(value, dict):
        return {str(key): _readable(each) for key, each in value.items()}
    if isinstance(value, list | tuple):
        return [_readable(each) for each in value]
    return f"({len(value)} bytes)" if isinstance(value, bytes) else value
