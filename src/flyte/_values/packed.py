"""Structured values as MessagePack in a binary scalar: untyped dicts, dataclasses, pydantic models."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any

import msgpack
from flyteidl2.core import literals_pb2, types_pb2
from google.protobuf import json_format, struct_pb2

from flyte._values import schema
from flyte._values.codec import Literal, LiteralType, wrong_literal
from flyte._values.faults import describe, mismatch, too_deep
from flyte.errors import RemoteTaskUsageError

if TYPE_CHECKING:
    from pydantic import TypeAdapter

TAG = "msgpack"
_MAX_NESTING = 64


@dataclass(frozen=True)
class DictCodec:
    """A dict of whatever MessagePack can say: str keys; None, bool, int, float, str, lists and dicts."""

    label: str = "dict"
    tag: str = "Typed Dict"

    @cached_property
    def type(self) -> LiteralType:
        return LiteralType(simple=types_pb2.STRUCT)

    def exact(self, value: Any) -> bool:
        """Whether the value is a dict."""
        return isinstance(value, dict)

    def encode(self, value: Any, path: str) -> Literal:
        if not isinstance(value, dict):
            raise mismatch(path, self.label, value)
        return pack(value, path)

    def decode(self, literal: Literal, path: str) -> Any:
        value = unpack(literal, path, self.label)
        if not isinstance(value, dict):
            raise mismatch(path, self.label, value)
        return value


@dataclass(frozen=True)
class ModelCodec:
    """A dataclass or a pydantic model of the task's own code, checked and converted by pydantic."""

    python: type
    adapter: TypeAdapter[Any]

    @cached_property
    def label(self) -> str:
        return self.python.__name__

    @cached_property
    def tag(self) -> str:
        return (
            "Object-Dataclass-Transformer"
            if dataclasses.is_dataclass(self.python)
            else "Pydantic Transformer"
        )

    @cached_property
    def type(self) -> LiteralType:
        metadata = struct_pb2.Struct()
        json_format.ParseDict(self.adapter.json_schema(), metadata)
        return LiteralType(
            simple=types_pb2.STRUCT, metadata=metadata, structure=types_pb2.TypeStructure(tag=self.tag)
        )

    def exact(self, value: Any) -> bool:
        """Whether the value is an instance, not the dict that stands for one."""
        return isinstance(value, self.python)

    def encode(self, value: Any, path: str) -> Literal:
        if isinstance(value, dict):
            value = self._validate(value, path, strict=True)
        elif not isinstance(value, self.python):
            raise mismatch(path, self.label, value)
        return pack(self.plain(value, path), path)

    def plain(self, value: Any, path: str) -> Any:
        """An instance as JSON-like values. Raises RemoteTaskUsageError for a field of another type."""
        try:
            return self.adapter.dump_python(value, mode="json", warnings="error")
        except (ValueError, RecursionError) as fault:
            raise RemoteTaskUsageError(
                f"{path}: a field of {self.label} has a value of another type."
            ) from fault

    def decode(self, literal: Literal, path: str) -> Any:
        return self._validate(unpack(literal, path, self.label), path)

    def _validate(self, value: Any, path: str, *, strict: bool | None = None) -> Any:
        from pydantic import ValidationError

        try:
            text = json.dumps(value, default=_base64)
            return self.adapter.validate_json(text, strict=strict)
        except ValidationError as fault:
            first = fault.errors(include_url=False, include_context=False, include_input=False)[0]
            where = "".join(f".{part}" for part in first["loc"])
            raise RemoteTaskUsageError(f"{path}{where}: not a valid {self.label}: {first['msg']}.") from None
        except (TypeError, ValueError, RecursionError):
            raise RemoteTaskUsageError(
                f"{path}: {describe(value, path=path)} cannot be a {self.label}."
            ) from None


@dataclass(frozen=True)
class SchemaCodec:
    """A structure that is known by its JSON schema alone: a remote task's dataclass or model."""

    type: LiteralType
    schema: Mapping[str, Any]
    tag: str = "Object-Dataclass-Transformer"

    @cached_property
    def label(self) -> str:
        return str(self.schema.get("title") or "object")

    def encode(self, value: Any, path: str) -> Literal:
        return pack(schema.check(plain(value, path), self.schema, path), path)

    def decode(self, literal: Literal, path: str) -> Any:
        return unpack(literal, path, self.label)


def plain(value: Any, path: str) -> Any:
    """A dataclass or pydantic instance as JSON-like values; anything else as it is."""
    if isinstance(value, type) or not is_model(type(value)):
        return value
    from flyte._values.python import adapter_of

    return ModelCodec(type(value), adapter_of(type(value))).plain(value, path)


def is_model(kind: type) -> bool:
    """Whether a class is a dataclass or a pydantic model."""
    return dataclasses.is_dataclass(kind) or hasattr(kind, "__pydantic_core_schema__")


def pack(value: Any, path: str) -> Literal:
    """JSON-like values as a binary literal. Raises RemoteTaskUsageError."""
    _check_plain(value, path, 0)
    try:
        body = msgpack.packb(value, use_bin_type=True)
    except (TypeError, ValueError, OverflowError, RecursionError, UnicodeError) as fault:
        raise RemoteTaskUsageError(f"{path}: holds a value that cannot be packed.") from fault
    return Literal(scalar=literals_pb2.Scalar(binary=literals_pb2.Binary(value=body, tag=TAG)))


def unpack(literal: Literal, path: str, label: str) -> Any:
    """The JSON-like values of a binary literal, or of a `Struct` scalar. Raises RemoteTaskUsageError."""
    if literal.HasField("scalar"):
        scalar = literal.scalar
        if scalar.HasField("binary") and scalar.binary.tag == TAG:
            try:
                return msgpack.unpackb(scalar.binary.value, raw=False)
            except (ValueError, msgpack.UnpackException, RecursionError) as fault:
                raise RemoteTaskUsageError(f"{path}: the packed {label} cannot be read.") from fault
        if scalar.HasField("generic"):
            return json_format.MessageToDict(scalar.generic)
    raise wrong_literal(path, label, literal)


def _check_plain(value: Any, path: str, depth: int) -> None:
    """What goes into an untyped structure must come out the same, whoever unpacks it."""
    if depth > _MAX_NESTING:
        raise too_deep(path, _MAX_NESTING)
    match value:
        case None | bool() | int() | float() | str():
            return
        case list():
            for index, each in enumerate(value):
                _check_plain(each, f"{path}[{index}]", depth + 1)
        case dict():
            for key, each in value.items():
                if not isinstance(key, str):
                    raise mismatch(path, "keys of type str", key)
                _check_plain(each, f"{path}[{key[:32]!r}]", depth + 1)
        case _:
            raise mismatch(path, "None, bool, int, float, str, list or dict", value)


def _base64(value: Any) -> str:
    if isinstance(value, bytes):
        import base64

        return base64.b64encode(value).decode()
    raise TypeError(type(value).__name__)
