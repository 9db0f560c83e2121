"""The blob store: whole or absent, within its limits, inside its directory, on the disk when it answers."""

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

from tower.errors import Exhausted, Invalid, NotFound
from tower.store.blobs import Blobs, check_key, parse_uri, uri


@pytest.fixture
def blobs(tmp_path: Path) -> Blobs:
    return Blobs(tmp_path / "blobs")


async def chunks(*parts: bytes) -> AsyncIterator[bytes]:
    for part in parts:
        yield part


def left_over(blobs: Blobs) -> list[str]:
    return os.listdir(blobs.path("x").parent / ".incoming")


async def test_what_was_put_comes_back(blobs: Blobs) -> None:
    await blobs.put("a/b c/ü%41.bin", b"one")
    await blobs.put("a/b c/ü%41.bin", b"two")
    assert await blobs.get("a/b c/ü%41.bin", limit=3) == b"two"
    assert blobs.path("a/b c/ü%41.bin").read_bytes() == b"two"
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


async def test_equal_contents_have_one_key_and_are_written_once(blobs: Blobs) -> None:
    key = await blobs.put_content("inputs/p", b"same", suffix=".pb")
    assert key == f"inputs/p/{hashlib.sha256(b'same').hexdigest()}.pb"
    written = blobs.path(key).stat().st_ino
    assert await blobs.put_content("inputs/p", b"same", suffix=".pb") == key
    again = Blobs(blobs.path("x").parent)
    assert await again.put_content("inputs/p", b"same", suffix=".pb") == key
    assert blobs.path(key).stat().st_ino == written


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
    blobs: Blobs, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[str] = []
    fsync, rename = os.fsync, Path.rename

    def recording_fsync(descriptor: int) -> None:
        seen.append("directory" if stat.S_ISDIR(os.fstat(descriptor).st_mode) else "data")
        fsync(descriptor)

    def recording_rename(path: Path, target: Path) -> Path:
        seen.append("name")
        return rename(path, target)

    await blobs.put("a/first", b"")
    monkeypatch.setattr(os, "fsync", recording_fsync)
    monkeypatch.setattr(Path, "rename", recording_rename)
    await blobs.put("a/x", b"data")
    assert seen == ["data", "name", "directory"]


async def test_many_writers_of_one_content_agree(blobs: Blobs) -> None:
    keys = await asyncio.gather(*[blobs.put_content("p/q", b"same") for _ in range(20)])
    assert len(set(keys)) == 1
    assert await blobs.get(keys[0], limit=4) == b"same"
    assert left_over(blobs) == []


def test_the_directory_is_private(blobs: Blobs) -> None:
    assert stat.S_IMODE(blobs.path("x").parent.stat().st_mode) == 0o700


async def test_files_are_private(blobs: Blobs) -> None:
    await blobs.put("a/b", b"x")
    assert stat.S_IMODE(blobs.path("a/b").stat().st_mode) == 0o600
    assert stat.S_IMODE(blobs.path("a").stat().st_mode) == 0o700


def test_what_a_crash_left_behind_goes_after_a_day(tmp_path: Path) -> None:
    Blobs(tmp_path)
    old, young = tmp_path / ".incoming" / "old", tmp_path / ".incoming" / "young"
    for path in (old, young):
        path.write_bytes(b"half")
    os.utime(old, (1, 1))
    Blobs(tmp_path)
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
