"""Laws of inputs: what is declared is filled in and checked, whatever else is sent."""

from __future__ import annotations

import pytest
from flyteidl2.core import types_pb2
from hypothesis import given
from hypothesis import strategies as st
from tests.rpc_world import SIMPLE, literal, named, task_spec

from tower.control.interface import Interface, describe, fits
from tower.errors import Invalid

VALUES = st.one_of(
    st.integers(-(2**63), 2**63 - 1), st.floats(), st.booleans(), st.text(max_size=20), st.none()
)


@given(st.dictionaries(st.sampled_from(["x", "y", "z", ""]), VALUES))
def test_bound_inputs_are_exactly_the_declared_ones(given_inputs: dict[str, object]) -> None:
    interface = Interface(task_spec())
    valid = (
        given_inputs.keys() <= {"x", "y"}
        and type(given_inputs.get("x")) is int
        and type(given_inputs.get("y", "")) is str
    )
    if not valid:
        with pytest.raises(Invalid):
            interface.bind(named(given_inputs))
        return
    bound = interface.bind(named(given_inputs))
    assert [each.name for each in bound.literals] == ["x", "y"]
    assert bound.literals[0].value == literal(given_inputs["x"])
    assert bound.literals[1].value == literal(given_inputs.get("y", "hello"))
    assert interface.bind(bound) == bound


@pytest.mark.parametrize(
    ("simple", "value"),
    [
        (SIMPLE.INTEGER, 1),
        (SIMPLE.FLOAT, 1.5),
        (SIMPLE.STRING, "s"),
        (SIMPLE.BOOLEAN, True),
        (SIMPLE.NONE, None),
    ],
)
def test_each_simple_type_takes_its_own_values_only(simple: int, value: object) -> None:
    for other in (1, 1.5, "s", True, None, [1]):
        type_ = types_pb2.LiteralType(simple=simple)
        assert fits(type_, literal(other)) is (type(other) is type(value)), (describe(type_), other)


def test_collections_unions_and_enums() -> None:
    integer = types_pb2.LiteralType(simple=SIMPLE.INTEGER)
    many = types_pb2.LiteralType(collection_type=integer)
    assert fits(many, literal([1, 2]))
    assert fits(many, literal([]))
    assert not fits(many, literal([1, "2"]))
    assert not fits(many, literal(1))
    either = types_pb2.LiteralType()
    either.union_type.variants.append(integer)
    either.union_type.variants.append(types_pb2.LiteralType(simple=SIMPLE.NONE))
    wrapped = literal(None)
    wrapped.scalar.union.value.CopyFrom(literal(3))
    assert fits(either, wrapped)
    assert fits(either, literal(None))
    assert not fits(either, literal("3"))
    colour = types_pb2.LiteralType()
    colour.enum_type.values.extend(["RED", "BLUE"])
    assert fits(colour, literal("RED"))
    assert not fits(colour, literal("red"))
    assert describe(either) == "an integer or None"


def test_a_value_kept_elsewhere_is_no_value() -> None:
    away = literal(None)
    away.offloaded_metadata.uri = "file:///etc/passwd"
    for type_ in (
        types_pb2.LiteralType(simple=SIMPLE.STRING),
        types_pb2.LiteralType(simple=SIMPLE.STRUCT),
        types_pb2.LiteralType(collection_type=types_pb2.LiteralType(simple=SIMPLE.STRING)),
    ):
        assert not fits(type_, away)
