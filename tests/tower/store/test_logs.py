"""Logs of attempts and apps: lines in order, bounded, readable while they grow."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tower.store.logs import Line, LogSink, app_path, attempt_path, masked, read, tail


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "logs" / "p" / "1.log"


def sink(path: Path, *, limit: int = 1 << 20, now: Callable[[], float] = lambda: 5.0) -> LogSink:
    return LogSink(path, limit, now=now)


def text(path: Path) -> str:
    return "".join(line.text for line in read(path, limit=10**9)[0])


def test_lines_come_with_the_time_they_began(path: Path) -> None:
    times = iter([1.0, 2.0, 3.0])
    log = sink(path, now=lambda: next(times))
    log.write(b"one\ntw")
    log.write(b"o\nthr")
    log.write(b"ee\n")
    log.close()
    assert read(path)[0] == [Line(1.0, "one\n"), Line(1.0, "two\n"), Line(2.0, "three\n")]


def test_a_reader_follows_a_growing_log(path: Path) -> None:
    assert read(path) == ([], 0)
    log = sink(path)
    log.write(b"a\nb\nc\n")
    first, position = read(path, limit=2)
    assert [line.text for line in first] == ["a\n", "b\n"]
    rest, position = read(path, position)
    assert [line.text for line in rest] == ["c\n"]
    assert read(path, position) == ([], position)
    log.write(b"d\nunfinished")
    assert [line.text for line in read(path, position)[0]] == ["d\n"]
    log.close()
    assert text(path).endswith("d\nunfinished")
    log.write(b"too late\n")
    log.close()


def test_each_write_that_adds_lines_is_told(path: Path) -> None:
    told: list[int] = []
    log = LogSink(path, 1 << 20, now=lambda: 0.0, changed=lambda: told.append(1))
    log.write(b"half")
    assert told == []
    log.write(b" and whole\n")
    assert told == [1]


def test_the_limit_holds_and_is_told_once(path: Path) -> None:
    log = sink(path, limit=10_000)
    for _ in range(100):
        log.write(b"x" * 1000 + b"\n")
    log.close()
    assert path.stat().st_size < 10_000 + 200
    assert text(path).count("the rest was dropped") == 1
    log.write(b"too late\n")
    assert "too late" not in text(path)


def test_the_log_of_an_app_goes_on_in_a_new_file(path: Path) -> None:
    log = LogSink(path, 10_000, now=lambda: 0.0, rotate=True)
    for number in range(100):
        log.write(b"x" * 1000 + f"{number}\n".encode())
    assert text(path).endswith("99\n")
    assert path.stat().st_size <= 10_000
    before = path.with_name(path.name + ".1")
    assert before.stat().st_size <= 10_000
    _, behind = read(path, limit=10**6)
    log.write(b"y" * 9000 + b"\n")
    assert [line.text[:3] for line in read(path, behind)[0]] == ["yyy"] or behind < 9000
    log.close()


def test_a_log_is_private(path: Path) -> None:
    sink(path).close()
    assert path.stat().st_mode & 0o777 == 0o600
    assert path.parent.stat().st_mode & 0o777 == 0o700


@pytest.mark.parametrize(
    "secret",
    [
        "twr_0123456789ab_" + "S" * 43,
        "eyJhbGciOitwr_0123456789ab_" + "S" * 43,
        "eyJhbGciOi.eyJhbGciOi twr_0123456789ab_" + "S" * 43,
        "eyJhbGciOi.eyJzdWIiOi.c2lnbmF0dXJl",
        "eyJhbGciOiJFZERTQSJ9.e30.abc-_",
    ],
)
def test_credentials_are_masked(path: Path, secret: str) -> None:
    log = sink(path)
    log.write(f"headers: Bearer {secret} end\n".encode())
    log.close()
    assert secret.rpartition(".")[2][-10:] not in path.read_text()
    assert "[masked] end" in text(path)


def test_the_tail_is_the_last_lines(path: Path) -> None:
    assert tail(path) == ""
    log = sink(path)
    for number in range(1000):
        log.write(f"{number}\n".encode())
    assert tail(path, lines=2) == "998\n999\n"
    assert tail(path, lines=100000).endswith("998\n999\n")


def test_where_logs_lie(tmp_path: Path) -> None:
    assert attempt_path(tmp_path, "p/d/r/a0/1") == tmp_path / "logs/p/d/r/a0/1.log"
    assert app_path(tmp_path, "p/d/app") == tmp_path / "logs/apps/p/d/app.log"


@given(st.lists(st.binary(max_size=40), max_size=30))
def test_nothing_is_lost_or_reordered(tmp_path_factory: pytest.TempPathFactory, chunks: list[bytes]) -> None:
    path = tmp_path_factory.mktemp("log") / "1.log"
    log = sink(path)
    for chunk in chunks:
        log.write(chunk)
    log.close()
    expected = b"".join(chunks)
    if b"twr_" not in expected and b"eyJ" not in expected:
        lines = expected.split(b"\n")
        assert text(path) == "\n".join(line.decode(errors="replace") for line in lines)


@given(st.text(alphabet="aäß€😀", min_size=1, max_size=50).map(lambda word: word * (20_000 // len(word))))
def test_long_lines_are_cut_between_characters(tmp_path_factory: pytest.TempPathFactory, line: str) -> None:
    path = tmp_path_factory.mktemp("log") / "1.log"
    log = sink(path)
    log.write(line.encode() + b"\n")
    log.close()
    assert text(path) == line + "\n"
    assert all(len(entry.text.encode()) <= 16 * 1024 for entry in read(path)[0])


def test_what_only_begins_like_tokens_takes_no_long_time() -> None:
    text = b"eyJaaaaaa" * 200_000
    assert masked(text) == text
