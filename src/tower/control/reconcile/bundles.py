"""Code bundles, unpacked once per content into a folder that its digest names."""

from __future__ import annotations

import asyncio
import hashlib
import hmac
import os
import secrets
import shutil
from pathlib import Path, PurePosixPath
from typing import IO, Protocol

from tower.control import archives
from tower.errors import Invalid
from tower.images.readable import open_up

_LARGEST = 1 << 30
_MOST_FILES = 20_000
_LONGEST_NAME = 1024
_DEEPEST = 64


class Blobs(Protocol):
    """Where bundles lie; `tower.store.blobs.Blobs` is one."""

    def path(self, key: str, /) -> Path:
        """The file of a key."""


class Bundles:
    """Unpacks `tower://bundles/...` under `home/code/<digest>`; the same content once, whoever asks."""

    def __init__(self, home: Path, *, blobs: Blobs) -> None:
        """Use `home/code`; what a crash left half unpacked is removed."""
        self._folder = home / "code"
        self._folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        self._blobs = blobs
        self._known: set[str] = set()
        self._checked: set[tuple[Path, str]] = set()
        self._running: dict[str, asyncio.Task[Path]] = {}
        for draft in self._folder.glob(".draft-*"):
            shutil.rmtree(draft, ignore_errors=True)

    async def ready(self, uri: str, digest: str) -> Path | None:
        """The folder of a bundle, None for no bundle.

        `digest` is the SHA-256 recorded when the task was deployed: other content is refused (T2). Raises
        Invalid.
        """
        if not uri:
            return None
        if len(digest) != 64 or not uri.startswith("tower://"):
            raise Invalid("The code bundle of this task is not one that was uploaded to this Tower.")
        folder = self._folder / digest
        if digest in self._known:
            return folder
        task = self._running.get(digest)
        if task is None:
            source = self._blobs.path(uri.removeprefix("tower://"))
            task = asyncio.get_running_loop().create_task(asyncio.to_thread(self._unpack, source, digest))
            self._running[digest] = task
            task.add_done_callback(lambda _: self._running.pop(digest))
        await asyncio.shield(task)
        self._known.add(digest)
        return folder

    async def file(self, uri: str, digest: str) -> Path:
        """The bundle as it was uploaded, for a runtime that unpacks it itself. Raises Invalid as `ready`."""
        if len(digest) != 64 or not uri.startswith("tower://"):
            raise Invalid("The code bundle of this task is not one that was uploaded to this Tower.")
        source = self._blobs.path(uri.removeprefix("tower://"))
        if (source, digest) not in self._checked:
            await asyncio.to_thread(_check, source, digest)
            self._checked.add((source, digest))
        return source

    def _unpack(self, source: Path, digest: str) -> Path:
        folder = self._folder / digest
        if folder.is_dir():
            open_up(folder)  # one of an older Tower may be closed still
            return folder
        draft = self._folder / f".draft-{secrets.token_hex(8)}"
        draft.mkdir(mode=0o700)
        try:
            with source.open("rb") as file:
                found = hashlib.file_digest(file, "sha256").hexdigest()
                if not hmac.compare_digest(found, digest):
                    raise Invalid("The code bundle is not the one that was deployed.")
                file.seek(0)
                unpack(file, draft)
            open_up(draft)
            os.replace(draft, folder)
        except FileNotFoundError as error:
            raise Invalid("The code bundle of this task is gone.", hint="Deploy it again.") from error
        finally:
            shutil.rmtree(draft, ignore_errors=True)
        return folder


def _check(source: Path, digest: str) -> None:
    try:
        with source.open("rb") as file:
            found = hashlib.file_digest(file, "sha256").hexdigest()
    except FileNotFoundError as error:
        raise Invalid("The code bundle of this task is gone.", hint="Deploy it again.") from error
    if not hmac.compare_digest(found, digest):
        raise Invalid("The code bundle is not the one that was deployed.")


def unpack(file: IO[bytes], folder: Path) -> None:
    """Unpack a gzipped tar of plain files into an empty folder. Raises Invalid for anything else.

    Links, devices, absolute names and names that climb out are refused, and so is too much of anything.
    """
    room, files = _LARGEST, 0
    try:
        with archives.opened(file, "r|gz") as archive:
            for member in archive:
                files += 1
                if files > _MOST_FILES:
                    raise Invalid(f"The code bundle holds more than {_MOST_FILES} files.")
                target = folder / _name(member.name)
                if member.isdir():
                    target.mkdir(mode=0o700, parents=True, exist_ok=True)
                    continue
                content = archive.extractfile(member) if member.isreg() else None
                if content is None:
                    raise Invalid(f"{member.name[:100]!r} in the code bundle is not a plain file.")
                room -= member.size
                if room < 0:
                    raise Invalid(f"The code bundle holds more than {_LARGEST} bytes.")
                target.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
                mode = 0o700 if member.mode & 0o100 else 0o600
                descriptor = os.open(target, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW, mode)
                with os.fdopen(descriptor, "wb") as out:
                    shutil.copyfileobj(content, out, 1 << 20)
                os.utime(target, (member.mtime, member.mtime))
    except archives.UNREADABLE as error:
        raise Invalid("The code bundle cannot be unpacked.", cause=str(error)) from error


def _name(name: str) -> PurePosixPath:
    path = PurePosixPath(name)
    if (
        path.is_absolute()
        or ".." in path.parts
        or len(name) > _LONGEST_NAME
        or len(path.parts) > _DEEPEST
        or not name.isprintable()
    ):
        raise Invalid(f"{name[:100]!r} is no name for a file of a code bundle.")
    return path
