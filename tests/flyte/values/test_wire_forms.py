"""The forms on the wire that other SDKs rely on, pinned: they may be added to, never changed."""

from __future__ import annotations

import datetime as dt
import enum
from dataclasses import dataclass
from typing import Any

import msgpack
import pytest
from flyteidl2.core import literals_pb2, types_pb2
from google.protobuf import text_format
from pydantic import BaseModel

from flyte._values import codec_of


class Color(enum.Enum):
    RED = "red"


@dataclass
class Inner:
    a: int
    color: Color = Color.RED


class Model(BaseModel):
    q: int
    at: dt.datetime | None = None


LITERALS = [
    (int, 1, "scalar { primitive { integer: 1 } }"),
    (float, 1.5, "scalar { primitive { float_value: 1.5 } }"),
    (str, "s", 'scalar { primitive { string_value: "s" } }'),
    (bool, True, "scalar { primitive { boolean: true } }"),
    (None, None, "scalar { none_type {} }"),
    (
        dt.datetime,
        dt.datetime(1970, 1, 2, tzinfo=dt.UTC),
        "scalar { primitive { datetime { seconds: 86400 } } }",
    ),
    (dt.date, dt.date(1970, 1, 2), "scalar { primitive { datetime { seconds: 86400 } } }"),
    (
        dt.timedelta,
        dt.timedelta(seconds=-1.5),
        "scalar { primitive { duration { seconds: -1 nanos: -500000000 } } }",
    ),
    (Color, Color.RED, 'scalar { primitive { string_value: "RED" } }'),
    (list[int], [1], "collection { literals { scalar { primitive { integer: 1 } } } }"),
    (
        dict[str, int],
        {"k": 1},
        'map { literals { key: "k" value { scalar { primitive { integer: 1 } } } } }',
    ),
    (
        int | None,
        None,
        "scalar { union { value { scalar { none_type {} } }"
        " type { simple: NONE structure { tag: 'none' } } } }",
    ),
    (
        int | str,
        "s",
        "scalar { union { value { scalar { primitive { string_value: 's' } } }"
        " type { simple: STRING structure { tag: 'str' } } } }",
    ),
]


@pytest.mark.parametrize(("annotation", "value", "text"), LITERALS, ids=lambda each: str(each)[:30])
def test_literals(annotation: Any, value: Any, text: str) -> None:
    assert codec_of(annotation).encode(value, "x") == text_format.Parse(text, literals_pb2.Literal())


TYPES = [
    (Color, 'enum_type { values: "RED" }'),
    (dict, "simple: STRUCT"),
    (dt.date, "simple: DATETIME"),
    (
        int | None,
        "union_type { variants { simple: INTEGER structure { tag: 'int' } }"
        " variants { simple: NONE structure { tag: 'none' } } }",
    ),
]


@pytest.mark.parametrize(("annotation", "text"), TYPES, ids=lambda each: str(each)[:30])
def test_types(annotation: Any, text: str) -> None:
    assert codec_of(annotation).type == text_format.Parse(text, types_pb2.LiteralType())


@pytest.mark.parametrize(
    ("annotation", "value", "packed", "tag"),
    [
        (dict, {"a": [1, None, 1.5]}, {"a": [1, None, 1.5]}, ""),
        (Inner, Inner(1), {"a": 1, "color": "red"}, "Object-Dataclass-Transformer"),
        (
            Model,
            Model(q=1, at=dt.datetime(2024, 1, 2, tzinfo=dt.UTC)),
            {"q": 1, "at": "2024-01-02T00:00:00Z"},
            "Pydantic Transformer",
        ),
    ],
)
def test_structures(annotation: Any, value: Any, packed: Any, tag: str) -> None:
    codec = codec_of(annotation)
    binary = codec.encode(value, "x").scalar.binary
    assert binary.tag == "msgpack"
    assert msgpack.unpackb(binary.value) == packed
    assert codec.type.simple == types_pb2.STRUCT
    assert codec.type.structure.tag == tag
    if tag:
        assert codec.type.metadata["type"] == "object"
        assert codec.type.metadata["title"] == annotation.__name__
        assert "properties" in codec.type.metadata.fields


def test_tags_in_unions() -> None:
    names = {
        bool: "bool",
        float: "float",
        dt.datetime: "datetime",
        dt.date: "date",
        dt.timedelta: "timedelta",
        list[int]: "Typed List",
        dict[str, int]: "Typed Dict",
        dict: "Typed Dict",
        Color: "DefaultEnumTransformer",
        Inner: "Object-Dataclass-Transformer",
        Model: "Pydantic Transformer",
    }
    for annotation, tag in names.items():
        assert codec_of(annotation | None).type.union_type.variants[0].structure.tag == tag  # type: ignore[operator]
