"""Values survive the way to a literal, over the wire and back."""

from __future__ import annotations

import datetime as dt
import enum
import math
from dataclasses import dataclass, field
from typing import Any

import pytest
from flyteidl2.core import literals_pb2
from hypothesis import given
from hypothesis import strategies as st
from pydantic import BaseModel

from flyte._values import codec_for, codec_of


class Color(enum.Enum):
    RED = "red"
    GREEN = "green"


@dataclass
class Point:
    x: int
    y: float = 0.5
    tags: list[str] = field(default_factory=list)
    color: Color = Color.RED
    after: dt.timedelta = dt.timedelta(seconds=1)


class Order(BaseModel):
    number: int
    at: Point | None = None
    due: dt.datetime | None = None


def through_wire(annotation: Any, value: Any) -> Any:
    codec = codec_of(annotation)
    raw = codec.encode(value, "input 'x'").SerializeToString()
    return codec.decode(literals_pb2.Literal.FromString(raw), "input 'x'")


texts = st.text(st.characters(exclude_categories=["Cs"]), max_size=20)
integers = st.integers(-(2**63), 2**63 - 1)
floats = st.floats(allow_nan=False)
instants = st.datetimes(timezones=st.just(dt.UTC))
spans = st.timedeltas(dt.timedelta(days=-3_000_000), dt.timedelta(days=3_000_000))
plain = st.recursive(
    st.none() | st.booleans() | integers | floats | texts,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(texts, inner, max_size=3),
    max_leaves=12,
)
points = st.builds(
    Point,
    integers,
    floats,
    st.lists(texts, max_size=3),
    st.sampled_from(Color),
    st.just(dt.timedelta(seconds=2)),
)
orders = st.builds(Order, number=integers, at=st.none() | points, due=st.none() | instants)

CASES = [
    (int, integers),
    (float, floats),
    (str, texts),
    (bool, st.booleans()),
    (type(None), st.none()),
    (dt.datetime, instants),
    (dt.date, st.dates()),
    (dt.timedelta, spans),
    (Color, st.sampled_from(Color)),
    (int | None, st.none() | integers),
    (int | str | bool | float, integers | texts | st.booleans() | floats),
    (list[int], st.lists(integers, max_size=5)),
    (list[list[str | None]], st.lists(st.lists(st.none() | texts, max_size=3), max_size=3)),
    (dict[str, float], st.dictionaries(texts, floats, max_size=5)),
    (dict, st.dictionaries(texts, plain, max_size=4)),
    (Point, points),
    (Order, orders),
    (list[Point | Color], st.lists(points | st.sampled_from(Color), max_size=3)),
]


@pytest.mark.parametrize(("annotation", "values"), CASES, ids=lambda case: str(case)[:40])
def test_round_trip(annotation: Any, values: st.SearchStrategy[Any]) -> None:
    @given(values)
    def law(value: Any) -> None:
        back = through_wire(annotation, value)
        assert back == value
        assert type(back) is type(value)

    law()


@given(st.sampled_from(CASES[:15]).flatmap(lambda case: st.tuples(st.just(case[0]), case[1])))
def test_the_wire_codec_says_the_same_as_the_annotation(case: tuple[Any, Any]) -> None:
    annotation, value = case
    own = codec_of(annotation)
    remote = codec_for(own.type)
    literal = own.encode(value, "x")
    if annotation is dt.date:
        value = dt.datetime.combine(value, dt.time(), tzinfo=dt.UTC)
    elif annotation is Color:
        value = value.name
    assert remote.decode(literal, "x") == value
    assert own.decode(remote.encode(value, "x"), "x") == own.decode(literal, "x")


def test_a_naive_moment_is_utc() -> None:
    assert through_wire(dt.datetime, dt.datetime(2024, 1, 2, 3, 4, 5)) == dt.datetime(  # noqa: DTZ001 - naive on purpose
        2024, 1, 2, 3, 4, 5, tzinfo=dt.UTC
    )


def test_floats_that_are_no_numbers() -> None:
    assert math.isnan(through_wire(float, math.nan))
    assert through_wire(float, -math.inf) == -math.inf


def test_an_int_is_a_float_where_a_float_is_declared() -> None:
    back = through_wire(float, 1)
    assert back == 1.0
    assert type(back) is float


def test_a_union_prefers_the_exact_type() -> None:
    assert type(through_wire(float | int, 1)) is int
    assert type(through_wire(float | int, 1.0)) is float
    assert through_wire(int | bool, True) is True


def test_enum_travels_by_member_name_and_takes_the_value_too() -> None:
    codec = codec_of(Color)
    for given_value in (Color.RED, "RED", "red"):
        literal = codec.encode(given_value, "c")
        assert literal.scalar.primitive.string_value == "RED"
        assert codec.decode(literal, "c") is Color.RED
    assert list(codec.type.enum_type.values) == ["RED", "GREEN"]


def test_an_enum_value_that_is_another_members_name_means_that_member() -> None:
    class Swapped(enum.Enum):
        A = "B"
        B = "A"

    assert codec_of(Swapped).encode("A", "s").scalar.primitive.string_value == "A"


def test_a_model_takes_its_dict_and_fills_defaults() -> None:
    assert through_wire(Point, {"x": 1}) == Point(1)
    assert through_wire(Order, {"number": 3, "at": {"x": 1, "color": "green"}}) == Order(
        number=3, at=Point(1, color=Color.GREEN)
    )
