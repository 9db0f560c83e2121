"""Inputs, outputs and bundles, addressed by key: small contents are rows, the others files of one directory.

A key is a relative path like `bundles/flytesnacks/development/<digest>/code.tar.gz`; its URI is `tower://<key>`.
What was put is on the disk when the call returns, and nobody ever sees a part of it. Where a content lies is
nobody's business but this module's; only what came as a stream is a file for certain.
"""

from __future__ import annotations

import asyncio
import hashlib
import hmac
import os
import re
import secrets
import stat
import threading
import time
import unicodedata
from collections import OrderedDict
from collections.abc import AsyncIterable, AsyncIterator, Callable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO, NamedTuple

from tower.errors import Exhausted, Invalid, NotFound
from tower.store import shelf
from tower.store.database import Database, Transaction

SCHEME = "tower://"
_INCOMING = ".incoming"
_ABANDONED_AFTER = 24 * 3600.0
_CHUNK = 1024 * 1024
_KNOWN_CONTENTS = 4096
_PLAIN = re.compile(r"(?:[A-Za-z0-9_][A-Za-z0-9_.-]{0,199}/)*[A-Za-z0-9_][A-Za-z0-9_.-]{0,199}")
"""What nearly all keys are: nothing in them needs a second look."""


@dataclass(frozen=True, slots=True)
class Stored:
    """What a stream amounted to: its size in bytes and its digests, raw."""

    size: int
    md5: bytes
    sha256: bytes


class Content(NamedTuple):
    """A content under its own digest; `data` is what `Blobs.store` has yet to store, None for nothing."""

    key: str
    digest: str
    data: bytes | None


def check_key(key: str) -> str:
    """The key itself. Raises Invalid for one that is not a plain relative path."""
    if len(key) <= 1024 and _PLAIN.fullmatch(key):
        return key
    segments = key.split("/")
    good = (
        0 < len(key) <= 1024
        and not key.startswith(".")
        and "\\" not in key
        and all(segment not in ("", ".", "..") for segment in segments)
        and not any(unicodedata.category(character) in ("Cc", "Cf", "Cs") for character in key)
        and all(len(segment.encode()) <= 200 for segment in segments)
    )
    if not good:
        raise Invalid("A name in the blob store is a relative path of plain names, at most 1024 characters.")
    return key


def uri(key: str) -> str:
    """The URI of a key. Raises Invalid."""
    return SCHEME + check_key(key)


def parse_uri(text: str) -> str:
    """The key that a `tower://` URI names. Raises Invalid."""
    if not text.startswith(SCHEME):
        raise Invalid("This is not a URI of Tower's blob store.", hint=f"It begins with {SCHEME}.")
    return check_key(text.removeprefix(SCHEME))


class Blobs:
    """The blob store of one machine. The directory is private to the server's user."""

    def __init__(self, root: Path, *, db: Database, small: int = shelf.SMALL) -> None:
        """Use a directory, made where absent. What a crash left half written is removed after a day.

        Contents of at most `small` bytes are rows of the database.
        """
        self._root = root
        self._db = db
        self._small = small
        self._incoming = root / _INCOMING
        self._incoming.mkdir(mode=0o700, parents=True, exist_ok=True)
        root.chmod(0o700)
        self._known: OrderedDict[str, None] = OrderedDict()
        self._forget_abandoned()

    def path(self, key: str) -> Path:
        """Where the content of a key lies that came as a stream, for reading. Raises Invalid."""
        return self._root / check_key(key)

    async def put(self, key: str, data: bytes) -> None:
        """Store or replace a content. Raises Invalid for a bad key, OSError when the disk refuses."""
        await self._db.write(await self.put_with(key, data))

    async def put_with(self, key: str, data: bytes) -> Callable[[Transaction], None]:
        """`put` for a content that belongs to an effect: call the result in the transaction of the effect."""
        path = self.path(key)
        if len(data) > self._small:
            await asyncio.to_thread(self._put, key, data)
            return lambda tx: shelf.remove(tx, key)

        def write(tx: Transaction) -> None:
            shelf.write(tx, key, data)
            tx.after_commit(lambda: _remove(path))

        return write

    def small(self, key: str) -> bytes | None:
        """The content of a key if it is a small one, at once; None otherwise. Raises Invalid."""
        check_key(key)
        return self._db.read_now(lambda reader: shelf.read(reader, key))

    async def put_content(self, prefix: str, data: bytes, *, suffix: str = "") -> str:
        """Store a content under its own digest and return the key, `<prefix>/<sha256><suffix>`.

        A content that is stored already is not written again.
        """
        content = await self.take(prefix, data, suffix=suffix)
        if content.data is not None:
            await self._db.write(lambda tx: self.store(tx, content), simple=True)
        return content.key

    async def take(self, prefix: str, data: bytes, *, suffix: str = "") -> Content:
        """`put_content` for a content that belongs to an effect: `store` is called in its transaction."""
        digest = hashlib.sha256(data).hexdigest()
        key = f"{prefix}/{digest}{suffix}"
        if key in self._known:
            self._known.move_to_end(key)
            return Content(key, digest, None)
        check_key(key)
        if len(data) <= self._small:
            return Content(key, digest, data)
        if await self.size(key) != len(data):
            await asyncio.to_thread(self._put, key, data)
        self._remember(key)
        return Content(key, digest, None)

    def store(self, tx: Transaction, content: Content) -> None:
        """Store what is left of a content in the transaction of what refers to it."""
        if content.data is not None:
            shelf.add(tx, content.key, content.data)
            tx.after_commit(lambda: self._remember(content.key))

    async def put_stream(
        self,
        key: str,
        chunks: AsyncIterable[bytes],
        *,
        limit: int,
        md5: bytes | None = None,
        size: int | None = None,
    ) -> Stored:
        """Store a stream of at most `limit` bytes; it appears under its key as a whole, or not at all.

        Raises Exhausted beyond the limit, Invalid when the content is not of the announced `md5` or `size`.
        """
        incoming = _Incoming(self._incoming / secrets.token_hex(16))
        try:
            buffer = bytearray()
            async for chunk in chunks:
                if incoming.size + len(buffer) + len(chunk) > limit:
                    raise Exhausted(f"The upload is larger than {limit} bytes.")
                buffer += chunk
                if len(buffer) >= _CHUNK:
                    data, buffer = bytes(buffer), bytearray()
                    await asyncio.to_thread(incoming.write, data)
            await asyncio.to_thread(incoming.write, bytes(buffer))
            stored = incoming.stored()
            if size is not None and stored.size != size:
                raise Invalid(f"The upload has {stored.size} bytes, {size} were announced.")
            if md5 is not None and not hmac.compare_digest(stored.md5, md5):
                raise Invalid("The upload does not have the MD5 digest that was announced.")
            await asyncio.to_thread(incoming.publish, self._root, check_key(key))
        finally:
            incoming.discard()
        await self._unshelve(key)
        return stored

    async def get(self, key: str, *, limit: int) -> bytes:
        """A whole content. Raises NotFound, or Exhausted when it has more than `limit` bytes."""
        data = self.small(key)
        if data is None:
            return await asyncio.to_thread(_read, self.path(key), limit)
        if len(data) > limit:
            raise _too_large(key, limit)
        return data

    async def stream(self, key: str) -> AsyncIterator[bytes]:
        """A content in chunks of about a megabyte. Raises NotFound before the first one."""
        data = self.small(key)
        if data is not None:
            yield data
            return
        file = await asyncio.to_thread(_open, self.path(key))
        # a thread may still read when the caller leaves: it holds the lock that closing waits for
        lock = threading.Lock()

        def read() -> bytes:
            with lock:
                return b"" if file.closed else file.read(_CHUNK)

        try:
            while chunk := await asyncio.to_thread(read):
                yield chunk
        finally:
            with lock:
                file.close()

    async def size(self, key: str) -> int | None:
        """The size of a content in bytes, None where there is none."""
        path = self.path(key)
        small = self._db.read_now(lambda reader: shelf.size(reader, key))
        return await asyncio.to_thread(_size, path) if small is None else small

    async def exists(self, key: str) -> bool:
        """Whether there is a content under the key."""
        return await self.size(key) is not None

    async def delete(self, key: str) -> None:
        """Remove a content; nothing happens where there is none."""
        path = self.path(key)
        self._known.pop(key, None)
        await self._unshelve(key)
        await asyncio.to_thread(_remove, path)

    async def _unshelve(self, key: str) -> None:
        if self._db.read_now(lambda reader: shelf.size(reader, key)) is not None:
            await self._db.write(lambda tx: shelf.remove(tx, key))

    def _remember(self, key: str) -> None:
        self._known[key] = None
        if len(self._known) > _KNOWN_CONTENTS:
            self._known.popitem(last=False)

    def _put(self, key: str, data: bytes) -> None:
        incoming = _Incoming(self._incoming / secrets.token_hex(16))
        try:
            incoming.write(data)
            incoming.publish(self._root, key)
        finally:
            incoming.discard()

    def _forget_abandoned(self) -> None:
        oldest = time.time() - _ABANDONED_AFTER
        for path in self._incoming.iterdir():
            if path.stat().st_mtime < oldest:
                path.unlink(missing_ok=True)


class _Incoming:
    """A file on its way in: written by worker threads, given up by the event loop when the caller leaves."""

    def __init__(self, path: Path) -> None:
        self._path = path
        # a caller may leave while a thread writes: the lock keeps that thread off a reused descriptor
        self._lock = threading.Lock()
        self._descriptor: int | None = os.open(path, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o600)
        self._md5 = hashlib.md5(usedforsecurity=False)
        self._sha256 = hashlib.sha256()
        self.size = 0

    def write(self, data: bytes) -> None:
        """Add to the file."""
        with self._lock:
            if self._descriptor is None:
                return
            rest = memoryview(data)
            while rest:
                rest = rest[os.write(self._descriptor, rest) :]
            self._md5.update(data)
            self._sha256.update(data)
            self.size += len(data)

    def stored(self) -> Stored:
        """What was written."""
        return Stored(self.size, self._md5.digest(), self._sha256.digest())

    def publish(self, root: Path, key: str) -> None:
        """Make the file appear under its key, durably: the data, then the name, then the directories."""
        with self._lock:
            if self._descriptor is None:
                return
            os.fsync(self._descriptor)
            target = root / key
            _make_directories(root, target.parent)
            self._path.rename(target)
            _sync_directory(target.parent)

    def discard(self) -> None:
        """Close, and remove what was not published."""
        with self._lock:
            if self._descriptor is not None:
                os.close(self._descriptor)
                self._descriptor = None
                self._path.unlink(missing_ok=True)


def _open(path: Path) -> BinaryIO:
    try:
        return path.open("rb")
    except (FileNotFoundError, IsADirectoryError, NotADirectoryError) as error:
        raise NotFound("There is no such content.", cause=str(path)) from error


def _read(path: Path, limit: int) -> bytes:
    with _open(path) as file:
        data = file.read(limit + 1)
    if len(data) > limit:
        raise _too_large(str(path), limit)
    return data


def _too_large(place: str, limit: int) -> Exhausted:
    return Exhausted(f"The content is larger than {limit} bytes.", cause=place)


def _size(path: Path) -> int | None:
    try:
        status = path.stat()
    except (FileNotFoundError, NotADirectoryError):
        return None
    return status.st_size if stat.S_ISREG(status.st_mode) else None


def _remove(path: Path) -> None:
    with suppress(FileNotFoundError, NotADirectoryError, IsADirectoryError):
        path.unlink()


def _make_directories(root: Path, directory: Path) -> None:
    if directory == root or directory.is_dir():
        return
    _make_directories(root, directory.parent)
    directory.mkdir(mode=0o700, exist_ok=True)
    _sync_directory(directory.parent)


def _sync_directory(directory: Path) -> None:
    descriptor = os.open(directory, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
