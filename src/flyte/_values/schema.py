"""Check JSON-like values against the JSON schema of a dataclass or model, and fill in its defaults.

It knows the part of JSON Schema that pydantic and the official SDK write for such types. A keyword that it
does not know passes: the task itself checks again.
"""

from __future__ import annotations

import copy
from collections.abc import Mapping
from typing import Any

from flyte._values.faults import MAX_DEPTH, describe, mismatch, too_deep
from flyte.errors import RemoteTaskUsageError

Schema = Mapping[str, Any]


def check(value: Any, schema: Schema, path: str) -> Any:
    """A checked copy of `value`, defaults filled in. Raises RemoteTaskUsageError that names the place."""
    return _Checker(schema).visit(value, schema, path, 0)


class _Checker:
    """One walk over value and schema together; the root is kept for references."""

    def __init__(self, root: Schema) -> None:
        self.root = root

    def visit(self, value: Any, schema: Schema, path: str, depth: int) -> Any:
        if depth > MAX_DEPTH:
            raise too_deep(path)
        if "$ref" in schema:
            return self.visit(value, self.resolve(str(schema["$ref"]), path), path, depth + 1)
        for key in ("anyOf", "oneOf"):
            if key in schema:
                return self.any_of(value, schema[key], path, depth)
        for part in schema.get("allOf", ()):
            value = self.visit(value, part, path, depth + 1)
        if "const" in schema and not _equal(value, schema["const"]):
            raise mismatch(path, repr(schema["const"]), value)
        if "enum" in schema and not any(_equal(value, each) for each in schema["enum"]):
            raise mismatch(path, f"one of {', '.join(map(str, schema['enum'][:20]))}", value)
        return self.typed(value, schema, path, depth)

    def typed(self, value: Any, schema: Schema, path: str, depth: int) -> Any:
        """By the keyword `type`; a list of types means any of them."""
        kind = schema.get("type")
        if isinstance(kind, list):
            return self.any_of(value, [{**schema, "type": each} for each in kind], path, depth)
        match kind:
            case "object":
                return self.object(value, schema, path, depth)
            case "array":
                return self.array(value, schema, path, depth)
            case "integer":
                fits = isinstance(value, int) and not isinstance(value, bool)
            case "number":
                fits = isinstance(value, (int, float)) and not isinstance(value, bool)
            case "string":
                fits = isinstance(value, str)
            case "boolean":
                fits = isinstance(value, bool)
            case "null":
                fits = value is None
            case _:
                return value
        if not fits:
            raise mismatch(path, str(kind), value)
        return value

    def object(self, value: Any, schema: Schema, path: str, depth: int) -> Any:
        if not isinstance(value, dict):
            raise mismatch(path, str(schema.get("title") or "object"), value)
        properties: Mapping[str, Schema] = schema.get("properties", {})
        missing = [name for name in schema.get("required", ()) if name not in value]
        if missing:
            raise RemoteTaskUsageError(f"{path}: missing {', '.join(missing)}.")
        more = schema.get("additionalProperties", True)
        checked: dict[str, Any] = {}
        for name, each in value.items():
            if not isinstance(name, str):
                raise mismatch(path, "keys of type str", name)
            if name in properties:
                checked[name] = self.visit(each, properties[name], f"{path}.{name}", depth + 1)
            elif more is False:
                raise RemoteTaskUsageError(
                    f"{path}: there is no {name[:64]!r}; known are {', '.join(properties) or 'none'}."
                )
            elif isinstance(more, Mapping):
                checked[name] = self.visit(each, more, f"{path}[{name[:32]!r}]", depth + 1)
            else:
                checked[name] = each
        for name, each in properties.items():
            if name not in checked and "default" in each:
                checked[name] = _whole(copy.deepcopy(each["default"]), each)
        return checked

    def array(self, value: Any, schema: Schema, path: str, depth: int) -> Any:
        if not isinstance(value, list):
            raise mismatch(path, "array", value)
        first: list[Schema] = schema.get("prefixItems", [])
        rest = schema.get("items")
        if len(value) < schema.get("minItems", 0) or len(value) > schema.get("maxItems", len(value)):
            raise RemoteTaskUsageError(f"{path}: {describe(value, path=path)} is the wrong number.")
        checked = []
        for index, each in enumerate(value):
            item = first[index] if index < len(first) else rest
            where = f"{path}[{index}]"
            checked.append(self.visit(each, item, where, depth + 1) if isinstance(item, Mapping) else each)
        return checked

    def any_of(self, value: Any, schemas: list[Schema], path: str, depth: int) -> Any:
        faults = []
        for each in schemas:
            try:
                return self.visit(value, each, path, depth + 1)
            except RemoteTaskUsageError as fault:
                if each.get("type") != "null":
                    faults.append(fault)
        if len(faults) == 1:
            raise faults[0]
        names = " | ".join(str(each.get("title") or each.get("type") or "object") for each in schemas)
        raise mismatch(path, names, value)

    def resolve(self, reference: str, path: str) -> Schema:
        here: Any = self.root
        for part in reference.removeprefix("#").strip("/").split("/"):
            here = here.get(part) if isinstance(here, Mapping) else None
        if not isinstance(here, Mapping):
            raise RemoteTaskUsageError(f"{path}: the interface refers to {reference[:64]!r}, which it lacks.")
        return here


def _equal(value: Any, wanted: Any) -> bool:
    """Equal and of one kind: JSON's true is not 1. Numbers of a protobuf Struct are floats."""
    if isinstance(value, bool) or isinstance(wanted, bool):
        return value is wanted
    return bool(value == wanted)


def _whole(value: Any, schema: Schema) -> Any:
    """Defaults come out of a protobuf Struct, which has no integers."""
    return int(value) if schema.get("type") == "integer" and isinstance(value, float) else value
