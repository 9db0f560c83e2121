"""What a task takes: its declared inputs, checked against the values of a run before the run exists."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from functools import partial
from typing import Any

from flyteidl2.core import types_pb2
from flyteidl2.task import common_pb2, task_definition_pb2

from tower.errors import Invalid

_DEEP = 100
_WIDE = 1000
"""Of a longer collection the first elements are checked; the task's own process checks every value again."""

_SIMPLE = types_pb2.SimpleType
_PRIMITIVES: dict[int, str] = {
    _SIMPLE.INTEGER: "integer",
    _SIMPLE.FLOAT: "float_value",
    _SIMPLE.STRING: "string_value",
    _SIMPLE.BOOLEAN: "boolean",
    _SIMPLE.DATETIME: "datetime",
    _SIMPLE.DURATION: "duration",
}
_NAMES = {
    "integer": "an integer",
    "float_value": "a float",
    "string_value": "a string",
    "boolean": "a boolean",
    "datetime": "a datetime",
    "duration": "a duration",
}


class Interface:
    """The inputs that one version of a task declares. Immutable."""

    def __init__(self, spec: task_definition_pb2.TaskSpec) -> None:
        """Raises Invalid for a declaration that names an input twice."""
        template = spec.task_template
        self.task = template.id.name
        self._types: dict[str, Any] = {}
        for entry in template.interface.inputs.variables:
            if entry.key in self._types:
                raise Invalid(f"The interface names the input {entry.key!r} twice.")
            self._types[entry.key] = entry.value.type
        self._checks = [(name, _check(type_)) for name, type_ in self._types.items()]
        self._defaults: dict[str, Any] = {}
        for each in spec.default_inputs:
            if each.name in self._types and each.parameter.WhichOneof("behavior") == "default":
                self._defaults[each.name] = each.parameter.default

    def bind(self, inputs: common_pb2.Inputs) -> common_pb2.Inputs:
        """The inputs of a run in declared order, with defaults; never change the result.

        Raises Invalid naming the input (R22).
        """
        literals = inputs.literals
        if len(literals) == len(self._checks):
            for each, (name, check) in zip(literals, self._checks, strict=True):
                if each.name != name or not check(each.value):
                    break
            else:
                return inputs
        given: dict[str, Any] = {}
        for each in inputs.literals:
            if each.name not in self._types:
                raise Invalid(f"The task {self.task} has no input {each.name[:100]!r}.", hint=self._takes())
            if each.name in given:
                raise Invalid(f"The input {each.name!r} came twice.")
            given[each.name] = each.value
        bound = common_pb2.Inputs(context=inputs.context)
        for name, type_ in self._types.items():
            value = given.get(name, self._defaults.get(name))
            if value is None:
                raise Invalid(f"The task {self.task} needs the input {name!r}.", hint=self._takes())
            if not fits(type_, value):
                raise Invalid(
                    f"The input {name!r} of the task {self.task} must be {describe(type_)}, "
                    f"not {_found(value)}."
                )
            bound.literals.add(name=name).value.CopyFrom(value)
        return bound

    def _takes(self) -> str:
        if not self._types:
            return "It takes none."
        return f"It takes {', '.join(self._types)}."


def _check(type_: Any) -> Callable[[Any], bool]:
    """`fits` for one type."""
    expected = _PRIMITIVES.get(type_.simple) if type_.WhichOneof("type") == "simple" else None
    if expected is None:
        return partial(fits, type_)

    def check(literal: Any) -> bool:
        # what a literal does not hold reads as empty
        return bool(literal.scalar.primitive.WhichOneof("value") == expected)

    return check


def fits(type_: Any, literal: Any, *, depth: int = 0) -> bool:
    """Whether a literal can be a value of a type: its shape, down to the leaves; never a file's content."""
    if depth > _DEEP:
        return False
    kind = literal.WhichOneof("value")
    match type_.WhichOneof("type"):
        case "simple":
            return _fits_simple(type_.simple, literal)
        case "enum_type":
            return _primitive(literal) == "string_value" and (
                literal.scalar.primitive.string_value in type_.enum_type.values
            )
        case "collection_type":
            return kind == "collection" and _all(
                type_.collection_type, literal.collection.literals, depth=depth
            )
        case "map_value_type":
            return kind == "map" and _all(type_.map_value_type, literal.map.literals.values(), depth=depth)
        case "union_type":
            scalar = kind == "scalar" and literal.scalar.WhichOneof("value") == "union"
            value = literal.scalar.union.value if scalar else literal
            return any(fits(variant, value, depth=depth + 1) for variant in type_.union_type.variants)
        case "blob" | "schema" | "structured_dataset" as expected:
            return kind == "scalar" and literal.scalar.WhichOneof("value") in {expected, "binary"}
        case _:
            return True


def describe(type_: Any) -> str:
    """A type in words, for a message."""
    match type_.WhichOneof("type"):
        case "simple":
            name = _PRIMITIVES.get(type_.simple)
            if name is not None:
                return _NAMES[name]
            return "None" if type_.simple == _SIMPLE.NONE else "a structure"
        case "enum_type":
            return f"one of {', '.join(type_.enum_type.values)}"
        case "collection_type":
            return f"a list, each element {describe(type_.collection_type)}"
        case "map_value_type":
            return f"a dictionary, each value {describe(type_.map_value_type)}"
        case "union_type":
            return " or ".join(describe(variant) for variant in type_.union_type.variants)
        case "blob":
            return "a file or directory"
        case "schema" | "structured_dataset":
            return "a data frame"
        case _:
            return "a value"


def _fits_simple(simple: int, literal: Any) -> bool:
    expected = _PRIMITIVES.get(simple)
    if expected is not None:
        return bool(_primitive(literal) == expected)
    if literal.WhichOneof("value") != "scalar":
        return False
    value = literal.scalar.WhichOneof("value")
    if simple == _SIMPLE.NONE:
        return bool(value == "none_type")
    if simple in {_SIMPLE.STRUCT, _SIMPLE.BINARY}:
        return bool(value in {"binary", "generic", "blob"})
    return True


def _primitive(literal: Any) -> str:
    if literal.WhichOneof("value") != "scalar" or literal.scalar.WhichOneof("value") != "primitive":
        return ""
    return literal.scalar.primitive.WhichOneof("value") or ""


def _all(type_: Any, values: Iterable[Any], *, depth: int) -> bool:
    for index, value in enumerate(values):
        if index == _WIDE:
            return True
        if not fits(type_, value, depth=depth + 1):
            return False
    return True


def _found(literal: Any) -> str:
    primitive = _primitive(literal)
    if primitive:
        return _NAMES[primitive]
    match literal.WhichOneof("value"):
        case "scalar":
            found: str = {"none_type": "None", "binary": "a structure", "generic": "a structure"}.get(
                literal.scalar.WhichOneof("value") or "", "another kind of value"
            )
            return found
        case "collection":
            return "a list of other elements" if literal.collection.literals else "a list"
        case "map":
            return "a dictionary"
        case "offloaded_metadata":
            return "a value stored elsewhere"
        case _:
            return "nothing"
