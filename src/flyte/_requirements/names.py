"""Names that become part of task names, host names and paths."""

from __future__ import annotations

import re

from flyte.errors import DeclarationError

MAX_NAME = 63
MAX_DESCRIPTION = 1024

_NAME = re.compile(r"[A-Za-z][A-Za-z0-9_-]*")


def check_name(name: object, *, what: str) -> str:
    """The name of an environment or task, or DeclarationError: letters, digits, `-` and `_`, at most 63."""
    if not isinstance(name, str) or not name:
        raise DeclarationError(f"The name of {what} must be a non-empty string, not {type(name).__name__}.")
    if len(name) > MAX_NAME:
        raise DeclarationError(f"The name of {what} has {len(name)} characters; {MAX_NAME} are allowed.")
    if not _NAME.fullmatch(name):
        raise DeclarationError(
            f"{name!r} cannot be the name of {what}.",
            hint="Use letters, digits, '-' and '_', and begin with a letter.",
        )
    return name


def check_description(text: object, *, what: str) -> str:
    """A description of at most 1024 characters; None is the empty one."""
    if text is None:
        return ""
    if not isinstance(text, str):
        raise DeclarationError(f"The description of {what} must be a string, not {type(text).__name__}.")
    if len(text) > MAX_DESCRIPTION:
        raise DeclarationError(
            f"The description of {what} has {len(text)} characters; {MAX_DESCRIPTION} are allowed."
        )
    return text
