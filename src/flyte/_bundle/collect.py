"""Which files a bundle holds."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from types import ModuleType
from typing import Literal, get_args

from flyte._bundle.ignore import Ignore, is_built_in, looks_like_credential
from flyte.errors import DeploymentError

CopyStyle = Literal["loaded_modules", "all"]
COPY_STYLES: tuple[CopyStyle, ...] = get_args(CopyStyle)

MAX_FILES = 10_000


@dataclass(frozen=True, slots=True)
class Selection:
    """Files below a root, as sorted posix paths relative to it; and what was left out for safety, and why."""

    root: Path
    files: tuple[str, ...]
    left_out: tuple[str, ...] = ()


@dataclass(slots=True)
class _Walk:
    """One walk over a directory tree."""

    root: Path
    ignore: Ignore = field(default_factory=Ignore)
    files: list[str] = field(default_factory=list)
    left_out: list[str] = field(default_factory=list)


def collect(
    root: Path,
    *,
    style: CopyStyle = "loaded_modules",
    entries: Iterable[Path] = (),
    modules: Iterable[ModuleType] | None = None,
) -> Selection:
    """The files to bundle. Raises DeploymentError.

    "loaded_modules" takes the modules that this process has imported from below `root`, and `entries`:
    nothing lands in a bundle that no code asked for. "all" takes every file below `root` except what is
    hidden, ignored by .gitignore or .flyteignore, or looks like a credential.

    :param entries: the files that declare what is deployed, always in the bundle.
    :param modules: instead of those in `sys.modules`.
    """
    root = root.resolve()
    match style:
        case "loaded_modules":
            chosen = _loaded(root, sys.modules.copy().values() if modules is None else modules)
        case "all":
            chosen = _everything(root)
        case _:
            raise DeploymentError(f"{style!r} is no way to copy code; choose from {', '.join(COPY_STYLES)}.")
    files = set(chosen.files)
    for entry in entries:
        files.add((entry.absolute().parent.resolve() / entry.name).relative_to(root).as_posix())
    return Selection(root, tuple(sorted(files)), tuple(sorted(chosen.left_out)))


def _loaded(root: Path, modules: Iterable[ModuleType]) -> _Walk:
    walk = _Walk(root)
    walk.ignore.read(root, base=PurePosixPath(), names=(".flyteignore",))
    for module in modules:
        file = getattr(module, "__file__", None)
        if not isinstance(file, str) or module.__name__.partition(".")[0] == "flyte":
            continue  # the SDK is part of every image
        path = _inside(root, Path(file))
        if path is None or _is_environment(root, path) or walk.ignore.ignores(path, directory=False):
            continue
        if (root / path).is_file():
            walk.files.append(str(path))
    return walk


def _everything(root: Path) -> _Walk:
    if root == root.parent or root == Path.home().resolve():
        raise DeploymentError(
            f"{root} is too much to bundle.", hint="Move the file into a directory of its own project."
        )
    walk = _Walk(root)
    for parent in _repository_parents(root):
        walk.ignore.read(parent, base=PurePosixPath(), names=(".gitignore",))
    _enter(walk, PurePosixPath())
    return walk


def _enter(walk: _Walk, relative: PurePosixPath) -> None:
    here = walk.root / relative
    walk.ignore.read(here, base=relative)
    try:
        entries = sorted(os.scandir(here), key=lambda entry: entry.name)
    except OSError as fault:
        raise DeploymentError(f"{here} cannot be read: {fault.strerror}.") from fault
    for entry in entries:
        path = relative / entry.name
        directory = entry.is_dir(follow_symlinks=False)
        if looks_like_credential(entry.name) and not directory:
            walk.left_out.append(f"{path}: looks like a credential")
            continue
        if is_built_in(entry.name, directory=directory) or walk.ignore.ignores(path, directory=directory):
            continue
        if directory:
            if not (walk.root / path / "pyvenv.cfg").exists():
                _enter(walk, path)
        elif entry.is_symlink() and _inside(walk.root, Path(entry.path)) is None:
            walk.left_out.append(f"{path}: links to outside of {walk.root.name}")
        elif entry.is_symlink() and Path(entry.path).is_dir():
            walk.left_out.append(f"{path}: links to a directory")
        elif entry.is_file():
            walk.files.append(str(path))
        if len(walk.files) > MAX_FILES:
            raise DeploymentError(
                f"{walk.root} holds more than {MAX_FILES} files.",
                hint="Name what is not code in .flyteignore, or copy the loaded modules only.",
            )


def _inside(root: Path, path: Path) -> PurePosixPath | None:
    """A path relative to the root, or None when the path or what it links to lies outside."""
    try:
        path.resolve().relative_to(root)
        return PurePosixPath((path.absolute().parent.resolve() / path.name).relative_to(root).as_posix())
    except (ValueError, OSError, RuntimeError):
        return None


def _is_environment(root: Path, path: PurePosixPath) -> bool:
    """Whether a loaded module comes from an environment below the root, not from the project."""
    if any(is_built_in(part, directory=True) for part in path.parent.parts):
        return True
    return any((root / parent / "pyvenv.cfg").exists() for parent in path.parents)


def _repository_parents(root: Path) -> list[Path]:
    """The directories above the root up to the repository's own, outermost first."""
    parents: list[Path] = []
    for parent in root.parents:
        if (parents and (parents[-1] / ".git").exists()) or (root / ".git").exists():
            break
        parents.append(parent)
        if (parent / ".git").exists():
            return parents[::-1]
    return []
