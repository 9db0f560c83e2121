"""Code bundles: unpacked once, never outside their folder, never other content than was deployed."""

from __future__ import annotations

import asyncio
import gzip
import hashlib
import io
import tarfile
from collections.abc import AsyncIterator, Callable
from pathlib import Path

import pytest

from tower.clock import SystemClock
from tower.control.reconcile import Bundles
from tower.control.reconcile import bundles as module
from tower.control.reconcile.bundles import unpack
from tower.errors import Invalid
from tower.store.blobs import Blobs
from tower.store.database import Database


def archive(*members: tuple[tarfile.TarInfo, bytes]) -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w", format=tarfile.PAX_FORMAT) as tar:
        for member, data in members:
            member.size = len(data)
            tar.addfile(member, io.BytesIO(data))
    return gzip.compress(buffer.getvalue())


def file(name: str, data: bytes = b"x", **facts: object) -> tuple[tarfile.TarInfo, bytes]:
    member = tarfile.TarInfo(name)
    for fact, value in facts.items():
        setattr(member, fact, value)
    return member, data


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    folder = tmp_path / "out"
    folder.mkdir()
    return folder


def test_files_and_folders(folder: Path) -> None:
    data = archive(
        file("pkg", b"", type=tarfile.DIRTYPE),
        file("pkg/mod.py", b"a = 1", mode=0o644, mtime=347155200),
        file("./run.sh", b"#!", mode=0o4755),
        file("deep/er/b", b""),
    )
    unpack(io.BytesIO(data), folder)
    assert (folder / "pkg/mod.py").read_bytes() == b"a = 1"
    assert (folder / "pkg/mod.py").stat().st_mode & 0o7777 == 0o600
    assert (folder / "pkg/mod.py").stat().st_mtime == 347155200
    assert (folder / "run.sh").stat().st_mode & 0o7777 == 0o700
    assert (folder / "deep/er/b").exists()


@pytest.mark.parametrize(
    "member",
    [
        file("/etc/cron.d/x"),
        file("../x"),
        file("a/../../x"),
        file("a\nb"),
        file("x" * 2000),
        file("/".join("a" * 100)),
        file("link", b"", type=tarfile.SYMTYPE, linkname="/etc/passwd"),
        file("link", b"", type=tarfile.LNKTYPE, linkname="../../x"),
        file("dev", b"", type=tarfile.CHRTYPE),
        file("fifo", b"", type=tarfile.FIFOTYPE),
    ],
    ids=lambda member: member[0].name[:12],
)
def test_what_could_leave_the_folder_is_refused(
    folder: Path, member: tuple[tarfile.TarInfo, bytes], tmp_path: Path
) -> None:
    with pytest.raises(Invalid):
        unpack(io.BytesIO(archive(member)), folder)
    assert [path.name for path in tmp_path.iterdir()] == ["out"]


def test_t45_what_an_extended_header_says_is_looked_through_once(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Python's own reader needs ten seconds for some of 64 KiB, in which nothing else of Tower gets on."""

    def never(*_: object) -> None:
        raise AssertionError("read by Python's own reader")

    monkeypatch.setattr(tarfile.TarInfo, "_proc_pax", never)
    long = "/".join(["deep" * 20] * 4)
    data = archive(file(long, b"a = 1", mtime=347155200.5), file("größe.py", b"b"), file("plain.py"))
    unpack(io.BytesIO(data), folder)
    assert (folder / long).read_bytes() == b"a = 1"
    assert (folder / long).stat().st_mtime == 347155200.5
    assert (folder / "größe.py").read_bytes() == b"b"
    digits = gzip.compress(_said(tarfile.XHDTYPE, b"1" * 60_000) * 100)
    with pytest.raises(Invalid):
        unpack(io.BytesIO(digits), folder)


def test_the_same_name_twice_is_refused(folder: Path) -> None:
    with pytest.raises(Invalid):
        unpack(io.BytesIO(archive(file("a", b"1"), file("a", b"2"))), folder)


@pytest.mark.parametrize(
    "data",
    [b"", b"no archive", gzip.compress(b"no tar" * 100), archive(file("a"))[:40]],
    ids=["empty", "no gzip", "no tar", "cut off"],
)
def test_damaged_archives_are_refused_or_empty(folder: Path, data: bytes) -> None:
    with pytest.raises(Invalid):
        unpack(io.BytesIO(data), folder)


@pytest.mark.parametrize(("limit", "value"), [("_LARGEST", 10), ("_MOST_FILES", 2)])
def test_too_much_is_refused(folder: Path, monkeypatch: pytest.MonkeyPatch, limit: str, value: int) -> None:
    monkeypatch.setattr(module, limit, value)
    with pytest.raises(Invalid, match="more than"):
        unpack(io.BytesIO(archive(*(file(str(number), b"12345") for number in range(3)))), folder)


class Counting(Bundles):
    """Counts how often it unpacks."""

    times = 0

    def _unpack(self, source: Path, digest: str) -> Path:
        self.times += 1
        return super()._unpack(source, digest)


@pytest.fixture
async def stored(tmp_path: Path) -> AsyncIterator[tuple[Blobs, str, str]]:
    data = archive(file("m.py", b"a = 1"))
    async with Database.open(tmp_path / "tower.db", clock=SystemClock()) as db:
        blobs = Blobs(tmp_path / "blobs", db=db, small=0)
        await blobs.put("bundles/p/d/x/c.tar.gz", data)
        yield blobs, "tower://bundles/p/d/x/c.tar.gz", hashlib.sha256(data).hexdigest()


async def test_a_bundle_is_unpacked_once(tmp_path: Path, stored: tuple[Blobs, str, str]) -> None:
    blobs, uri, digest = stored
    bundles = Counting(tmp_path, blobs=blobs)
    folders = await asyncio.gather(*(bundles.ready(uri, digest) for _ in range(3)))
    assert len({*folders, await bundles.ready(uri, digest)}) == 1
    assert bundles.times == 1
    assert folders[0] is not None
    assert (folders[0] / "m.py").read_bytes() == b"a = 1"
    assert [path.name for path in (tmp_path / "code").iterdir()] == [digest]
    assert await bundles.ready("", "") is None


@pytest.mark.parametrize(
    "change",
    [
        lambda uri, digest: (uri, "0" * 64),
        lambda uri, digest: (uri, ""),
        lambda uri, digest: ("tower://bundles/p/d/x/other.tar.gz", digest),
        lambda uri, digest: ("https://evil.example/c.tar.gz", digest),
        lambda uri, digest: ("tower://../../etc/passwd", digest),
    ],
)
async def test_another_content_or_place_is_refused(
    tmp_path: Path, stored: tuple[Blobs, str, str], change: Callable[[str, str], tuple[str, str]]
) -> None:
    blobs, uri, digest = stored
    bundles = Bundles(tmp_path, blobs=blobs)
    with pytest.raises(Invalid):
        await bundles.ready(*change(uri, digest))
    assert list((tmp_path / "code").iterdir()) == []


def _announcing(kind: bytes, size: int) -> bytes:
    member = tarfile.TarInfo("x")
    member.type, member.size = kind, size
    return member.tobuf(tarfile.USTAR_FORMAT)


def _padded(text: bytes) -> bytes:
    return text.ljust(512, b"\0")


def _said(kind: bytes, data: bytes, *, of: int = 0) -> bytes:
    """An extended header of this content, and a file behind it."""
    file = tarfile.TarInfo(f"file{of}").tobuf(tarfile.USTAR_FORMAT)
    return _announcing(kind, len(data)) + data + b"\0" * (-len(data) % 512) + file


def _negative(kind: bytes) -> bytes:
    block = bytearray(_announcing(kind, 0))
    block[124:136] = b"\xff" * 11 + b"\x00"  # -256 to the base of 256
    block[148:156] = b"%06o\0 " % (sum(block[:148]) + 8 * 32 + sum(block[156:]))
    return bytes(block)


_LONG = b"60012 comment=" + b"a" * (60012 - 15) + b"\n"
HEADERS = {
    "many extended headers": b"".join(_said(tarfile.XHDTYPE, _LONG, of=each) for each in range(600)),
    "many global headers": b"".join(_said(tarfile.XGLTYPE, _LONG, of=each) for each in range(600)),
    "many long names": b"".join(_said(tarfile.GNUTYPE_LONGLINK, _LONG, of=each) for each in range(600)),
    "a file of less than nothing": _negative(tarfile.REGTYPE),
    "a header of less than nothing": _negative(tarfile.XHDTYPE),
    "a time that is none": _said(tarfile.XHDTYPE, b"15 mtime=1e300\n"),
    "a length that is none": _said(tarfile.XHDTYPE, b"1" * 60_000),
    "an extended header": _announcing(tarfile.XHDTYPE, 64 << 20),
    "a global header": _announcing(tarfile.XGLTYPE, 64 << 20),
    "a long name": _announcing(tarfile.GNUTYPE_LONGNAME, 64 << 20),
    "a chain of headers": (_announcing(tarfile.XGLTYPE, 7) + _padded(b"7 a=b\n")) * 3000,
    "an old sparse file": _announcing(tarfile.GNUTYPE_SPARSE, 1 << 20),
    "a sparse file": _announcing(tarfile.XHDTYPE, 44)
    + _padded(b"22 GNU.sparse.major=1\n22 GNU.sparse.minor=0\n")
    + _announcing(tarfile.REGTYPE, 64 << 20)
    + b"99999999999\n",
}


@pytest.mark.parametrize("header", list(HEADERS.values()), ids=list(HEADERS))
def test_headers_that_would_fill_the_memory_are_refused(
    folder: Path, header: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    largest = 0
    read = tarfile._Stream.read  # type: ignore[attr-defined]

    def noted(self: object, size: int) -> bytes:
        nonlocal largest
        largest = max(largest, size)
        return bytes(read(self, size))

    monkeypatch.setattr(tarfile._Stream, "read", noted)  # type: ignore[attr-defined]
    with pytest.raises(Invalid):
        unpack(io.BytesIO(gzip.compress(header + b"0\n" * (1 << 20))), folder)
    assert largest <= 64 * 1024
