"""A line that is too long to wait for its end is cut, and no value given in confidence slips through."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tower.control.redaction import MASK, Redaction
from tower.store.logs import LogSink, read

LONGEST = 16 * 1024
SECRET = b"correct horse battery staple"
KEY = b"twr_0123456789ab_" + b"S" * 43
TOKEN = b"eyJhbGciOi." + b"eyJzdWIiOi" * 30 + b"." + b"c2lnbmF0dXJl" * 20


def logged(path: Path, chunks: Iterable[bytes], *values: bytes, end: bool = True) -> str:
    """What a log shows of these pieces of output of a workload that was given these values."""
    redaction = Redaction()
    redaction.add("w", values)
    log = LogSink(
        path,
        1 << 26,
        now=lambda: 0.0,
        hide=lambda line: redaction.hide("w", line),
        whole=lambda: redaction.shown("w"),
    )
    for chunk in chunks:
        log.write(chunk)
    if end:
        log.close()
    lines = read(path, limit=10**9)[0]
    assert all(len(line.text.encode()) <= LONGEST for line in lines)
    return "".join(line.text for line in lines)


def pieces(text: bytes, size: int) -> list[bytes]:
    return [text[start : start + size] for start in range(0, len(text), size)]


@pytest.mark.parametrize("size", [1000, 4096, 65536])
@pytest.mark.parametrize("back", [0, 1, 10, 27, 28, 60, 400])
@pytest.mark.parametrize(
    ("secret", "shown"),
    [(SECRET, MASK), (KEY, b"twr_0123456789ab_[masked]"), (TOKEN, b"eyJhbGciO[masked]")],
    ids=["value", "key", "token"],
)
def test_a_secret_on_the_cut_is_masked(
    tmp_path: Path, secret: bytes, shown: bytes, back: int, size: int
) -> None:
    text = b"".join(b" " * (LONGEST - back) + secret for _ in range(4)) + b" end"
    given_ = () if secret is not SECRET else (SECRET,)
    assert logged(tmp_path / "log", pieces(text, size), *given_) == text.replace(secret, shown).decode()


@pytest.mark.parametrize("before", [0, 5, LONGEST - 3])
def test_a_secret_longer_than_a_line_is_masked(tmp_path: Path, before: int) -> None:
    secret = b"".join(b"%06d" % number for number in range(10_000))
    text = b" " * before + secret + b" " * LONGEST + secret[:-1] + b"?"
    assert logged(tmp_path / "log", pieces(text, 777), secret) == text.replace(secret, MASK).decode()


def test_a_secret_that_has_not_arrived_to_its_end_is_held_back(tmp_path: Path) -> None:
    text = b" " * (LONGEST - 5) + SECRET + b" " * 3 * LONGEST
    for end in range(LONGEST - 5, LONGEST + 30):
        assert "corr" not in logged(tmp_path / f"{end}", [text[:end]], SECRET, end=False)
    assert SECRET[:4].decode() not in logged(tmp_path / "whole", [text], SECRET)


def test_a_line_of_secrets_alone_is_masked_and_goes_on(tmp_path: Path) -> None:
    text = SECRET * 5000
    assert logged(tmp_path / "log", pieces(text, 5000), SECRET) == (MASK * 5000).decode()


@settings(max_examples=60, deadline=None)
@given(
    data=st.data(),
    values=st.lists(
        st.text("abc", min_size=8, max_size=40).map(str.encode), min_size=1, max_size=3, unique=True
    ),
)
def test_what_is_cut_shows_no_value(
    tmp_path_factory: pytest.TempPathFactory, data: st.DataObject, values: list[bytes]
) -> None:
    parts = st.one_of(st.sampled_from(values), st.integers(1, 9000).map(lambda number: b"." * number))
    text = b"".join(data.draw(st.lists(parts, min_size=2, max_size=12)))
    sizes = data.draw(st.lists(st.integers(1, 20_000), min_size=1, max_size=4))
    chunks, rest = [], text
    while rest:
        for size in sizes:
            chunks.append(rest[:size])
            rest = rest[size:]
    shown = logged(tmp_path_factory.mktemp("log") / "1.log", chunks, *values)
    for value in values:
        assert value.decode() not in shown
    assert shown.count(".") == text.count(b".")
