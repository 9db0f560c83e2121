"""What is wrong with a value, said without giving the value away."""

from __future__ import annotations

import re
from typing import Any

from flyte.errors import RemoteTaskUsageError

MAX_DEPTH = 24
"""Lists in lists, maps in maps. Protobuf itself stops at 100 messages in one another."""

MAX_BYTES = 10 * 1024 * 1024
"""The inputs or the outputs of one call, encoded."""

_SECRET_NAME = re.compile(r"pass|secret|token|key|credential|auth|cookie|private", re.IGNORECASE)
_SHOWN = 16


def mismatch(path: str, expected: str, value: object) -> RemoteTaskUsageError:
    """The error to raise when at `path` something else than `expected` came."""
    return RemoteTaskUsageError(f"{path}: expected {expected}, got {describe(value, path=path)}.")


def describe(value: object, *, path: str) -> str:
    """The kind of a value, and the value itself where it is short and cannot be a secret."""
    kind = type(value).__name__
    match value:
        case None:
            return "None"
        case bool() | int() | float():
            text = repr(value) if not isinstance(value, int) or abs(value) < 10**20 else "a large number"
            return kind if _SECRET_NAME.search(path) else f"{kind} {text}"
        case str() if len(value) <= _SHOWN and not _SECRET_NAME.search(path):
            return f"str {value!r}"
        case str():
            return f"str of {len(value)} characters"
        case list() | tuple() | dict() | set() | bytes():
            return f"{kind} of {len(value)} items" if not isinstance(value, bytes) else "bytes"
        case _:
            return kind


def too_deep(path: str, levels: int = MAX_DEPTH) -> RemoteTaskUsageError:
    """The error to raise for values nested beyond a limit."""
    return RemoteTaskUsageError(f"{path.partition('[')[0]}: nested more than {levels} levels deep.")


def check_size(message: Any, *, what: str) -> None:
    """Raise RemoteTaskUsageError when an encoded message is above MAX_BYTES."""
    size = message.ByteSize()
    if size > MAX_BYTES:
        raise RemoteTaskUsageError(
            f"{what} take {size} bytes; {MAX_BYTES} are allowed.",
            hint="Store large data elsewhere and pass a reference to it.",
        )
