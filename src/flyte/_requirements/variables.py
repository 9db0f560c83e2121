"""Environment variables of a declaration: public settings, not credentials."""

from __future__ import annotations

import re
from collections.abc import Mapping

from flyte.errors import DeclarationError

MAX_BYTES = 32 * 1024
"""All names and values together."""

_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")
_RESERVED_PREFIXES = ("_U_", "_F_", "FLYTE_INTERNAL_")
_RESERVED = frozenset(
    {
        "ACTION_NAME",
        "FLYTE_AGENT_SOCKET",
        "FLYTE_APP_NAME",
        "FLYTE_APP_PEER",
        "FLYTE_APP_SOCKET",
        "FLYTE_ATTEMPT_NUMBER",
        "RUN_NAME",
    }
)


def check_variables(variables: object, *, what: str) -> dict[str, str]:
    """A checked copy of a mapping of environment variables; None is the empty one.

    Raises DeclarationError for names that no shell knows, for values that are not strings, and for the names
    that the platform itself sets in every process that it hosts.
    """
    if variables is None:
        return {}
    if not isinstance(variables, Mapping):
        raise DeclarationError(f"env_vars of {what} must be a dict of strings.")
    checked: dict[str, str] = {}
    for name, value in variables.items():
        if not isinstance(name, str) or not _NAME.fullmatch(name):
            raise DeclarationError(f"{name!r} is not a name of an environment variable ({what}).")
        if name in _RESERVED or name.startswith(_RESERVED_PREFIXES):
            raise DeclarationError(f"The environment variable {name} is set by the platform ({what}).")
        if not isinstance(value, str):
            raise DeclarationError(
                f"The environment variable {name} of {what} must be a string, not {type(value).__name__}."
            )
        if "\0" in value:
            raise DeclarationError(f"The environment variable {name} of {what} holds a NUL character.")
        checked[name] = value
    if sum(len(name) + len(value.encode(errors="replace")) for name, value in checked.items()) > MAX_BYTES:
        raise DeclarationError(f"env_vars of {what} take more than {MAX_BYTES} bytes.")
    return checked
