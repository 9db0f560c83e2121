"""Tar archives of strangers, read in a memory and a time that do not depend on what they announce.

`tarfile` reads extended headers whole, keeps each, and looks through them in a time that is the square of
their length, in which nothing else of the process gets on. So what they say is read here: name, size and
time of the file behind them, and nothing else.
"""

from __future__ import annotations

import tarfile
from collections.abc import Iterator
from contextlib import contextmanager
from typing import IO, ClassVar, Literal, Self, cast

LONGEST_HEADER = 64 * 1024
"""One long name or extended header, in bytes."""

MOST_HEADERS = 32 * 1024 * 1024
"""All of them together."""

UNREADABLE = (tarfile.TarError, EOFError, OSError, ValueError, OverflowError, RecursionError)
"""What reading an archive that is none raises, and using what one says of its files."""

_BLOCK = 512
_LONG = {tarfile.GNUTYPE_LONGNAME, tarfile.GNUTYPE_LONGLINK}
_EXTENDED = {tarfile.XHDTYPE, tarfile.XGLTYPE, tarfile.SOLARIS_XHDTYPE}
_DIGITS = 20
_SPARSE = "GNU.sparse."


@contextmanager
def opened(file: IO[bytes], mode: Literal["r|", "r|gz"]) -> Iterator[tarfile.TarFile]:
    """An archive to go through once, from its beginning. What fails raises one of `UNREADABLE`."""
    counted = cast("type[tarfile.TarInfo]", type("Member", (_Member,), {"room": MOST_HEADERS}))
    with tarfile.open(fileobj=file, mode=mode, tarinfo=counted) as archive:
        yield archive


class _Member(tarfile.TarInfo):
    """A member with short headers of its own. Sparse files, which have maps of any length, are refused."""

    room: ClassVar[int] = MOST_HEADERS

    @classmethod
    def frombuf(cls, buf: bytes | bytearray, encoding: str, errors: str) -> Self:
        """One header block. Raises tarfile.TarError for one that announces too much, or less than nothing."""
        member = super().frombuf(buf, encoding, errors)
        if member.size < 0 or member.type == tarfile.GNUTYPE_SPARSE:
            raise tarfile.ReadError("a size below nothing, or a sparse file")
        if member.type in _LONG | _EXTENDED:
            cls.room -= _BLOCK + member.size
            if member.size > LONGEST_HEADER or cls.room < 0:
                raise tarfile.ReadError("a header is too large")
        return member

    def _proc_pax(self, archive: tarfile.TarFile) -> tarfile.TarInfo:
        """The member behind this extended header, as that describes it; one for all members says nothing."""
        data = cast("IO[bytes]", archive.fileobj).read(_blocks(self.size))[: self.size]
        said = {} if self.type == tarfile.XGLTYPE else _records(data)
        try:
            member = self.fromtarfile(archive)
        except tarfile.HeaderError as error:
            raise tarfile.ReadError(str(error)) from None
        member.offset = self.offset
        if "path" in said:
            member.name = said["path"].rstrip("/")
        if "mtime" in said:
            member.mtime = float(said["mtime"])
        if "size" in said:
            member.size = _number(said["size"])
            plain = member.isreg() or member.type not in tarfile.SUPPORTED_TYPES
            archive.offset = member.offset_data + (_blocks(member.size) if plain else 0)
        return member


def _blocks(size: int) -> int:
    return -(-size // _BLOCK) * _BLOCK


def _number(text: str) -> int:
    if not (text.isascii() and text.isdigit() and len(text) <= _DIGITS):
        raise tarfile.ReadError("a number that is none")
    return int(text)


def _records(data: bytes) -> dict[str, str]:
    """The records of an extended header, `LENGTH KEYWORD=VALUE` and a line feed each (POSIX pax)."""
    found: dict[str, str] = {}
    begin = 0
    while begin < len(data):
        blank = data.find(b" ", begin, begin + _DIGITS)
        end = begin + _number(data[begin : max(blank, begin)].decode("ascii"))
        name, equals, value = data[blank + 1 : end - 1].partition(b"=")
        if not equals or end > len(data) or data[end - 1] != ord("\n"):
            raise tarfile.ReadError("an extended header that cannot be read")
        found[name.decode()] = value.decode()
        begin = end
    if any(name.startswith(_SPARSE) for name in found):
        raise tarfile.ReadError("a sparse file")
    return found
