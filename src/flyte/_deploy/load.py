"""Loading the file that is deployed, the way the task process will load it."""

from __future__ import annotations

import importlib
import sys
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType

from flyte import _environment
from flyte._environment import Declaration, Environment, Kind
from flyte.errors import DeclarationError, DeploymentError


@dataclass(frozen=True, slots=True)
class Loaded:
    """A loaded file: its module, and the directory that is the root of its code."""

    path: Path
    root: Path
    module: ModuleType

    def environments(self, *, kind: Kind | None = None) -> tuple[Declaration, ...]:
        """What the file itself declares, in order."""
        return _environment.declared(kind=kind, module=self.module.__name__)

    def environment(self, name: str, *, kind: Kind | None = None) -> Environment:
        """An environment by the name of its variable, or by its own name. Raises DeclarationError."""
        value = getattr(self.module, name, None)
        known = [each for each in _environment.declared(kind=kind) if each.environment is value]
        if known:
            return known[0].environment
        for each in (*self.environments(kind=kind), *_environment.declared(kind=kind)):
            if each.name == name:
                return each.environment
        names = ", ".join(sorted(each.name for each in self.environments(kind=kind))) or "none"
        what = f"{kind} environment" if kind else "environment"
        raise DeclarationError(f"{self.path.name} has no {what} {name!r}; it declares: {names}.")


def load_file(path: str | Path) -> Loaded:
    """Import a file under its own name, with its directory as the first place to look modules up.

    Raises DeploymentError when there is no such file, when its name belongs to another module, or when the
    file fails; the cause is the file's own error.
    """
    file = Path(path).absolute()
    if not file.is_file() or file.suffix != ".py":
        raise DeploymentError(f"{path} is not a Python file.")
    root = file.parent.resolve()
    name = file.stem
    if not name.isidentifier():
        raise DeploymentError(
            f"{file.name} cannot be imported: {name!r} is not the name of a module.",
            hint="Rename the file: letters, digits and '_'.",
        )
    if name in sys.stdlib_module_names:
        raise DeploymentError(
            f"{file.name} has the name of a module of Python itself.", hint="Rename the file."
        )
    if str(root) in sys.path:
        sys.path.remove(str(root))
    sys.path.insert(0, str(root))
    importlib.invalidate_caches()
    module = _import(name, file)
    if not _is_file(module, file):
        raise DeploymentError(
            f"The name {name!r} belongs to another module, {getattr(module, '__file__', None)}.",
            hint=f"Rename {file.name}.",
        )
    return Loaded(file, root, module)


def _import(name: str, file: Path) -> ModuleType:
    try:
        return importlib.import_module(name)
    except DeclarationError as fault:
        raise DeploymentError(f"{file.name}: {fault.message}", hint=fault.hint) from fault
    except (Exception, SystemExit) as fault:
        raise DeploymentError(f"{file.name} cannot be imported: {type(fault).__name__}: {fault}") from fault


def _is_file(module: ModuleType, file: Path) -> bool:
    found = getattr(module, "__file__", None)
    return isinstance(found, str) and Path(found).resolve() == file.resolve()
