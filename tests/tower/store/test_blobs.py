"""The blob store: whole or absent, within its limits, inside its directory, on the disk when it answers.

Everything holds for contents that are rows and for those that are files: each test runs with both.
"""

from __future__ import annotations

import asyncio
import hashlib
import os
import stat
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tower.clock import SystemClock
from tower.errors import Exhausted, Invalid, NotFound
from tower.store.blobs import Blobs, check_key, parse_uri, uri
from tower.store.database import Database, Transaction
from tower.store.shelf import SMALL


@pytest.fixture
async def db(tmp_path: Path) -> AsyncIterator[Database]:
    async with Database.open(tmp_path / "tower.db", clock=SystemClock()) as db:
        yield db


@pytest.fixture(params=[-1, 1 << 30], ids=["files", "rows"])
def blobs(tmp_path: Path, db: Database, request: pytest.FixtureRequest) -> Blobs:
    return Blobs(tmp_path / "blobs", db=db, small=request.param)


@pytest.fixture
def files(tmp_path: Path, db: Database) -> Blobs:
    return Blobs(tmp_path / "blobs", db=db, small=-1)


@pytest.fixture
def both(tmp_path: Path, db: Database) -> Blobs:
    return Blobs(tmp_path / "blobs", db=db)


async def chunks(*parts: bytes) -> AsyncIterator[bytes]:
    for part in parts:
        yield part


def left_over(blobs: Blobs) -> list[str]:
    return os.listdir(blobs.path("x").parent / ".incoming")


async def test_what_was_put_comes_back(blobs: Blobs) -> None:
    await blobs.put("a/b c/ü%41.bin", b"one")
    await blobs.put("a/b c/ü%41.bin", b"two")
    assert await blobs.get("a/b c/ü%41.bin", limit=3) == b"two"
    assert await blobs.size("a/b c/ü%41.bin") == 3
    assert [chunk async for chunk in blobs.stream("a/b c/ü%41.bin")] == [b"two"]
    assert left_over(blobs) == []


async def test_what_is_absent_is_not_found(blobs: Blobs) -> None:
    assert await blobs.size("a/b") is None
    assert not await blobs.exists("a/b")
    with pytest.raises(NotFound):
        await blobs.get("a/b", limit=1)
    with pytest.raises(NotFound):
        await anext(blobs.stream("a/b"))
    await blobs.delete("a/b")


async def test_a_directory_is_not_a_content(blobs: Blobs) -> None:
    await blobs.put("a/b", b"x")
    with pytest.raises(NotFound):
        await blobs.get("a", limit=10)


async def test_a_content_above_the_limit_of_its_reader_is_refused(blobs: Blobs) -> None:
    await blobs.put("a", b"four")
    with pytest.raises(Exhausted):
        await blobs.get("a", limit=3)


async def test_equal_contents_have_one_key_and_are_written_once(db: Database, files: Blobs) -> None:
    key = await files.put_content("inputs/p", b"same", suffix=".pb")
    assert key == f"inputs/p/{hashlib.sha256(b'same').hexdigest()}.pb"
    written = files.path(key).stat().st_ino
    assert await files.put_content("inputs/p", b"same", suffix=".pb") == key
    again = Blobs(files.path("x").parent, db=db, small=-1)
    assert await again.put_content("inputs/p", b"same", suffix=".pb") == key
    assert files.path(key).stat().st_ino == written


async def test_a_content_moves_to_where_its_size_belongs(both: Blobs) -> None:
    small, large = b"s" * SMALL, b"l" * (SMALL + 1)
    for data in (small, large, small):
        await both.put("a/b", data)
        assert (await both.get("a/b", limit=SMALL + 1), await both.size("a/b")) == (data, len(data))
        assert both.path("a/b").exists() is (data is large)
        assert both.small("a/b") == (None if data is large else small)
    await both.put_stream("a/b", chunks(b"streamed"), limit=10)
    assert await both.get("a/b", limit=10) == both.path("a/b").read_bytes() == b"streamed"
    await both.delete("a/b")
    assert not await both.exists("a/b")


async def test_a_small_content_is_there_with_its_effect_and_not_without(db: Database, both: Blobs) -> None:
    output = await both.put_with("outputs/x", b"42")
    taken = await both.take("inputs", b"six times seven")

    def effect(tx: Transaction, *, fails: bool) -> None:
        output(tx)
        both.store(tx, taken)
        if fails:
            raise LookupError

    with pytest.raises(LookupError):
        await db.write(lambda tx: effect(tx, fails=True))
    assert not await both.exists("outputs/x")
    assert (await both.take("inputs", b"six times seven")).data is not None
    for _ in range(2):
        await db.write(lambda tx: effect(tx, fails=False))
        assert await both.get("outputs/x", limit=2) == b"42"
        assert await both.get(taken.key, limit=20) == b"six times seven"
    assert (await both.take("inputs", b"six times seven")).data is None


async def test_equal_contents_of_one_batch_are_one_row(db: Database, both: Blobs) -> None:
    taken = [await both.take("inputs", b"same") for _ in range(20)]
    assert {each.data for each in taken} == {b"same"}
    await asyncio.gather(
        *(db.write(lambda tx, each=each: both.store(tx, each), simple=True) for each in taken)
    )
    assert await both.get(taken[0].key, limit=4) == b"same"


async def test_a_deleted_content_can_be_put_again(blobs: Blobs) -> None:
    key = await blobs.put_content("p", b"same")
    await blobs.delete(key)
    assert not await blobs.exists(key)
    assert await blobs.put_content("p", b"same") == key
    assert await blobs.exists(key)


async def test_a_stream_is_measured_and_digested_on_its_way(blobs: Blobs) -> None:
    data = os.urandom(3 * 1024 * 1024 + 7)
    parts = [data[start : start + 100_000] for start in range(0, len(data), 100_000)]
    stored = await blobs.put_stream("u/x", chunks(*parts), limit=len(data), md5=hashlib.md5(data).digest())
    assert (stored.size, stored.sha256) == (len(data), hashlib.sha256(data).digest())
    assert await blobs.get("u/x", limit=len(data)) == data
    assert b"".join([chunk async for chunk in blobs.stream("u/x")]) == data


@pytest.mark.parametrize(
    ("announced", "fault"),
    [
        ({"limit": 5}, Exhausted),
        ({"limit": 9, "size": 5}, Invalid),
        ({"limit": 9, "md5": b"0" * 16}, Invalid),
    ],
)
async def test_a_stream_that_is_not_what_was_announced_leaves_nothing(
    blobs: Blobs, announced: dict[str, object], fault: type[Exception]
) -> None:
    with pytest.raises(fault):
        await blobs.put_stream("u/x", chunks(b"abc", b"def"), **announced)
    assert not await blobs.exists("u/x")
    assert left_over(blobs) == []


async def test_a_bad_key_leaves_nothing(blobs: Blobs) -> None:
    with pytest.raises(Invalid):
        await blobs.put_stream("../x", chunks(b"abc"), limit=10)
    assert left_over(blobs) == []


async def test_a_stream_given_up_leaves_nothing_and_was_never_visible(blobs: Blobs) -> None:
    reached = asyncio.Event()

    async def endless() -> AsyncIterator[bytes]:
        yield b"x" * (2 * 1024 * 1024)
        reached.set()
        await asyncio.Event().wait()

    call = asyncio.create_task(blobs.put_stream("u/x", endless(), limit=10**9))
    await reached.wait()
    assert not await blobs.exists("u/x")
    call.cancel()
    with pytest.raises(asyncio.CancelledError):
        await call
    assert left_over(blobs) == []


async def test_the_data_is_on_the_disk_before_its_name_is(
    files: Blobs, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[str] = []
    fsync, rename = os.fsync, Path.rename

    def recording_fsync(descriptor: int) -> None:
        seen.append("directory" if stat.S_ISDIR(os.fstat(descriptor).st_mode) else "data")
        fsync(descriptor)

    def recording_rename(path: Path, target: Path) -> Path:
        seen.append("name")
        return rename(path, target)

    await files.put("a/first", b"")
    monkeypatch.setattr(os, "fsync", recording_fsync)
    monkeypatch.setattr(Path, "rename", recording_rename)
    await files.put("a/x", b"data")
    assert seen[:3] == ["data", "name", "directory"]


async def test_many_writers_of_one_content_agree(blobs: Blobs) -> None:
    keys = await asyncio.gather(*[blobs.put_content("p/q", b"same") for _ in range(20)])
    assert len(set(keys)) == 1
    assert await blobs.get(keys[0], limit=4) == b"same"
    assert left_over(blobs) == []


def test_the_directory_is_private(blobs: Blobs) -> None:
    assert stat.S_IMODE(blobs.path("x").parent.stat().st_mode) == 0o700


async def test_files_are_private(files: Blobs) -> None:
    await files.put("a/b", b"x")
    assert stat.S_IMODE(files.path("a/b").stat().st_mode) == 0o600
    assert stat.S_IMODE(files.path("a").stat().st_mode) == 0o700


def test_what_a_crash_left_behind_goes_after_a_day(tmp_path: Path, db: Database) -> None:
    Blobs(tmp_path, db=db)
    old, young = tmp_path / ".incoming" / "old", tmp_path / ".incoming" / "young"
    for path in (old, young):
        path.write_bytes(b"half")
    os.utime(old, (1, 1))
    Blobs(tmp_path, db=db)
    assert os.listdir(tmp_path / ".incoming") == ["young"]


BAD = [
    "", ".", "..", "/", "/etc/passwd", "a/../b", "../a", "a/..", "a//b", "a/", "./a", ".incoming/x", "a\\b",
    "a\0b", "a\nb", "a\x7f", "a\u202eb", "a\ud800", "x" * 201, "a/" * 600 + "a",
]  # fmt: skip


@pytest.mark.parametrize("key", BAD)
async def test_a_key_that_is_not_a_plain_relative_path_is_refused_everywhere(blobs: Blobs, key: str) -> None:
    for attempt in (
        lambda: blobs.put(key, b""), lambda: blobs.get(key, limit=1), lambda: blobs.size(key),
        lambda: blobs.delete(key),
    ):  # fmt: skip
        with pytest.raises(Invalid):
            await attempt()
    for function in (blobs.path, uri, lambda key: parse_uri("tower://" + key)):
        with pytest.raises(Invalid):
            function(key)


@given(st.text(alphabet=st.sampled_from("ab./\\#1 \0\u202eé~%*?"), max_size=12))
def test_a_key_that_passes_stays_inside_its_directory(key: str) -> None:
    try:
        check_key(key)
    except Invalid:
        return
    root = Path("/store/root")
    assert Path(os.path.normpath(root / key)).parts[: len(root.parts)] == root.parts
    assert os.path.normpath(root / key) == str(root / key)
    assert parse_uri(uri(key)) == key


@pytest.mark.parametrize("text", ["", "a/b", "s3://a/b", "tower:/a", "TOWER://a", "file:///a"])
def test_another_stores_uri_is_refused(text: str) -> None:
    with pytest.raises(Invalid):
        parse_uri(text)
