"""Laws of inputs: what is declared is filled in and checked, whatever else is sent."""

from __future__ import annotations

import pytest
from flyteidl2.core import literals_pb2, types_pb2
from flyteidl2.task import task_definition_pb2
from hypothesis import given
from hypothesis import strategies as st
from tests.rpc_world import SIMPLE, literal, named, task_spec

from tower.control.interface import Interface, Patience, describe
from tower.control.interface import fits as fits_within
from tower.errors import Invalid

VALUES = st.one_of(
    st.integers(-(2**63), 2**63 - 1), st.floats(), st.booleans(), st.text(max_size=20), st.none()
)


def fits(type_: types_pb2.LiteralType, value: literals_pb2.Literal) -> bool:
    return fits_within(type_, value, Patience())


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


class Counting(Patience):
    """Says how many checks there were."""

    taken = 0

    def take(self, checks: int = 1) -> bool:
        Counting.taken += checks
        return super().take(checks)


def test_t45_types_and_values_of_any_size_are_looked_at_for_a_bounded_time(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Some kilobytes of each would be minutes, in which nobody else is served."""
    monkeypatch.setattr("tower.control.interface.Patience", Counting)
    spec = task_definition_pb2.TaskSpec()
    for name in ("x", "y"):
        type_ = spec.task_template.interface.inputs.variables.add(key=name).value.type
        for _ in range(300):
            type_.union_type.variants.add().collection_type.collection_type.simple = SIMPLE.INTEGER
    Interface(spec).bind(named({"x": [[1] * 300] * 10 + ["not a list"], "y": 1}))
    assert 20_000 < Counting.taken < 100_000
    enum = types_pb2.LiteralType()
    enum.collection_type.enum_type.values.extend(map(str, range(15_000)))
    patience = Patience()
    assert fits_within(enum, literal(["1", "no such"]), patience)
    assert not patience.take()
