"""Loading a file of the user, and saying where in it something went wrong."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import rich_click as click

from ._exits import Exit, Failed

if TYPE_CHECKING:
    from flyte._deploy import Loaded

FILE = click.Path(exists=True, dir_okay=False, path_type=Path)


def load(path: Path) -> Loaded:
    """Import the file as the platform will. Raises Failed with the place in the file that failed."""
    from flyte._deploy import load_file
    from flyte.errors import DeploymentError, FlyteError

    try:
        return load_file(path)
    except DeploymentError as error:
        cause = error.__cause__
        if isinstance(cause, Exception) and not isinstance(cause, FlyteError):
            raise Failed.in_user_code(cause, str(path.absolute())) from error
        failed = Failed.of(error)
        failed.status = Exit.USAGE
        raise failed from error


def task(loaded: Loaded, name: str) -> Any:
    """The task of that variable or of that name, `environment.function` or `function`. Raises UsageError."""
    from flyte._task import Task

    found = getattr(loaded.module, name, None)
    if isinstance(found, Task):
        return found
    known = {key: value for key, value in vars(loaded.module).items() if isinstance(value, Task)}
    matching = {id(value): value for value in known.values() if name in (value.name, value.function.__name__)}
    if len(matching) == 1:
        return next(iter(matching.values()))
    names = ", ".join(sorted(known)) or "none"
    raise click.UsageError(f"{loaded.path.name} has no task {name!r}; it has: {names}.")
