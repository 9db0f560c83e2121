"""What somebody made of a run's inputs or outputs breaks nobody's page."""

from __future__ import annotations

import json
import math
from typing import Any

import msgpack
import pytest
from flyteidl2.core import literals_pb2

from tower.console.values import show, show_all


def moment(**parts: int) -> literals_pb2.Literal:
    literal = literals_pb2.Literal()
    for name, value in parts.items():
        setattr(literal.scalar.primitive.datetime, name, value)
    return literal


def number(value: float) -> literals_pb2.Literal:
    literal = literals_pb2.Literal()
    literal.scalar.generic.fields["a"].number_value = value
    return literal


@pytest.mark.parametrize(
    "literal", [moment(seconds=10**15), moment(nanos=-5), number(math.inf), number(math.nan)]
)
def test_values_that_no_reader_takes_are_shown_by_their_kind(literal: literals_pb2.Literal) -> None:
    assert "cannot be read" in show(literal)
    both = literals_pb2.Literal()
    both.collection.literals.extend([literal, moment(seconds=1)])
    assert "1970-01-01" in show(both)


def packed(value: object) -> literals_pb2.Literal:
    data = msgpack.packb(value)
    return literals_pb2.Literal(
        scalar=literals_pb2.Scalar(binary=literals_pb2.Binary(tag="msgpack", value=data))
    )


def listed(number: int) -> literals_pb2.Literal:
    literal = literals_pb2.Literal()
    literal.collection.literals.extend([moment(seconds=1)] * number)
    return literal


def fields(number: int) -> literals_pb2.Literal:
    literal = literals_pb2.Literal()
    literal.scalar.generic.fields["a"].list_value.values.add().number_value = 1
    literal.scalar.generic.fields["a"].list_value.values.extend(
        literal.scalar.generic.fields["a"].list_value.values[:1] * number
    )
    return literal


@pytest.mark.parametrize(
    "literal",
    [packed([1] * 100_000), packed({str(each): [] for each in range(100_000)}), listed(100_000)],
    ids=["packed", "a packed map", "a list"],
)
def test_t45_of_a_long_value_the_beginning_is_looked_at(
    literal: literals_pb2.Literal, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The page is made where everybody is served, and seconds for one value would be everybody's."""
    seen = 0
    dumps = json.dumps

    def counted(value: Any, **options: Any) -> str:
        nonlocal seen
        seen = len(value)
        return str(dumps(value, **options))

    monkeypatch.setattr(json, "dumps", counted)
    text = show(literal)
    assert text.endswith("(too long to show)")
    assert len(text) < 21_000
    assert 0 < seen <= 20_001


@pytest.mark.parametrize(
    "literal", [packed(["x" * 1000] * 2000), fields(100_000)], ids=["packed", "a struct"]
)
def test_t45_a_value_of_megabytes_is_shown_by_its_size(literal: literals_pb2.Literal) -> None:
    assert show(literal).endswith("bytes)")


def test_many_long_values_hide_no_short_one() -> None:
    long, short = packed([1] * 100_000), moment(seconds=1)
    shown = dict(show_all([("first", long), ("second", short), ("third", long)]))
    assert shown["second"].startswith("1970-01-01")
    assert len(show_all([(str(each), short) for each in range(5_000)])) == 1_000
    assert show_all([(str(each), long) for each in range(20)])[-1][1] == "…\n… (too long to show)"
