"""Signatures to interfaces and back, and whole inputs and outputs."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Any, Optional

import pytest
from flyteidl2.core import interface_pb2, types_pb2
from flyteidl2.task import common_pb2
from hypothesis import given
from hypothesis import strategies as st

from flyte._interface import Interface
from flyte.errors import DeclarationError, RemoteTaskUsageError


@dataclass
class Point:
    x: int
    y: int = 0


def task(
    x: int,
    name: Annotated[str, "what to call it"] = "n",
    point: Point | None = None,
    *,
    ratio: float = 1,
    tags: list[str] = ["a"],  # noqa: B006 - a task's defaults are copied into its specification
) -> tuple[int, Optional[str]]:  # noqa: UP045
    return x, name


OWN = Interface.of(task)
REMOTE = Interface.from_wire(
    interface_pb2.TypedInterface.FromString(OWN.proto().SerializeToString()),
    [common_pb2.NamedParameter.FromString(each.SerializeToString()) for each in OWN.defaults()],
)


def test_the_interface_on_the_wire() -> None:
    proto = OWN.proto()
    assert [entry.key for entry in proto.inputs.variables] == ["x", "name", "point", "ratio", "tags"]
    assert [entry.key for entry in proto.outputs.variables] == ["o0", "o1"]
    assert proto.inputs.variables[1].value.description == "what to call it"
    assert proto.inputs.variables[0].value.type.simple == types_pb2.INTEGER
    assert [each.name for each in OWN.defaults()] == ["name", "point", "ratio", "tags"]
    assert REMOTE.proto() == proto
    assert REMOTE.defaults() == OWN.defaults()


@pytest.mark.parametrize("interface", [OWN, REMOTE], ids=["own", "remote"])
def test_inputs_with_defaults(interface: Interface) -> None:
    inputs = interface.encode_inputs(x=1, point={"x": 5})
    assert [each.name for each in inputs.literals] == ["x", "name", "point", "ratio", "tags"]
    assert OWN.decode_inputs(inputs) == {"x": 1, "name": "n", "point": Point(5), "ratio": 1.0, "tags": ["a"]}
    assert OWN.decode_inputs(common_pb2.Inputs(literals=inputs.literals[:1]))["tags"] == ["a"]
    assert interface.encode_inputs((1,), point=Point(5)) == inputs


def test_a_default_is_not_shared() -> None:
    inputs = OWN.encode_inputs(x=1)
    OWN.decode_inputs(inputs)["tags"].append("b")
    assert OWN.decode_inputs(inputs)["tags"] == ["a"]


@pytest.mark.parametrize("interface", [OWN, REMOTE], ids=["own", "remote"])
@pytest.mark.parametrize(
    ("args", "kwargs", "words"),
    [
        ((), {}, ["Missing", "x: int"]),
        ((), {"x": 1, "zz": 2}, ["Unknown", "'zz'", "x, name, point"]),
        ((), {"zz": 2}, ["Unknown", "'zz'"]),
        ((1, "a", None, 1.0), {"x": 1}, ["by position and by name", "x"]),
        ((1, "a", None, 1.0, [], 7), {}, ["5 inputs", "6"]),
        ((), {"x": "1"}, ["input 'x'", "int", "str"]),
        ((), {"x": None}, ["input 'x'", "int", "None"]),
        ((), {"x": 1, "name": 5}, ["input 'name'", "str", "int 5"]),
        ((), {"x": 1, "tags": ["a", 1]}, ["input 'tags'[1]", "str"]),
        ((), {"x": 1, "point": {"y": 1}}, ["input 'point'", "x"]),
    ],
)
def test_wrong_calls(
    interface: Interface, args: tuple[Any, ...], kwargs: dict[str, Any], words: list[str]
) -> None:
    with pytest.raises(RemoteTaskUsageError) as raised:
        interface.encode_inputs(args, **kwargs)
    for word in words:
        assert word in str(raised.value)


def test_inputs_may_have_any_name() -> None:
    def odd(self: int, args: int, kwargs: int, task: int, cls: int) -> None: ...

    inputs = Interface.of(odd).encode_inputs(self=1, args=2, kwargs=3, task=4, cls=5)
    assert Interface.of(odd).decode_inputs(inputs) == {"self": 1, "args": 2, "kwargs": 3, "task": 4, "cls": 5}


def test_stored_inputs_are_checked_again() -> None:
    inputs = common_pb2.Inputs()
    inputs.literals.add(name="y").value.scalar.primitive.integer = 1
    with pytest.raises(RemoteTaskUsageError, match="Unknown inputs: 'y'"):
        OWN.decode_inputs(inputs)
    with pytest.raises(RemoteTaskUsageError, match="Missing inputs: x"):
        OWN.decode_inputs(common_pb2.Inputs())


@given(st.integers(-(2**63), 2**63 - 1), st.none() | st.text(st.characters(exclude_categories=["Cs"])))
def test_outputs_round_trip(number: int, text: str | None) -> None:
    outputs = common_pb2.Outputs.FromString(OWN.encode_outputs((number, text)).SerializeToString())
    assert OWN.result(outputs) == (number, text)
    assert REMOTE.decode_outputs(outputs) == {"o0": number, "o1": text}


def test_one_output_and_none() -> None:
    def one() -> list[int]: ...
    def none() -> None: ...
    def silent(): ...  # type: ignore[no-untyped-def]

    assert Interface.of(one).result(Interface.of(one).encode_outputs([1])) == [1]
    for function in (none, silent):
        interface = Interface.of(function)
        assert interface.result(interface.encode_outputs(None)) is None
        with pytest.raises(RemoteTaskUsageError, match="no result"):
            interface.encode_outputs(5)


@pytest.mark.parametrize("result", [None, 1, (1,), (1, "a", 2), [1, "a"], ("a", 1)])
def test_results_that_do_not_fit(result: Any) -> None:
    with pytest.raises(RemoteTaskUsageError, match=r"result o0|a tuple of 2 values"):
        OWN.encode_outputs(result)


def test_signatures_that_cannot_be() -> None:
    def untyped(x): ...  # type: ignore[no-untyped-def]
    def many(*numbers: int) -> None: ...
    def keywords(**numbers: int) -> None: ...
    def positional(x: int, /) -> None: ...
    def unknown(x: Nowhere) -> None: ...  # type: ignore[name-defined]  # noqa: F821
    def unsupported(x: set[int]) -> None: ...
    def endless() -> tuple[int, ...]: ...
    def default(x: int = "one") -> None: ...  # type: ignore[assignment]
    def result() -> object: ...

    for function, words in (
        (untyped, "'x' .* has no type"),
        (many, "numbers"),
        (keywords, "numbers"),
        (positional, "'x'"),
        (unknown, "Nowhere"),
        (unsupported, "'x' .*set"),
        (endless, "unknown length"),
        (default, "default of 'x'"),
        (result, "the result of .*object"),
    ):
        with pytest.raises(DeclarationError, match=words):
            Interface.of(function)
