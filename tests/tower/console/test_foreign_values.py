"""What somebody made of a run's inputs or outputs breaks nobody's page."""

from __future__ import annotations

import math

import pytest
from flyteidl2.core import literals_pb2

from tower.console.values import show


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
