"""Secrets that a task or an app asks for: by name, never by value."""

from __future__ import annotations

import os
import re
from collections.abc import Iterable
from dataclasses import dataclass

from flyte._requirements.variables import check_variables
from flyte.errors import DeclarationError

MAX_SECRETS = 32

_KEY = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]{0,127}")


@dataclass(frozen=True, slots=True)
class Secret:
    """A secret that the platform keeps, given to the process when it starts.

    ::

        env = flyte.TaskEnvironment("reports", secrets=[flyte.Secret("warehouse-token", as_env_var="TOKEN")])

    Without `as_env_var` and `mount` the value is in the variable of the secret's own name, in capitals and
    with `_` for what cannot be in such a name: `WAREHOUSE_TOKEN`.

    :param key: the name under which it was created.
    :param as_env_var: the variable that holds the value; with `mount`, the path of the file.
    :param mount: True puts the value into a file that only this process can read, named by the key in the
        folder that the variable `FLYTE_SECRETS_DIR` names. "/etc/flyte/secrets" means the same.
    :raises DeclarationError: for names that cannot be.
    """

    key: str
    as_env_var: str | None = None
    mount: bool | str | os.PathLike[str] = False

    def __post_init__(self) -> None:
        if not isinstance(self.key, str) or not _KEY.fullmatch(self.key):
            raise DeclarationError(
                f"{self.key!r} cannot be the name of a secret.",
                hint="It has at most 128 letters, digits and '_.-', and begins with none of '.-'.",
            )
        if not isinstance(self.mount, bool) and os.fspath(self.mount) != "/etc/flyte/secrets":
            raise DeclarationError(
                f"The secret {self.key} cannot be put at {os.fspath(self.mount)!r}.",
                hint="Say mount=True; the folder is in FLYTE_SECRETS_DIR.",
            )
        object.__setattr__(self, "mount", bool(self.mount))
        if self.as_env_var is None and not self.mount:
            name = re.sub(r"[^A-Za-z0-9_]", "_", self.key).upper()
            object.__setattr__(self, "as_env_var", f"_{name}" if name[0].isdigit() else name)
        if self.as_env_var is not None:
            check_variables({self.as_env_var: ""}, what=f"the secret {self.key!r}")


def as_secrets(value: object, *, what: str) -> tuple[Secret, ...]:
    """Secrets from a list, or from one alone; a name is a Secret of that name. Raises DeclarationError."""
    if value is None:
        return ()
    if isinstance(value, str | Secret):
        value = [value]
    if not isinstance(value, Iterable):
        raise DeclarationError(f"secrets of {what} must be a list of flyte.Secret(...).")
    found = tuple(Secret(each) if isinstance(each, str) else each for each in value)
    if not all(isinstance(each, Secret) for each in found):
        raise DeclarationError(f"secrets of {what} must be a list of flyte.Secret(...).")
    if len(found) > MAX_SECRETS:
        raise DeclarationError(f"{what} has more than {MAX_SECRETS} secrets.")
    variables = [each.as_env_var for each in found if each.as_env_var is not None]
    files = [each.key for each in found if each.mount]
    for names in (variables, files):
        twice = next((name for name in names if names.count(name) > 1), None)
        if twice is not None:
            raise DeclarationError(f"Two secrets of {what} are for {twice}.")
    return found
