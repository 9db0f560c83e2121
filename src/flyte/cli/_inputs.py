"""Inputs of a task from the command line: `--x 1`, `--input x=1`, `--inputs '{"x": 1}'`."""

from __future__ import annotations

import inspect
import json
from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import rich_click as click

from ._output import cell

if TYPE_CHECKING:
    from flyte._interface import Interface

Text = dict[str, str]


def collected(rest: Sequence[str], pairs: Sequence[str]) -> Text:
    """The texts by name, of `--name value`, `--name=value` and `name=value`. Raises UsageError."""
    texts: Text = {}

    def add(name: str, text: str) -> None:
        if name in texts:
            raise click.UsageError(f"The input {name!r} is given twice.")
        texts[name] = text

    for pair in pairs:
        name, equals, text = pair.partition("=")
        if not equals or not name:
            raise click.UsageError(f"An input is written name=value, not {pair!r}.")
        add(name, text)
    words = iter(rest)
    for word in words:
        if not word.startswith("--") or len(word) < 3:
            raise click.UsageError(f"Unexpected argument {word!r}; an input is written --name value.")
        name, equals, text = word[2:].partition("=")
        if not equals:
            following = next(words, None)
            if following is None:
                raise click.UsageError(f"The input {name!r} has no value.")
            text = following
        add(name.replace("-", "_"), text)
    return texts


def document(text: str | None) -> dict[str, Any]:
    """The inputs of `--inputs`: one JSON object. Raises UsageError."""
    if text is None:
        return {}
    try:
        values = json.loads(text)
    except ValueError as error:
        raise click.UsageError(f"--inputs is not JSON: {error}.") from None
    if not isinstance(values, dict):
        raise click.UsageError("--inputs is not a JSON object of names and values.")
    return values


def values(interface: Interface, texts: Text, given: Mapping[str, Any]) -> dict[str, Any]:
    """JSON-like values for the texts, by the types that the task declares, beside the given ones.

    A text for a string or an enum stands for itself; any other is read as JSON and, where that fails, is left
    as it is (a date, for one). Names that the task does not have are left to the check of all inputs.
    Raises UsageError.
    """
    made = {}
    for name, text in texts.items():
        if name in given:
            raise click.UsageError(f"The input {name!r} is given twice.")
        variable = interface.by_name.get(name)
        made[name] = _value(variable.codec.type if variable is not None else None, text)
    return {**given, **made}


def typed(interface: Interface, jsonlike: Mapping[str, Any]) -> dict[str, Any]:
    """The values that a function with this interface takes, from JSON-like ones, without those left out."""
    from flyte._interface import Interface

    wire = Interface.from_wire(interface.proto(), interface.defaults())
    decoded = interface.decode_inputs(wire.encode_inputs(**jsonlike))
    return {name: decoded[name] for name in jsonlike}


def help_of(task: Any, source: str, name: str) -> Iterator[str]:
    """How to run a task of a file: what it is for, and the name, type and default of each input."""
    yield f"Usage: flyte run [OPTIONS] {source} {name} [--INPUT VALUE]..."
    text = inspect.getdoc(task.function)
    if text:
        yield ""
        yield from (f"  {line}".rstrip() for line in text.partition("\n\n")[0].splitlines())
    yield ""
    interface: Interface = task.interface
    if not interface.inputs:
        yield "It takes no inputs."
    else:
        yield "Inputs:"
        parameters = inspect.signature(task.function).parameters
        rows = [
            (
                f"--{each.name}",
                each.codec.label,
                "required" if each.required else f"default: {cell(parameters[each.name].default) or 'none'}",
                each.description,
            )
            for each in interface.inputs
        ]
        widths = [max(len(row[column]) for row in rows) for column in range(3)]
        for *columns, description in rows:
            shown = "  ".join(text.ljust(width) for text, width in zip(columns, widths, strict=True))
            yield f"  {shown}  {description}".rstrip()
    yield ""
    yield "`flyte run --help` lists the options."


def _value(declared: Any, text: str) -> Any:
    if declared is not None and _takes_text(declared):
        return None if text == "null" and declared.HasField("union_type") else text
    try:
        return json.loads(text)
    except ValueError:
        return text


def _takes_text(declared: Any) -> bool:
    from flyteidl2.core import types_pb2

    if declared.HasField("union_type"):
        return any(_takes_text(variant) for variant in declared.union_type.variants)
    if declared.HasField("simple"):
        return bool(declared.simple == types_pb2.SimpleType.STRING)
    return bool(declared.HasField("enum_type"))
