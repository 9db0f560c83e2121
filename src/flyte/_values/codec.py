"""One codec per shape of value: its literal type, and both directions between value and literal.

The same codecs serve a task's own signature (`python.py` makes them of annotations) and a task that is known
only by its wire interface (`wire.py` makes them of literal types).
"""

from __future__ import annotations

import enum
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Protocol

from flyteidl2.core import literals_pb2, types_pb2

from flyte._values.faults import mismatch
from flyte.errors import RemoteTaskUsageError

Literal = literals_pb2.Literal
LiteralType = types_pb2.LiteralType


class Codec(Protocol):
    """Both directions of one declared type.

    :ivar type: the literal type on the wire.
    :ivar label: how messages call the type.
    :ivar tag: how the official SDK names the type inside a union.
    """

    @property
    def type(self) -> LiteralType: ...
    @property
    def label(self) -> str: ...
    @property
    def tag(self) -> str: ...

    def encode(self, value: Any, path: str) -> Literal:
        """The literal of a value. Raises RemoteTaskUsageError that names `path`."""

    def decode(self, literal: Literal, path: str) -> Any:
        """The value of a literal. Raises RemoteTaskUsageError that names `path`."""


@dataclass(frozen=True)
class NoneCodec:
    """None, and nothing else."""

    label = "None"
    tag = "none"

    @cached_property
    def type(self) -> LiteralType:
        return LiteralType(simple=types_pb2.NONE)

    def encode(self, value: Any, path: str) -> Literal:
        if value is not None:
            raise mismatch(path, self.label, value)
        return Literal(scalar=literals_pb2.Scalar(none_type=literals_pb2.Void()))

    def decode(self, literal: Literal, path: str) -> Any:
        if not (literal.HasField("scalar") and literal.scalar.HasField("none_type")):
            raise wrong_literal(path, self.label, literal)


@dataclass(frozen=True)
class EnumCodec:
    """A choice of names.

    :ivar members: what the task sees, by name.
    :ivar aliases: the names of other spellings, each with its type: members themselves, and their values.
    :ivar foreign: whether a member of any enumeration stands for its name.
    """

    label: str
    members: Mapping[str, Any]
    aliases: Mapping[tuple[type, Any], str]
    foreign: bool = False
    tag: str = "DefaultEnumTransformer"

    @cached_property
    def type(self) -> LiteralType:
        return LiteralType(enum_type=types_pb2.EnumType(values=list(self.members)))

    def encode(self, value: Any, path: str) -> Literal:
        name = self._name(value)
        if name is None:
            raise mismatch(path, self._choice, value)
        return Literal(scalar=literals_pb2.Scalar(primitive=literals_pb2.Primitive(string_value=name)))

    def decode(self, literal: Literal, path: str) -> Any:
        if literal.HasField("scalar") and literal.scalar.primitive.HasField("string_value"):
            name = self._name(literal.scalar.primitive.string_value)
            if name is not None:
                return self.members[name]
            raise mismatch(path, self._choice, literal.scalar.primitive.string_value)
        raise wrong_literal(path, self.label, literal)

    @property
    def _choice(self) -> str:
        names = list(self.members)
        return f"{self.label}, one of {', '.join(names[:20])}{', …' if len(names) > 20 else ''}"

    def _name(self, value: Any) -> str | None:
        if self.foreign and isinstance(value, enum.Enum) and value.name in self.members:
            return value.name
        if type(value) is str and value in self.members:
            return value
        try:
            return self.aliases.get((type(value), value))
        except TypeError:  # not hashable
            return None


@dataclass(frozen=True)
class ListCodec:
    """A list of one type."""

    item: Codec
    tag: str = "Typed List"

    @cached_property
    def label(self) -> str:
        return f"list[{self.item.label}]"

    @cached_property
    def type(self) -> LiteralType:
        return LiteralType(collection_type=self.item.type)

    def encode(self, value: Any, path: str) -> Literal:
        if not isinstance(value, list):
            raise mismatch(path, self.label, value)
        items = [self.item.encode(each, f"{path}[{index}]") for index, each in enumerate(value)]
        return Literal(collection=literals_pb2.LiteralCollection(literals=items))

    def decode(self, literal: Literal, path: str) -> Any:
        if not literal.HasField("collection"):
            raise wrong_literal(path, self.label, literal)
        return [
            self.item.decode(each, f"{path}[{index}]")
            for index, each in enumerate(literal.collection.literals)
        ]


@dataclass(frozen=True)
class MapCodec:
    """A dict from str to one type."""

    value: Codec
    tag: str = "Typed Dict"

    @cached_property
    def label(self) -> str:
        return f"dict[str, {self.value.label}]"

    @cached_property
    def type(self) -> LiteralType:
        return LiteralType(map_value_type=self.value.type)

    def encode(self, value: Any, path: str) -> Literal:
        if not isinstance(value, dict):
            raise mismatch(path, self.label, value)
        literal = Literal(map=literals_pb2.LiteralMap())
        for key, each in value.items():
            if not isinstance(key, str):
                raise mismatch(path, f"{self.label} (keys must be str)", key)
            try:
                slot = literal.map.literals[key]
            except (UnicodeError, ValueError, TypeError):
                raise mismatch(path, f"{self.label} (keys must be valid Unicode)", value) from None
            slot.CopyFrom(self.value.encode(each, f"{path}[{key[:32]!r}]"))
        return literal

    def decode(self, literal: Literal, path: str) -> Any:
        if not literal.HasField("map"):
            raise wrong_literal(path, self.label, literal)
        return {
            key: self.value.decode(each, f"{path}[{key[:32]!r}]")
            for key, each in literal.map.literals.items()
        }


@dataclass(frozen=True)
class UnionCodec:
    """One of several types. The first whose codec takes the value wins, an exact one before a lenient one."""

    variants: tuple[Codec, ...]
    tag: str = "union"

    @cached_property
    def label(self) -> str:
        return " | ".join(variant.label for variant in self.variants)

    @cached_property
    def type(self) -> LiteralType:
        return LiteralType(
            union_type=types_pb2.UnionType(variants=[_tagged(variant) for variant in self.variants])
        )

    def encode(self, value: Any, path: str) -> Literal:
        fault: RemoteTaskUsageError | None = None
        for variant in sorted(self.variants, key=lambda each: not _is_exact(each, value)):
            try:
                literal = variant.encode(value, path)
            except RemoteTaskUsageError as raised:
                fault = fault or (raised if not isinstance(variant, NoneCodec) else None)
                continue
            return Literal(
                scalar=literals_pb2.Scalar(union=literals_pb2.Union(value=literal, type=_tagged(variant)))
            )
        if fault is not None and sum(not isinstance(each, NoneCodec) for each in self.variants) == 1:
            raise fault  # Optional[T]: what is wrong with the T says more than the list of two
        raise mismatch(path, self.label, value)

    def decode(self, literal: Literal, path: str) -> Any:
        if not (literal.HasField("scalar") and literal.scalar.HasField("union")):
            return self._first(self.variants, literal, path)
        union = literal.scalar.union
        named = [each for each in self.variants if _same(_tagged(each), union.type)]
        alike = [each for each in self.variants if each not in named and _alike(each.type, union.type)]
        return self._first((*named, *alike), union.value, path)

    def _first(self, variants: tuple[Codec, ...], literal: Literal, path: str) -> Any:
        for variant in variants:
            try:
                return variant.decode(literal, path)
            except RemoteTaskUsageError:
                continue
        raise wrong_literal(path, self.label, literal)


@dataclass(frozen=True)
class UnsupportedCodec:
    """A type of the wire that this SDK does not speak: files, data frames, pickles. It fails when used."""

    type: LiteralType
    label: str
    tag: str = ""

    def encode(self, value: Any, path: str) -> Literal:
        raise RemoteTaskUsageError(f"{path}: {self.label} cannot be passed by this SDK.")

    def decode(self, literal: Literal, path: str) -> Any:
        raise RemoteTaskUsageError(f"{path}: {self.label} cannot be read by this SDK.")


def wrong_literal(path: str, expected: str, literal: Literal) -> RemoteTaskUsageError:
    """The error to raise for a literal of another kind than declared."""
    kind = literal.WhichOneof("value") or "nothing"
    if kind == "scalar":
        kind = literal.scalar.WhichOneof("value") or "nothing"
        if kind == "primitive":
            kind = literal.scalar.primitive.WhichOneof("value") or "nothing"
    return RemoteTaskUsageError(f"{path}: expected {expected}, got a literal with {kind}.")


def _is_exact(codec: Codec, value: Any) -> bool:
    """Whether the value is of the codec's own Python type, without any leniency."""
    exact = getattr(codec, "exact", None)
    if callable(exact):
        return bool(exact(value))
    match codec:
        case NoneCodec():
            return value is None
        case ListCodec():
            return isinstance(value, list)
        case MapCodec():
            return isinstance(value, dict)
        case EnumCodec():
            return codec._name(value) is not None
        case _:
            return False


def _tagged(codec: Codec) -> LiteralType:
    kind = LiteralType()
    kind.CopyFrom(codec.type)
    kind.structure.tag = codec.tag
    return kind


def _same(one: LiteralType, other: LiteralType) -> bool:
    """Equal but for annotations, which say nothing about the value."""
    return _bare(one) == _bare(other)


def _alike(one: LiteralType, other: LiteralType) -> bool:
    """Of the same kind: the tag and the metadata of another SDK may differ."""
    kind = one.WhichOneof("type")
    if kind != other.WhichOneof("type"):
        return False
    return one.simple == other.simple if kind == "simple" else True


def _bare(kind: LiteralType) -> LiteralType:
    bare = LiteralType()
    bare.CopyFrom(kind)
    bare.ClearField("annotation")
    return bare
