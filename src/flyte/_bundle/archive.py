"""A bundle as a deterministic tar.gz: the same files give the same bytes, whoever packs them and when."""

from __future__ import annotations

import gzip
import hashlib
import io
import os
import stat
import tarfile
from dataclasses import dataclass
from pathlib import Path

from flyte._bundle.collect import Selection
from flyte.errors import DeploymentError

MAX_BUNDLE_BYTES = 100 * 1024 * 1024
"""All files together, before compression."""

_MTIME = 315_532_800  # 1980-01-01, the oldest time that every archive format knows


@dataclass(frozen=True, slots=True)
class Bundle:
    """An archive in memory.

    :ivar digest: SHA-256 of the archive, in hexadecimal; it names the archive.
    :ivar md5: what upload locations ask for. It is no security property.
    """

    body: bytes
    digest: str
    md5: bytes
    files: tuple[str, ...]

    @property
    def filename(self) -> str:
        """`<digest>.tar.gz`."""
        return f"{self.digest}.tar.gz"


def pack(selection: Selection) -> Bundle:
    """Read the selected files into an archive. Raises DeploymentError."""
    _check_size(selection)
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w", format=tarfile.USTAR_FORMAT, encoding="utf-8") as tar:
        for name in selection.files:
            _add(tar, selection.root, name)
    body = gzip.compress(buffer.getvalue(), compresslevel=6, mtime=0)
    return Bundle(
        body=body,
        digest=hashlib.sha256(body).hexdigest(),
        md5=hashlib.md5(body, usedforsecurity=False).digest(),
        files=selection.files,
    )


def _add(tar: tarfile.TarFile, root: Path, name: str) -> None:
    try:
        with (root / name).open("rb") as file:
            executable = os.fstat(file.fileno()).st_mode & stat.S_IXUSR
            content = file.read(MAX_BUNDLE_BYTES + 1)
        info = tarfile.TarInfo(name)
        info.size = len(content)
        info.mtime = _MTIME
        info.mode = 0o755 if executable else 0o644
        tar.addfile(info, io.BytesIO(content))
    except OSError as fault:
        raise DeploymentError(f"{name} cannot be read: {fault.strerror}.") from fault
    except ValueError as fault:
        raise DeploymentError(f"The path {name} is too long for an archive.") from fault


def _check_size(selection: Selection) -> None:
    sizes = {}
    for name in selection.files:
        try:
            sizes[name] = (selection.root / name).stat().st_size
        except OSError as fault:
            raise DeploymentError(f"{name} cannot be read: {fault.strerror}.") from fault
    total = sum(sizes.values())
    if total > MAX_BUNDLE_BYTES:
        largest = sorted(sizes, key=lambda name: -sizes[name])[:3]
        listed = ", ".join(f"{name} ({sizes[name] // 1024 // 1024} MiB)" for name in largest)
        raise DeploymentError(
            f"The code takes {total // 1024 // 1024} MiB; {MAX_BUNDLE_BYTES // 1024 // 1024} are allowed. "
            f"The largest files are {listed}.",
            hint="Name what is not code in .flyteignore, or copy the loaded modules only.",
        )
