"""Codecs for the literal types of an interface: a task that is known only by what the server says of it."""

from __future__ import annotations

from flyteidl2.core import types_pb2
from google.protobuf import json_format

from flyte._values.codec import (
    Codec,
    EnumCodec,
    ListCodec,
    LiteralType,
    MapCodec,
    NoneCodec,
    UnionCodec,
    UnsupportedCodec,
)
from flyte._values.faults import MAX_DEPTH
from flyte._values.packed import DictCodec, SchemaCodec
from flyte._values.primitives import BY_SIMPLE


def codec_for(kind: LiteralType, depth: int = 0) -> Codec:
    """The codec for a literal type: it takes JSON-like values, and the instances they could stand for.

    A type that this SDK does not speak gets a codec that fails when a value is passed or read, so that an
    input with a default can still be left alone.
    """
    if depth > MAX_DEPTH:
        return UnsupportedCodec(kind, "a type nested this deep")
    tag = kind.structure.tag
    match kind.WhichOneof("type"):
        case "simple":
            return _simple(kind, tag)
        case "enum_type":
            members = {name: name for name in kind.enum_type.values}
            return EnumCodec("enum", members, {}, foreign=True, **_tag(tag))
        case "collection_type":
            return ListCodec(codec_for(kind.collection_type, depth + 1), **_tag(tag))
        case "map_value_type":
            return MapCodec(codec_for(kind.map_value_type, depth + 1), **_tag(tag))
        case "union_type":
            if "python_class_name" in kind.metadata.fields:
                return UnsupportedCodec(kind, "a pickled object")
            return UnionCodec(tuple(codec_for(each, depth + 1) for each in kind.union_type.variants))
        case "blob":
            return UnsupportedCodec(kind, "a file or directory")
        case "structured_dataset_type" | "schema":
            return UnsupportedCodec(kind, "a data frame")
        case _:
            return UnsupportedCodec(kind, "a value of unknown type")


def _simple(kind: LiteralType, tag: str) -> Codec:
    if kind.simple in BY_SIMPLE:
        return BY_SIMPLE[kind.simple]
    if kind.simple == types_pb2.NONE:
        return NoneCodec()
    if kind.simple != types_pb2.STRUCT:
        return UnsupportedCodec(kind, "a value of unknown type")
    schema = json_format.MessageToDict(kind.metadata)
    return SchemaCodec(kind, schema, **_tag(tag)) if schema else DictCodec(**_tag(tag))


def _tag(tag: str) -> dict[str, str]:
    return {"tag": tag} if tag else {}
