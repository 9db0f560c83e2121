"""Codecs for the annotations of a task's own signature."""

from __future__ import annotations

import enum
import types
import typing
from collections.abc import Mapping
from typing import TYPE_CHECKING, Annotated, Any

from flyte._values.codec import Codec, EnumCodec, ListCodec, MapCodec, NoneCodec, UnionCodec
from flyte._values.faults import MAX_DEPTH
from flyte._values.packed import DictCodec, ModelCodec, is_model
from flyte._values.primitives import BY_PYTHON
from flyte.errors import DeclarationError

if TYPE_CHECKING:
    from pydantic import TypeAdapter

SUPPORTED = (
    "int, float, str, bool, None, datetime, date, timedelta, an Enum, Literal of strings, list[T], "
    "dict[str, T], dict, Optional and Union of these, a dataclass, a pydantic model"
)


def codec_of(annotation: Any) -> Codec:
    """The codec for an annotation. Raises DeclarationError for a type that has no form on the wire."""
    return _codec(annotation, 0)


def _codec(annotation: Any, depth: int) -> Codec:
    if depth > MAX_DEPTH:
        raise DeclarationError(f"The type is nested more than {MAX_DEPTH} levels deep.")
    if annotation is None or annotation is types.NoneType:
        return NoneCodec()
    origin = typing.get_origin(annotation)
    arguments = typing.get_args(annotation)
    if origin is not None:
        return _generic(annotation, origin, arguments, depth)
    if annotation is dict:
        return DictCodec()
    if annotation in BY_PYTHON:
        return BY_PYTHON[annotation]
    if isinstance(annotation, typing.NewType):
        return _codec(annotation.__supertype__, depth + 1)
    if isinstance(annotation, type):
        if issubclass(annotation, enum.Enum):
            return _enum(annotation)
        if is_model(annotation):
            return ModelCodec(annotation, adapter_of(annotation))
    raise _unsupported(annotation)


def _generic(annotation: Any, origin: Any, arguments: tuple[Any, ...], depth: int) -> Codec:
    if origin is Annotated:
        return _codec(arguments[0], depth)
    if origin in (typing.Union, types.UnionType):
        return UnionCodec(tuple(_codec(each, depth + 1) for each in arguments))
    if origin is list and len(arguments) == 1:
        return ListCodec(_codec(arguments[0], depth + 1))
    if origin is dict and len(arguments) == 2:
        if arguments[0] is not str:
            raise DeclarationError(f"The keys of {_name(annotation)} must be str.")
        return DictCodec() if arguments[1] is Any else MapCodec(_codec(arguments[1], depth + 1))
    if origin is typing.Literal and all(isinstance(each, str) for each in arguments):
        return EnumCodec("Literal", {each: each for each in arguments}, {})
    if isinstance(origin, type) and is_model(origin):  # a generic model with its parameters
        return ModelCodec(origin, adapter_of(annotation))
    raise _unsupported(annotation)


def _enum(kind: type[enum.Enum]) -> EnumCodec:
    members: Mapping[str, enum.Enum] = {member.name: member for member in kind}
    if not members:
        raise DeclarationError(f"The enumeration {kind.__name__} has no members.")
    aliases: dict[tuple[type, Any], str] = {}
    for name, member in members.items():
        aliases[type(member), member] = name
        if isinstance(member.value, (str, int)) and member.value not in members:
            aliases.setdefault((type(member.value), member.value), name)
    return EnumCodec(kind.__name__, members, aliases)


_adapters: dict[Any, TypeAdapter[Any]] = {}


def adapter_of(kind: Any) -> TypeAdapter[Any]:
    """Pydantic's view of a dataclass or model, made once. Raises DeclarationError where it has none."""
    if kind not in _adapters:
        _adapters[kind] = _new_adapter(kind)
    return _adapters[kind]


def _new_adapter(kind: Any) -> TypeAdapter[Any]:
    from pydantic import PydanticUserError, TypeAdapter

    try:
        adapter: TypeAdapter[Any] = TypeAdapter(kind)
        adapter.json_schema()
    except (PydanticUserError, NameError) as fault:
        reason = str(fault).partition("\n")[0]
        raise DeclarationError(f"{_name(kind)} cannot be a type of a task: {reason}") from fault
    return adapter


def _unsupported(annotation: Any) -> DeclarationError:
    hint = f"Supported are {SUPPORTED}."
    if annotation in (list, tuple, set) or annotation is Any:
        hint = f"Say what it holds: list[int], dict[str, float], a dataclass. {hint}"
    return DeclarationError(f"{_name(annotation)} cannot be a type of a task.", hint=hint)


def _name(annotation: Any) -> str:
    return annotation.__name__ if isinstance(annotation, type) else str(annotation)
