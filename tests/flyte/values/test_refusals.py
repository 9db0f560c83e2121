"""What does not fit is refused with the name of the input, the declared type and what came."""

from __future__ import annotations

import datetime as dt
import enum
from dataclasses import dataclass
from typing import Any, Literal, Optional, TypedDict

import pytest
from flyteidl2.core import literals_pb2, types_pb2
from hypothesis import given
from hypothesis import strategies as st
from pydantic import BaseModel

from flyte._values import MAX_BYTES, check_size, codec_for, codec_of
from flyte.errors import DeclarationError, RemoteTaskUsageError


class Level(enum.Enum):
    LOW = 1
    HIGH = 2


@dataclass
class Box:
    size: int
    label: str = "none"


class Crate(BaseModel):
    boxes: list[Box]
    level: Level = Level.LOW


@pytest.mark.parametrize(
    ("annotation", "value", "words"),
    [
        (int, "1", ["int", "str '1'"]),
        (int, 1.0, ["int", "float 1.0"]),
        (int, True, ["int", "bool True"]),
        (int, None, ["int", "None"]),
        (int, 2**63, ["int"]),
        (float, "1", ["float", "str"]),
        (float, 10**400, ["float", "large number"]),
        (str, 1, ["str", "int 1"]),
        (str, "\ud800", ["str"]),
        (bool, 1, ["bool", "int 1"]),
        (bool, "true", ["bool", "str 'true'"]),
        (dt.datetime, "2024-01-01", ["datetime", "str"]),
        (dt.date, dt.datetime(2024, 1, 1), ["date", "datetime"]),  # noqa: DTZ001
        (dt.timedelta, 5, ["timedelta", "int 5"]),
        (dt.timedelta, dt.timedelta.max, ["timedelta"]),
        (Level, 3, ["Level", "LOW, HIGH"]),
        (Level, "low", ["Level", "LOW, HIGH", "'low'"]),
        (list[int], (1,), ["list[int]", "tuple"]),
        (list[int], [1, "a"], ["'x'[1]", "int", "str 'a'"]),
        (dict[str, int], {1: 1}, ["keys must be str"]),
        (dict[str, int], {"a": "b"}, ["'x'['a']", "int"]),
        (dict, [1], ["dict", "list"]),
        (dict, {"a": object()}, ["object"]),
        (dict, {"a": {1, 2}}, ["set"]),
        (dict, {"a": {2: 1}}, ["keys of type str"]),
        (dict, {"a": 2**64}, ["packed"]),
        (Optional[int], "a", ["int", "str 'a'"]),  # noqa: UP045 - the older spelling, too
        (int | str, 1.5, ["int | str", "float 1.5"]),
        (Box, {"size": "1"}, ["'x'.size", "Box"]),
        (Box, {}, ["'x'.size", "required"]),
        (Box, Box("1"), ["Box"]),  # type: ignore[arg-type]
        (Box, 7, ["Box", "int 7"]),
        (Crate, {"boxes": [{"size": 1}, {"size": None}]}, ["'x'.boxes.1.size"]),
        (Literal["a", "b"], "c", ["a, b"]),
    ],
)
def test_refused(annotation: Any, value: Any, words: list[str]) -> None:
    with pytest.raises(RemoteTaskUsageError) as raised:
        codec_of(annotation).encode(value, "input 'x'")
    text = str(raised.value)
    assert text.startswith("input 'x'")
    for word in words:
        assert word in text


@pytest.mark.parametrize(
    ("name", "value"), [("x", "sk-live-0123456789abcdef"), ("api_token", "hunter2"), ("password", 1234)]
)
def test_a_message_never_shows_what_may_be_a_secret(name: str, value: Any) -> None:
    for annotation in (dt.timedelta, Level, list[int], Box):
        with pytest.raises(RemoteTaskUsageError) as raised:
            codec_of(annotation).encode(value, f"input {name!r}")
        assert str(value) not in str(raised.value)


def test_a_model_error_never_shows_the_value() -> None:
    with pytest.raises(RemoteTaskUsageError) as raised:
        codec_of(Box).encode({"size": "topsecretvalue"}, "input 'x'")
    assert "topsecret" not in str(raised.value)
    assert raised.value.__cause__ is None


class Shape(TypedDict):
    a: int


@pytest.mark.parametrize(
    "annotation",
    [list, tuple, set, Any, object, bytes, tuple[int, str], set[int], dict[int, str], Shape, complex, "int"],
)
def test_no_form_on_the_wire(annotation: Any) -> None:
    with pytest.raises(DeclarationError):
        codec_of(annotation)


def test_depth_of_types_and_values() -> None:
    deep: Any = int
    for _ in range(30):
        deep = list[deep]
    with pytest.raises(DeclarationError, match="nested"):
        codec_of(deep)
    value: dict[str, Any] = {}
    for _ in range(100):
        value = {"a": value}
    with pytest.raises(RemoteTaskUsageError, match="nested"):
        codec_of(dict).encode(value, "x")
    loop: list[Any] = []
    loop.append(loop)
    with pytest.raises(RemoteTaskUsageError, match="nested"):
        codec_of(dict).encode({"a": loop}, "x")


def test_size() -> None:
    literal = codec_of(str).encode("a" * (MAX_BYTES + 1), "x")
    with pytest.raises(RemoteTaskUsageError, match="bytes"):
        check_size(literal, what="The inputs")


@pytest.mark.parametrize(
    ("annotation", "value", "expected"),
    [
        (dt.datetime, "2024-01-02T03:04:05Z", dt.datetime(2024, 1, 2, 3, 4, 5, tzinfo=dt.UTC)),
        (dt.datetime, "2024-01-02T03:04:05+02:00", dt.datetime(2024, 1, 2, 1, 4, 5, tzinfo=dt.UTC)),
        (dt.datetime, "2024-01-02", dt.datetime(2024, 1, 2, tzinfo=dt.UTC)),
        (dt.date, dt.date(2024, 1, 2), dt.date(2024, 1, 2)),
        (dt.timedelta, 1.5, dt.timedelta(seconds=1.5)),
        (dt.timedelta, dt.timedelta(days=1), dt.timedelta(days=1)),
        (Level, "HIGH", Level.HIGH),
        (Level, Level.HIGH, Level.HIGH),
        (Box, {"size": 1}, Box(1)),
        (Box, Box(1, "b"), Box(1, "b")),
        (Crate, {"boxes": [{"size": 2}]}, Crate(boxes=[Box(2)])),
        (Crate, Crate(boxes=[Box(2)], level=Level.HIGH), Crate(boxes=[Box(2)], level=Level.HIGH)),
        (Box | None, None, None),
        (Box | None, {"size": 3}, Box(3)),
        (float, 1, 1.0),
    ],
)
def test_json_for_a_remote_task(annotation: Any, value: Any, expected: Any) -> None:
    own = codec_of(annotation)
    assert own.decode(codec_for(own.type).encode(value, "x"), "x") == expected


@pytest.mark.parametrize(
    ("annotation", "value", "words"),
    [
        (dt.datetime, "yesterday", ["datetime"]),
        (dt.timedelta, "5s", ["timedelta"]),
        (dt.timedelta, 1e300, ["timedelta"]),
        (Level, "LOWER", ["LOW, HIGH"]),
        (Box, {"size": "1"}, ["x.size", "integer", "str '1'"]),
        (Box, {"size": True}, ["x.size", "integer"]),
        (Box, {}, ["missing size"]),
        (Box, [1], ["Box", "list"]),
        (Crate, {"boxes": [{"size": 1}, {"size": None}]}, ["x.boxes[1].size"]),
        (Crate, {"boxes": [], "level": 7}, ["x.level"]),
        (Crate, {"boxes": {}}, ["x.boxes", "array"]),
    ],
)
def test_json_that_a_remote_task_does_not_take(annotation: Any, value: Any, words: list[str]) -> None:
    remote = codec_for(codec_of(annotation).type)
    with pytest.raises(RemoteTaskUsageError) as raised:
        remote.encode(value, "x")
    for word in words:
        assert word in str(raised.value)


def test_defaults_of_a_remote_model_are_filled_in() -> None:
    remote = codec_for(codec_of(Box).type)
    assert remote.decode(remote.encode({"size": 1}, "x"), "x") == {"size": 1, "label": "none"}


def test_types_of_other_sdks_fail_only_when_used() -> None:
    blob = types_pb2.LiteralType(blob=types_pb2.BlobType(format="csv"))
    codec = codec_for(blob)
    for use in (lambda: codec.encode("s3://x", "x"), lambda: codec.decode(literals_pb2.Literal(), "x")):
        with pytest.raises(RemoteTaskUsageError, match="file"):
            use()


@given(st.binary(max_size=60))
def test_arbitrary_packed_bytes_never_break_out(body: bytes) -> None:
    literal = literals_pb2.Literal(
        scalar=literals_pb2.Scalar(binary=literals_pb2.Binary(value=body, tag="msgpack"))
    )
    for annotation in (dict, Box, Box | None):
        try:
            codec_of(annotation).decode(literal, "x")
        except RemoteTaskUsageError:
            continue


@given(
    st.sampled_from([int, str, list[int], dict[str, int], Box, Level, int | None, dt.timedelta]), st.binary()
)
def test_arbitrary_literals_never_break_out(annotation: Any, raw: bytes) -> None:
    try:
        literal = literals_pb2.Literal.FromString(raw)
    except Exception:
        return
    try:
        codec_of(annotation).decode(literal, "x")
    except RemoteTaskUsageError:
        return
