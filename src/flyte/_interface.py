"""A task's interface: from a signature, or from the wire; and the conversion of whole inputs and outputs."""

from __future__ import annotations

import functools
import inspect
import types
import typing
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Annotated, Any, Protocol

from flyteidl2.core import interface_pb2, literals_pb2
from flyteidl2.task import common_pb2

from flyte._values import Codec, check_size, codec_for, codec_of, describe
from flyte.errors import DeclarationError, RemoteTaskUsageError

MAX_INPUTS = 256
_EMPTY = inspect.Parameter.empty


@dataclass(frozen=True)
class Variable:
    """A named, typed input or output; `default` is a literal on the wire, or None where there is none."""

    name: str
    codec: Codec
    description: str = ""
    default: literals_pb2.Literal | None = None

    @property
    def required(self) -> bool:
        """Whether a call has to pass it."""
        return self.default is None

    def proto(self) -> interface_pb2.VariableEntry:
        """The variable as an entry of a VariableMap."""
        return interface_pb2.VariableEntry(
            key=self.name, value=interface_pb2.Variable(type=self.codec.type, description=self.description)
        )


class Named(Protocol):
    """A NamedParameter of a task specification."""

    name: str
    parameter: interface_pb2.Parameter


@dataclass(frozen=True)
class Interface:
    """Inputs by name, in order, and outputs o0, o1, ….

    `Interface.of` makes one whose values are those of the task's annotations; `Interface.from_wire` one whose
    values are JSON-like, for a task that is known by its specification alone.
    """

    inputs: tuple[Variable, ...] = ()
    outputs: tuple[Variable, ...] = ()

    @classmethod
    def of(cls, function: Callable[..., Any]) -> Interface:
        """The interface of a function. Raises DeclarationError that names the parameter."""
        name = function.__qualname__
        hints = _hints(function)
        parameters = inspect.signature(function).parameters.values()
        inputs = [_input(name, parameter, hints) for parameter in parameters]
        if len(inputs) > MAX_INPUTS:
            raise DeclarationError(f"{name} has {len(inputs)} parameters; {MAX_INPUTS} are allowed.")
        returned = _returned(hints.get("return"), name)
        outputs = [
            Variable(f"o{index}", _codec(annotation, f"the result of {name}"))
            for index, annotation in enumerate(returned)
        ]
        return cls(tuple(inputs), tuple(outputs))

    @classmethod
    def from_wire(
        cls, interface: interface_pb2.TypedInterface, default_inputs: Iterable[Named] = ()
    ) -> Interface:
        """The interface that a specification describes: TaskTemplate.interface, TaskSpec.default_inputs."""
        defaults = {
            each.name: each.parameter.default
            for each in default_inputs
            if each.parameter.WhichOneof("behavior") == "default"
        }
        return cls(
            tuple(_from_entry(entry, defaults.get(entry.key)) for entry in interface.inputs.variables),
            tuple(_from_entry(entry, None) for entry in interface.outputs.variables),
        )

    @functools.cached_property
    def by_name(self) -> Mapping[str, Variable]:
        """The inputs by name."""
        return {variable.name: variable for variable in self.inputs}

    def proto(self) -> interface_pb2.TypedInterface:
        """The interface as it stands in a TaskTemplate."""
        return interface_pb2.TypedInterface(
            inputs=interface_pb2.VariableMap(variables=[each.proto() for each in self.inputs]),
            outputs=interface_pb2.VariableMap(variables=[each.proto() for each in self.outputs]),
        )

    def defaults(self) -> list[common_pb2.NamedParameter]:
        """The inputs that have a default, as they stand in a TaskSpec."""
        return [
            common_pb2.NamedParameter(
                name=each.name,
                parameter=interface_pb2.Parameter(var=each.proto().value, default=each.default),
            )
            for each in self.inputs
            if each.default is not None
        ]

    def encode_inputs(self, args: tuple[Any, ...] = (), /, **kwargs: Any) -> common_pb2.Inputs:
        """The inputs of one call, defaults filled in.

        Raises RemoteTaskUsageError for an unknown, missing or surplus input, or a value that does not fit.
        """
        values = self._bind(args, kwargs)
        inputs = common_pb2.Inputs()
        for variable in self.inputs:
            if variable.name in values:
                literal = variable.codec.encode(values[variable.name], f"input {variable.name!r}")
            elif variable.default is not None:
                literal = variable.default
            else:  # pragma: no cover - _bind has seen to it
                raise AssertionError(variable.name)
            inputs.literals.add(name=variable.name).value.CopyFrom(literal)
        check_size(inputs, what="The inputs")
        return inputs

    def decode_inputs(self, inputs: common_pb2.Inputs) -> dict[str, Any]:
        """The inputs of one call by name. Raises RemoteTaskUsageError for an unknown one."""
        literals = {each.name: each.value for each in inputs.literals}
        _refuse_unknown(literals, self.by_name)
        values = {}
        missing = []
        for variable in self.inputs:
            literal = literals.get(variable.name, variable.default)
            if literal is None:
                missing.append(variable.name)
            else:
                values[variable.name] = variable.codec.decode(literal, f"input {variable.name!r}")
        if missing:
            raise RemoteTaskUsageError(f"Missing inputs: {', '.join(missing)}.")
        return values

    def encode_outputs(self, result: Any) -> common_pb2.Outputs:
        """The outputs for what a function returned. Raises RemoteTaskUsageError."""
        outputs = common_pb2.Outputs()
        for variable, value in zip(self.outputs, self._split(result), strict=True):
            where = "the result" if len(self.outputs) == 1 else f"result {variable.name}"
            outputs.literals.add(name=variable.name).value.CopyFrom(variable.codec.encode(value, where))
        check_size(outputs, what="The outputs")
        return outputs

    def decode_outputs(self, outputs: common_pb2.Outputs) -> dict[str, Any]:
        """The outputs by name, in the interface's order; one that is absent is left out."""
        literals = {each.name: each.value for each in outputs.literals}
        return {
            variable.name: variable.codec.decode(literals[variable.name], f"output {variable.name!r}")
            for variable in self.outputs
            if variable.name in literals
        }

    def result(self, outputs: common_pb2.Outputs) -> Any:
        """What the function returned: None, a value, or a tuple of values."""
        values = tuple(self.decode_outputs(outputs).values())
        if len(values) != len(self.outputs):
            raise RemoteTaskUsageError(f"{len(self.outputs)} outputs are declared, {len(values)} came.")
        if not values:
            return None
        return values[0] if len(values) == 1 else values

    def _bind(self, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> dict[str, Any]:
        names = [variable.name for variable in self.inputs]
        if len(args) > len(names):
            raise RemoteTaskUsageError(f"The task takes {len(names)} inputs, {len(args)} were passed.")
        values = dict(zip(names, args, strict=False))
        twice = [name for name in values if name in kwargs]
        if twice:
            raise RemoteTaskUsageError(f"Passed by position and by name: {', '.join(twice)}.")
        _refuse_unknown(kwargs, self.by_name)
        values.update(kwargs)
        missing = [each.name for each in self.inputs if each.required and each.name not in values]
        if missing:
            wanted = ", ".join(f"{name}: {self.by_name[name].codec.label}" for name in missing)
            raise RemoteTaskUsageError(f"Missing inputs: {wanted}.")
        return values

    def _split(self, result: Any) -> tuple[Any, ...]:
        """The result as one value per output."""
        count = len(self.outputs)
        if count == 1:
            return (result,)
        if count == 0 and result is None:
            return ()
        if count > 1 and isinstance(result, tuple) and len(result) == count:
            return result
        came = describe(result, path="result")
        expected = f"a tuple of {count} values" if count else "no result"
        raise RemoteTaskUsageError(f"The interface declares {expected}, the task returned {came}.")


def _refuse_unknown(given: Iterable[str], known: Mapping[str, Variable]) -> None:
    unknown = [name for name in given if name not in known]
    if unknown:
        raise RemoteTaskUsageError(
            f"Unknown inputs: {', '.join(repr(str(name)[:64]) for name in unknown[:8])}; "
            f"the task takes {', '.join(known) or 'none'}."
        )


def _hints(function: Callable[..., Any]) -> dict[str, Any]:
    try:
        return typing.get_type_hints(function, include_extras=True)
    except (NameError, AttributeError, TypeError, SyntaxError) as fault:
        raise DeclarationError(
            f"The annotations of {function.__qualname__} cannot be resolved: {fault}.",
            hint="The types of a task are imported or defined at the top of its module.",
        ) from fault


def _input(function: str, parameter: inspect.Parameter, hints: Mapping[str, Any]) -> Variable:
    what = f"the parameter {parameter.name!r} of {function}"
    if parameter.kind not in (parameter.POSITIONAL_OR_KEYWORD, parameter.KEYWORD_ONLY):
        raise DeclarationError(
            f"{what} has no name of its own: {parameter}.",
            hint="Inputs of a task are passed by name; *args, **kwargs and positional-only ones have none.",
        )
    if parameter.name not in hints:
        raise DeclarationError(f"{what} has no type.", hint=f"Write {parameter.name}: int, for example.")
    annotation = hints[parameter.name]
    codec = _codec(annotation, what)
    default = None
    if parameter.default is not _EMPTY:
        try:
            default = codec.encode(parameter.default, f"the default of {parameter.name!r}")
        except RemoteTaskUsageError as fault:
            raise DeclarationError(f"{function}: {fault.message}") from fault
    return Variable(parameter.name, codec, _described(annotation), default)


def _described(annotation: Any) -> str:
    """`Annotated[int, "how many"]` describes an input."""
    if typing.get_origin(annotation) is not Annotated:
        return ""
    return next((each for each in annotation.__metadata__ if isinstance(each, str)), "")[:1024]


def _returned(annotation: Any, name: str) -> tuple[Any, ...]:
    """The types of the outputs: a tuple is several, None is none."""
    if annotation is None or annotation is types.NoneType:
        return ()
    if typing.get_origin(annotation) is tuple:
        arguments = typing.get_args(annotation)
        if Ellipsis in arguments:
            raise DeclarationError(
                f"{name} returns a tuple of unknown length.",
                hint="Return a list, or a tuple of known length.",
            )
        return arguments
    return (annotation,)


def _codec(annotation: Any, what: str) -> Codec:
    try:
        return codec_of(annotation)
    except DeclarationError as fault:
        raise DeclarationError(f"{what}: {fault.message}", hint=fault.hint) from fault


def _from_entry(entry: interface_pb2.VariableEntry, default: Any) -> Variable:
    return Variable(entry.key, codec_for(entry.value.type), entry.value.description, default)
