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
_SHOWN = 1000
_CHECKS = 20_000
"""So many for the inputs of one run: a type of many variants is tried against each of many elements."""

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


class Patience:
    """How many checks are left for values that others chose, against types that others chose (T45)."""

    def __init__(self, checks: int = _CHECKS) -> None:
        self._left = checks

    def take(self, checks: int = 1) -> bool:
        """Whether there are any left."""
        self._left -= checks
        return self._left >= 0


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
        literals, patience = inputs.literals, Patience()
        if len(literals) == len(self._checks):
            for each, (name, check) in zip(literals, self._checks, strict=True):
                if each.name != name or not check(each.value, patience):
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
        bound, patience = common_pb2.Inputs(context=inputs.context), Patience()
        for name, type_ in self._types.items():
            value = given.get(name, self._defaults.get(name))
            if value is None:
                raise Invalid(f"The task {self.task} needs the input {name!r}.", hint=self._takes())
            if not fits(type_, value, patience):
                raise Invalid(
                    f"The input {name!r} of the task {self.task} must be {describe(type_)[:_SHOWN]}, "
                    f"not {_found(value)}."
                )
            bound.literals.add(name=name).value.CopyFrom(value)
        return bound

    def _takes(self) -> str:
        if not self._types:
            return "It takes none."
        return f"It takes {', '.join(self._types)[:_SHOWN]}."


def _check(type_: Any) -> Callable[[Any, Patience], bool]:
    """`fits` for one type."""
    expected = _PRIMITIVES.get(type_.simple) if type_.WhichOneof("type") == "simple" else None
    if expected is None:
        return partial(fits, type_)

    def check(literal: Any, _: Patience) -> bool:
        # what a literal does not hold reads as empty
        return bool(literal.scalar.primitive.WhichOneof("value") == expected)

    return check


def fits(type_: Any, literal: Any, patience: Patience, *, depth: int = 0) -> bool:
    """Whether a literal can be a value of a type: its shape, down to the leaves; never a file's content.

    What there is no patience left for is taken to fit: the task's own process checks every value again.
    """
    if not patience.take():
        return True
    if depth > _DEEP:
        return False
    kind = literal.WhichOneof("value")
    match type_.WhichOneof("type"):
        case "simple":
            return _fits_simple(type_.simple, literal)
        case "enum_type":
            return _primitive(literal) == "string_value" and (
                not patience.take(len(type_.enum_type.values))
                or literal.scalar.primitive.string_value in type_.enum_type.values
            )
        case "collection_type":
            return kind == "collection" and _all(
                type_.collection_type, literal.collection.literals, patience, depth=depth
            )
        case "map_value_type":
            values = literal.map.literals.values()
            return kind == "map" and _all(type_.map_value_type, values, patience, depth=depth)
        case "union_type":
            scalar = kind == "scalar" and literal.scalar.WhichOneof("value") == "union"
            value = literal.scalar.union.value if scalar else literal
            return any(
                fits(variant, value, patience, depth=depth + 1) for variant in type_.union_type.variants
            )
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


def _all(type_: Any, values: Iterable[Any], patience: Patience, *, depth: int) -> bool:
    for index, value in enumerate(values):
        if index == _WIDE:
            return True
        if not fits(type_, value, patience, depth=depth + 1):
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
