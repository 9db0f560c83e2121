"""Loading user code from a bundle, and finding what it declares."""

from __future__ import annotations

import importlib
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

from flyte import _environment
from flyte._task import Task
from flyte.errors import DeclarationError


def enter(bundle: Path | None) -> None:
    """Make the bundle the first place where modules are looked up, whatever the working directory is."""
    sys.path[:] = [entry for entry in sys.path if entry != ""]
    if bundle is not None and (not sys.path or sys.path[0] != str(bundle)):
        sys.path.insert(0, str(bundle))
        importlib.invalidate_caches()


def load(module: str) -> ModuleType:
    """Import a module of the bundle; what it raises passes through."""
    return importlib.import_module(module)


def task(module: str, name: str) -> Task[..., Any]:
    """The task of a full name, from the module or from what it imports. Raises what the module raises."""
    load(module)
    try:
        return _environment.find_task(name, module=module)
    except DeclarationError:
        return _environment.find_task(name)


def environment(module: str, name: str) -> _environment.Environment:
    """The app environment of a name, from the module or from what it imports."""
    load(module)
    try:
        return _environment.find(name, kind="app", module=module).environment
    except DeclarationError:
        return _environment.find(name, kind="app").environment
