"""Files that values name, between attempts of official tasks: kept when a value leaves, put where it arrives.

Inside an attempt such a value names a file of the attempt's own directory, outside it is
`tower://raw/<project>/<domain>/<run>/<sha256>/<name>`. Nothing in the directory is believed: no link is
followed, nothing above it is read. A name that arrives is looked up with the rights of who executes the
attempt: it is of its own run, or of one that it may view.
"""

from __future__ import annotations

import asyncio
import hashlib
import os
import re
import stat
from collections.abc import AsyncIterator, Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit

from flyteidl2.core import literals_pb2
from flyteidl2.task import common_pb2

from tower.control.access import Access
from tower.control.grounded import FOLDER, NEW, PLAIN, below, give
from tower.control.runs import run_resource
from tower.errors import Exhausted, Invalid, NotFound, Unavailable
from tower.identity.directory import Attempts
from tower.policy.actions import Action
from tower.store import runs
from tower.store.blobs import Blobs
from tower.store.database import Database
from tower.store.runs import ROOT, ActionKey

RAW = "tower://raw/"
UPLOADED = "tower://bundles/"
GIVEN = "given"
_CHUNK = 1 << 20
_MOST_FILES = 10_000
_DEEPEST = 32
_PLAIN = re.compile(r"[A-Za-z0-9_-][A-Za-z0-9_.-]{0,99}")


@dataclass(frozen=True, slots=True)
class _File:
    """A file of a value: where it stands below the name of the value ("" is that itself), and its content."""

    below: str
    size: int
    sha256: str


class RawData:
    """Takes files out of attempts and gives them to others."""

    def __init__(self, *, db: Database, blobs: Blobs, access: Access, attempts: Attempts, limit: int) -> None:
        """`limit` is how many bytes the files of one message may have."""
        self._db = db
        self._blobs = blobs
        self._access = access
        self._attempts = attempts
        self._limit = limit

    async def taken(
        self, message: common_pb2.Inputs | common_pb2.Outputs, *, folder: Path, run: ActionKey
    ) -> None:
        """Keep what the values of a message name below `folder`, an attempt's directory, and name it anew.

        Raises Invalid and Exhausted. A path elsewhere stays as it is: it is nothing that was made here.
        """
        left = self._limit
        for value in _files(message):
            path = _local(value.uri)
            if path is None or not path.is_relative_to(folder) or path == folder:
                continue
            found = await asyncio.to_thread(_look, folder, path.relative_to(folder).parts, left)
            left -= sum(file.size for file in found)
            name = path.name if _PLAIN.fullmatch(path.name) else "data"
            place = f"raw/{run.project}/{run.domain}/{run.run}/{_digest(found)}/{name}"
            for file in found:
                key = f"{place}/{file.below}" if file.below else place
                if not await self._blobs.exists(key):
                    steps = (*path.relative_to(folder).parts, *filter(None, file.below.split("/")))
                    await self._keep(key, folder, steps, file)
            value.uri = f"tower://{place}"

    async def given(
        self, message: common_pb2.Inputs | common_pb2.Outputs, *, folder: Path, attempt: str
    ) -> None:
        """Put what the values of a message name into `folder`, for an attempt, and name it by its path there.

        Raises NotFound for what is gone or may not be seen by who executes the attempt, and Unavailable.
        """
        for value in _files(message):
            if not value.uri.startswith((RAW, UPLOADED)):
                continue
            if not await self._visible(value.uri, attempt):
                raise NotFound("A file that an input names is not there.", hint="Run what made it again.")
            key = value.uri.removeprefix("tower://").rstrip("/")
            digest, name = key.split("/")[-2:]
            source = self._blobs.path(key)
            try:
                await asyncio.to_thread(_put, source, folder, (GIVEN, digest[:64]), name)
            except FileNotFoundError as error:
                raise NotFound("A file that an input names is not there.") from error
            except OSError as error:
                raise Unavailable("A file could not be handed over.", cause=str(error)) from error
            value.uri = str(folder / GIVEN / digest[:64] / name)

    async def _visible(self, uri: str, attempt: str) -> bool:
        project, domain, run, *_ = attempt.split("/")
        parts = uri.split("/")[3:]
        if uri.startswith(UPLOADED):
            return len(parts) == 4 and parts[:2] == [project, domain] and all(map(_PLAIN.fullmatch, parts))
        if len(parts) != 5 or not all(map(_PLAIN.fullmatch, parts)):
            return False
        if parts[:3] == [project, domain, run]:
            return True
        key = ActionKey(parts[0], parts[1], parts[2], ROOT)
        row = self._db.read_now(lambda reader: runs.get(reader, key))
        principal = await self._attempts.attempt(attempt)
        if row is None or principal is None:
            return False
        thing = run_resource(key, owner=row.executed_by)
        return (await self._access.check(principal, Action.RUN_VIEW, thing)).allowed

    async def _keep(self, key: str, folder: Path, steps: tuple[str, ...], file: _File) -> None:
        with below(folder, *steps) as descriptor:

            async def chunks() -> AsyncIterator[bytes]:
                while chunk := await asyncio.to_thread(os.read, descriptor, _CHUNK):
                    yield chunk

            stored = await self._blobs.put_stream(key, chunks(), limit=file.size, size=file.size)
        if stored.sha256.hex() != file.sha256:
            await self._blobs.delete(key)
            raise Invalid(f"The file {steps[-1][:100]!r} changed while it was kept.")


def _files(message: common_pb2.Inputs | common_pb2.Outputs) -> Iterator[Any]:
    """The parts of a message that have a `uri` of a file: change it there."""
    waiting = [each.value for each in message.literals]
    while waiting:
        literal = waiting.pop()
        match literal.WhichOneof("value"):
            case "collection":
                waiting += literal.collection.literals
            case "map":
                waiting += literal.map.literals.values()
            case "scalar":
                yield from _of_scalar(literal.scalar, waiting)
            case _:
                pass


def _of_scalar(scalar: literals_pb2.Scalar, waiting: list[literals_pb2.Literal]) -> Iterator[Any]:
    match scalar.WhichOneof("value"):
        case "blob":
            yield scalar.blob
        case "structured_dataset":
            yield scalar.structured_dataset
        case "union":
            waiting.append(scalar.union.value)
        case _:
            pass


def _local(uri: str) -> Path | None:
    said = urlsplit(uri)
    if said.scheme == "file" and not said.netloc:
        return Path(os.path.normpath(unquote(said.path)))
    return Path(os.path.normpath(uri)) if uri.startswith("/") else None


def _look(folder: Path, steps: tuple[str, ...], left: int) -> list[_File]:
    """The file, or all files below the folder of this name, in order. Raises Invalid, Exhausted."""
    found: list[_File] = []

    def visit(parent: int, name: str, below: str, depth: int) -> None:
        nonlocal left
        descriptor = os.open(name, PLAIN, dir_fd=parent)
        try:
            facts = os.fstat(descriptor)
            if stat.S_ISDIR(facts.st_mode) and depth < _DEEPEST:
                for each in sorted(os.listdir(descriptor)):
                    visit(descriptor, each, f"{below}/{each}" if below else each, depth + 1)
                return
            if not stat.S_ISREG(facts.st_mode) or facts.st_nlink > 1:
                raise Invalid(f"{name[:100]!r} is no plain file.")
            left -= facts.st_size
            if left < 0 or len(found) >= _MOST_FILES:
                raise Exhausted("The files of the values are too large or too many to be kept.")
            found.append(_File(below, facts.st_size, _sha256(descriptor, facts.st_size)))
        finally:
            os.close(descriptor)

    try:
        with below(folder, *steps[:-1]) as parent:
            visit(parent, steps[-1], "", 0)
    except OSError as error:
        raise Invalid("A file that a value names cannot be read.", cause=str(error)) from error
    return found


def _sha256(descriptor: int, size: int) -> str:
    """The digest of so many bytes: who wrote the file may go on writing, as fast as it is read."""
    digest, place = hashlib.sha256(), 0
    while place < size and (chunk := os.pread(descriptor, min(_CHUNK, size - place), place)):
        digest.update(chunk)
        place += len(chunk)
    return digest.hexdigest()


def _digest(found: list[_File]) -> str:
    if len(found) == 1 and not found[0].below:
        return found[0].sha256
    listing = "\n".join(f"{file.sha256} {file.below}" for file in found)
    return hashlib.sha256(listing.encode(errors="surrogateescape")).hexdigest()


def _put(source: Path, folder: Path, steps: tuple[str, ...], name: str) -> None:
    """Copy a kept file, or a folder of them, below `folder`; what is there under its name stays as it is."""
    with below(folder, *steps, make=True) as place:
        _copy(source, place, name)


def _copy(source: Path, place: int, name: str) -> None:
    if source.is_dir():
        with suppress(FileExistsError):
            os.mkdir(name, 0o700, dir_fd=place)
            give(name, place)
        inner = os.open(name, FOLDER, dir_fd=place)
        try:
            for each in sorted(source.iterdir()):
                _copy(each, inner, each.name)
        finally:
            os.close(inner)
        return
    with source.open("rb") as file:
        try:
            out = os.open(name, NEW, 0o600, dir_fd=place)
        except FileExistsError:
            return
        with os.fdopen(out, "wb") as target:
            while chunk := file.read(_CHUNK):
                target.write(chunk)
        give(name, place)
