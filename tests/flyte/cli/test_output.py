"""How values are printed for people; JSON for programs keeps them as they are."""

from __future__ import annotations

import datetime as dt
import enum
import json
import time
from collections.abc import Iterator
from types import SimpleNamespace

import pytest

from flyte.cli import _output
from flyte.cli._exits import Failed
from flyte.cli._output import cell, print_record, print_records
from flyte.cli._progress import shown


class Colour(enum.Enum):
    RED = 1


@pytest.fixture
def in_berlin(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    with monkeypatch.context() as patched:
        patched.setenv("TZ", "Europe/Berlin")
        time.tzset()
        yield
    time.tzset()


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (["alice", "bob"], "alice, bob"),
        ([], ""),
        (("x",), "x"),
        (False, "no"),
        (True, "yes"),
        (0, "0"),
        (None, ""),
        (Colour.RED, "RED"),
        ({"z": 1, "a": [2]}, '{"z": 1, "a": [2]}'),
        ("a\x1b[2Jb\nc", "a [2Jb c"),
    ],
)
def test_a_cell(value: object, text: str) -> None:
    assert cell(value) == text


@pytest.mark.usefixtures("in_berlin")
def test_times_are_those_of_the_reader_and_json_keeps_them(capsys: pytest.CaptureFixture[str]) -> None:
    at = dt.datetime(2026, 7, 1, 22, 30, 5, 123456, tzinfo=dt.UTC)
    records = [{"name": "x", "made_at": at.isoformat(), "seen_at": at, "note": at.isoformat()}]
    print_records(records, columns=("name", "made_at", "seen_at", "note"), output="table")
    told = capsys.readouterr().out
    assert told.count("2026-07-02 00:30:05 CEST") == 2
    assert at.isoformat() in told, "a text that is no time of a record stays as it is"
    print_records(records, columns=("name",), output="json")
    assert json.loads(capsys.readouterr().out)[0]["made_at"] == at.isoformat()


def test_an_unreadable_time_is_shown_as_it_came(capsys: pytest.CaptureFixture[str]) -> None:
    print_record({"made_at": "soon"}, output="table")
    assert capsys.readouterr().out == "made at  soon\n"


def test_the_parts_of_a_field_have_lines_of_their_own_in_their_order(
    capsys: pytest.CaptureFixture[str],
) -> None:
    print_record({"name": "r1", "outputs": {"o1": "3", "o0": 3, "o2": {"z": 1, "a": "é"}}}, output="table")
    assert capsys.readouterr().out.splitlines() == [
        "name     r1",
        'outputs  o1: "3"',
        "         o0: 3",
        '         o2: {"z": 1, "a": "é"}',
    ]


def test_nothing_is_said_to_be_nothing(capsys: pytest.CaptureFixture[str]) -> None:
    print_records([], columns=("name",), output="table", empty="There are no runs here.")
    told = capsys.readouterr()
    assert (told.out, told.err) == ("NAME\n", "There are no runs here.\n")
    print_records([], columns=("name",), output="json", empty="There are no runs here.")
    told = capsys.readouterr()
    assert (told.out, told.err) == ("[]\n", "")


@pytest.mark.parametrize(
    ("environment", "drawn"),
    [({}, True), ({"CI": "true"}, False), ({"TERM": "dumb"}, False), ({"CI": ""}, True)],
    ids=str,
)
def test_progress_is_not_drawn_in_a_log(
    monkeypatch: pytest.MonkeyPatch, environment: dict[str, str], drawn: bool
) -> None:
    monkeypatch.delenv("CI", raising=False)
    monkeypatch.setenv("TERM", "xterm")
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setattr("sys.stderr.isatty", lambda: True)
    assert shown() is drawn
    monkeypatch.setattr("sys.stderr.isatty", lambda: False)
    assert shown() is False


@pytest.mark.parametrize(
    ("line", "shown"),
    [
        ("plain\tline é", "plain\tline é"),
        ("\x1b[31mred\x1b[0m", "\x1b[31mred\x1b[0m\x1b[0m"),
        ("\x1b]52;c;cm0gLXJm\x07", "\\x1b]52;c;cm0gLXJm\\x07"),
        ("\x1b[2J\x1b[1;1H\x9b2J", "\\x1b[2J\\x1b[1;1H\\x9b2J"),
        ("10%\r50%\r100%", "100%"),
        ("of Windows\r", "of Windows"),
        (
            "1\u00a0000\u3000\u20ac \U0001f469\u200d\U0001f680",
            "1\u00a0000\u3000\u20ac \U0001f469\u200d\U0001f680",
        ),
        ("safe\u202eexe", "safe\\u202eexe"),
    ],
)
def test_a_log_has_colours_on_a_terminal_and_does_nothing_else_there(
    line: str, shown: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    terminal = SimpleNamespace(isatty=lambda: True)
    monkeypatch.setattr(_output, "sys", SimpleNamespace(stdout=terminal, stderr=terminal))
    assert _output.written(line) == _output.written(line, err=True) == shown


def test_a_log_is_piped_as_it_was_written(monkeypatch: pytest.MonkeyPatch) -> None:
    pipe = SimpleNamespace(isatty=lambda: False)
    monkeypatch.setattr(_output, "sys", SimpleNamespace(stdout=pipe, stderr=pipe))
    assert _output.written("\x1b[2J\x1b]0;x\x07") == "\x1b[2J\x1b]0;x\x07"


def test_json_escapes_what_terminals_obey(capsys: pytest.CaptureFixture[str]) -> None:
    value = {"name": "a\x9b2J\u202eé"}
    _output.print_json(value)
    text = capsys.readouterr().out
    assert text.isascii() is False  # the é
    assert not {"\x9b", "\u202e"} & set(text)
    assert json.loads(text) == value


def test_an_error_shows_no_control_characters() -> None:
    assert Failed("it was \x1b]0;x\x07 \x9b2J").message.isprintable()
