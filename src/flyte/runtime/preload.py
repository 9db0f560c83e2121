"""Importing user code in the template, and whether the result may be forked.

A forked child starts with what the module made when it was imported here. That is only right when the import
could not have gone otherwise in a process of the attempt's own. So a child is not forked, and Tower starts a
fresh interpreter instead, when the import left threads or open files behind, read a variable that differs
between attempts, or ran in another environment than this attempt has.
"""

from __future__ import annotations

import asyncio  # noqa: F401 - loaded here, so that no child has to; the same goes for the others
import contextlib
import ctypes  # noqa: F401
import importlib
import os
import random  # noqa: F401
from collections.abc import Iterator
from pathlib import Path

import flyte.transport.connect  # noqa: F401
from flyte import _environment, _interface, _values  # noqa: F401
from flyte.errors import DeclarationError
from flyte.runtime import loader, report, task  # noqa: F401
from flyte.runtime.start import PER_ATTEMPT, Start

with contextlib.suppress(ImportError):
    # the HTTP client loads it with its first connection, which each attempt would pay for
    importlib.import_module("anyio._backends._asyncio")


OTHER_ENVIRONMENT = "its environment differs from the one that the code was imported in"
"""Why this attempt must not be forked, while others of the task may be."""


class _Watched(os._Environ):  # type: ignore[type-arg]
    """`os.environ` during an import: it notes which of the attempt's own variables were asked for."""

    asked: set[str] = set()  # noqa: RUF012 - one per process, while a module is imported

    def __getitem__(self, key: str) -> str:
        if key in PER_ATTEMPT:
            self.asked.add(key)
        value: str = super().__getitem__(key)
        return value


class Preload:
    """What this template has imported, and why some of it must not be forked."""

    def __init__(self, bundle: Path | None) -> None:
        self._bundle = bundle
        self._env: dict[str, str] | None = None
        self._modules: set[str] = set()
        self._unsafe: dict[str, str] = {}
        self._descriptors: set[int] = set()

    def baseline(self, *own: int) -> None:
        """Note the descriptors that are open before any user code runs."""
        self._descriptors = _open_descriptors() | set(own)

    @property
    def imported(self) -> int:
        """How many modules were imported here: a child forked before the last one lacks it."""
        return len(self._modules)

    def prepare(self, start: Start, own: set[int]) -> str:
        """Import the module of an attempt, once; answers why it must not be forked, or an empty text.

        Raises OSError when that cannot be found out now; what the import itself did is remembered.
        """
        if self._env is None:
            self._env = start.import_env
            os.environ.clear()
            os.environ.update(self._env)
            loader.enter(self._bundle)
        elif self._env != start.import_env:
            return OTHER_ENVIRONMENT
        if start.module not in self._modules:
            self._import(start, own)
            self._modules.add(start.module)
        if start.module in self._unsafe:
            return self._unsafe[start.module]
        return threads()

    def _import(self, start: Start, own: set[int]) -> None:
        # errors are not ours to tell: the child meets them again and reports them
        with _watching() as asked, contextlib.suppress(Exception, SystemExit):
            _ = loader.task(start.module, start.task).interface
            # those beside it are called by it, as a rule
            for declaration in _environment.declared(kind="task", module=start.module):
                for each in getattr(declaration.environment, "tasks", {}).values():
                    with contextlib.suppress(DeclarationError):
                        _ = each.interface
        if asked:
            self._unsafe[start.module] = f"its import depends on {', '.join(sorted(asked))}"
        elif _open_descriptors() - self._descriptors - own:
            self._unsafe[start.module] = "its import left files open"


def threads() -> str:
    """Why the process cannot be forked now: threads, also those of libraries that Python knows nothing of."""
    return "other threads are running" if len(os.listdir("/proc/self/task")) > 1 else ""


def _open_descriptors() -> set[int]:
    found = set()
    for name in os.listdir("/proc/self/fd"):
        descriptor = int(name)
        with contextlib.suppress(OSError):  # the listing's own descriptor is gone by now
            os.fstat(descriptor)
            found.add(descriptor)
    return found


@contextlib.contextmanager
def _watching() -> Iterator[set[str]]:
    plain = type(os.environ)
    _Watched.asked = set()
    os.environ.__class__ = _Watched
    try:
        yield _Watched.asked
    finally:
        os.environ.__class__ = plain
