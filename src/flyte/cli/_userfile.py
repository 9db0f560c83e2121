"""Loading a file of the user as its module, the way the platform will: its folder comes first on the path."""

from __future__ import annotations

import importlib
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import rich_click as click

from flyte.errors import FlyteError

from ._exits import Exit, Failed


def load(path: Path) -> ModuleType:
    """Import the file. Raises Failed with the place in the file where it went wrong."""
    file = path.resolve()
    name = file.stem
    if file.suffix != ".py" or not name.isidentifier():
        raise click.UsageError(f"{path} is no Python file with the name of a module.")
    folder = str(file.parent)
    if sys.path[:1] != [folder]:
        sys.path.insert(0, folder)
    known = sys.modules.get(name)
    if known is not None and _file(known) != file:
        raise Failed(f"{path} has the name of a module that is in use, {name}: rename it.", Exit.USAGE)
    importlib.invalidate_caches()
    try:
        module = importlib.import_module(name)
    except (FlyteError, click.ClickException):
        raise
    except Exception as error:
        raise Failed.in_user_code(error, str(file)) from error
    if _file(module) != file:
        raise Failed(f"{path} has the name of an installed module, {name}: rename it.", Exit.USAGE)
    return module


def named(module: ModuleType, name: str, kind: type[Any] | tuple[type[Any], ...], *, what: str) -> Any:
    """What the module has as a variable of that name, or declares under that name. Raises UsageError."""
    found = getattr(module, name, None)
    candidates = {key: value for key, value in vars(module).items() if isinstance(value, kind)}
    if isinstance(found, kind):
        return found
    matching = {id(value): value for value in candidates.values() if getattr(value, "name", None) == name}
    if len(matching) == 1:
        return next(iter(matching.values()))
    known = ", ".join(sorted(key for key in candidates if not key.startswith("_"))) or "none"
    raise click.UsageError(f"{module.__name__}.py has no {what} {name!r}; it has: {known}.")


def _file(module: ModuleType) -> Path | None:
    path = getattr(module, "__file__", None)
    return Path(path).resolve() if path else None
