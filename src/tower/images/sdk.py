"""The SDK as every image gets it: the package `flyte`, copied once under the digest of its content."""

from __future__ import annotations

import hashlib
import importlib.metadata
import importlib.util
import os
import re
import secrets
import shutil
from dataclasses import dataclass
from pathlib import Path

from tower.errors import Broken
from tower.images.readable import open_up

DISTRIBUTION = "flyte-tower"
_PACKAGES = ("flyte", "flytekit")


@dataclass(frozen=True, slots=True)
class Sdk:
    """Where the copy lies, the digest that names it, and what it needs from the package index."""

    digest: str
    path: Path
    requirements: tuple[str, ...]


def publish(folder: Path) -> Sdk:
    """Copy the SDK of this installation to `folder/<digest>`, unless that copy exists. Raises Broken.

    Tower's own package is never part of it: a task has no business with the server's code.
    """
    files = dict(_files())
    try:
        version = importlib.metadata.version(DISTRIBUTION)
        requirements = importlib.metadata.requires(DISTRIBUTION) or []
    except importlib.metadata.PackageNotFoundError as error:
        raise Broken("The SDK is not installed beside Tower.", cause=str(error)) from error
    # its own metadata, so that the SDK can tell its version inside an image too
    files[f"{DISTRIBUTION.replace('-', '_')}-{version}.dist-info/METADATA"] = (
        f"Metadata-Version: 2.1\nName: {DISTRIBUTION}\nVersion: {version}\n".encode()
    )
    base = tuple(sorted(line for line in requirements if not re.search(r";.*\bextra\s*==", line)))
    digest = _digest(files, base)
    target = folder / digest
    if not target.is_dir():
        _write(files, folder, target)
    open_up(target)
    return Sdk(digest, target, base)


def _files() -> list[tuple[str, bytes]]:
    found = []
    for package in _PACKAGES:
        spec = importlib.util.find_spec(package)
        if spec is None or not spec.submodule_search_locations:
            continue
        root = Path(next(iter(spec.submodule_search_locations)))
        found += [
            (f"{package}/{path.relative_to(root).as_posix()}", path.read_bytes())
            for path in sorted(root.rglob("*"))
            if path.is_file() and "__pycache__" not in path.parts
        ]
    if not found:
        raise Broken("The SDK is not installed beside Tower.", cause="no package flyte")
    return found


def _digest(files: dict[str, bytes], requirements: tuple[str, ...]) -> str:
    digest = hashlib.sha256(repr(requirements).encode())
    for name in sorted(files):
        digest.update(f"\0{name}\0{len(files[name])}\0".encode())
        digest.update(files[name])
    return digest.hexdigest()[:32]


def _write(files: dict[str, bytes], folder: Path, target: Path) -> None:
    draft = folder / f".draft-{secrets.token_hex(8)}"
    try:
        for name, content in files.items():
            path = draft / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(content)
        open_up(draft)
        os.replace(draft, target)
    except OSError as error:
        shutil.rmtree(draft, ignore_errors=True)
        if not target.is_dir():
            raise Broken("The SDK could not be copied.", cause=str(error)) from error
