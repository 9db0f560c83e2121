"""What a command prints: columns for people, JSON for programs. Nothing else goes to standard output."""

from __future__ import annotations

import base64
import dataclasses
import datetime as dt
import enum
import json
import math
import re
import sys
import unicodedata
from collections.abc import Mapping, Sequence
from typing import Any

import rich_click as click

Record = Mapping[str, Any]

_COLOURS = re.compile(r"(\x1b\[[0-9;:]{0,40}m)")
_UNSEEN = re.compile("[\x7f-\x9f\u200e\u200f\u202a-\u202e\u2066-\u2069]")


def jsonable(value: Any) -> Any:
    """A value as JSON has it: times in ISO 8601, durations in seconds, enums by name, bytes in base64."""
    match value:
        case None | bool() | int() | str():
            return str(value) if isinstance(value, enum.StrEnum) else value
        case float():
            return value if math.isfinite(value) else str(value)
        case enum.Enum():
            return value.name
        case dt.datetime() | dt.date():
            return value.isoformat()
        case dt.timedelta():
            return value.total_seconds()
        case bytes():
            return base64.b64encode(value).decode()
        case Mapping():
            return {str(key): jsonable(item) for key, item in value.items()}
        case list() | tuple() | set() | frozenset():
            return [jsonable(item) for item in value]
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return {field.name: jsonable(getattr(value, field.name)) for field in dataclasses.fields(value)}
    dump = getattr(value, "model_dump", None)
    return dump(mode="json") if callable(dump) else str(value)


def print_json(value: Any) -> None:
    """One JSON document; what terminals obey and JSON would leave as it is, is escaped."""
    text = json.dumps(jsonable(value), indent=2, ensure_ascii=False)
    click.echo(_UNSEEN.sub(lambda found: f"\\u{ord(found[0]):04x}", text))


def print_records(records: Sequence[Record], *, columns: Sequence[str], output: str, empty: str = "") -> None:
    """Many things: a JSON array, or a table of these columns. `empty` is said where there is nothing."""
    if output == "json":
        print_json(records)
        return
    if not records and empty:
        click.echo(empty, err=True)
    titles = [column.replace("_", " ").upper() for column in columns]
    rows = [[_shown(column, record.get(column)) for column in columns] for record in records]
    widths = [max(len(row[index]) for row in [titles, *rows]) for index in range(len(columns))]
    for row in [titles, *rows]:
        click.echo("  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip())


def print_record(record: Record, *, output: str) -> None:
    """One thing: a JSON object, or a line for each field that says something, or for each part of one."""
    if output == "json":
        print_json(record)
        return
    shown = {key: value for key, value in record.items() if value not in (None, "", [], {})}
    width = max((len(key) for key in shown), default=0)
    for key, value in shown.items():
        match value:
            case Mapping():
                lines = [f"{cell(name)}: {_inline(item)}" for name, item in value.items()]
            case str():
                lines = [_shown(key, line) for line in value.splitlines()]
            case _:
                lines = [_shown(key, value)]
        for number, line in enumerate(lines):
            title = "" if number else key.replace("_", " ")
            click.echo(f"{title.ljust(width)}  {line}".rstrip())


def cell(value: Any) -> str:
    """One line; control characters of a name or a description do not reach the terminal."""
    match value:
        case None:
            text = ""
        case bool():
            text = "yes" if value else "no"
        case dt.datetime():
            text = _local(value)
        case Mapping():
            text = json.dumps(jsonable(value), ensure_ascii=False)
        case list() | tuple() | set() | frozenset():
            text = ", ".join(map(cell, value))
        case _:
            text = str(jsonable(value))
    return "".join(character if character.isprintable() else " " for character in text)


def written(text: str, *, err: bool = False) -> str:
    """A line of a log as it is shown: on a terminal with its colours, and nothing else that terminals obey.

    Whoever wrote it could set the title and the clipboard, and write over what stands there.
    """
    if not (sys.stderr if err else sys.stdout).isatty():
        return text
    parts = _COLOURS.split(text.rstrip("\r").rpartition("\r")[2])
    shown = "".join(part if number % 2 else _visible(part) for number, part in enumerate(parts))
    return shown + "\x1b[0m" if len(parts) > 1 else shown


def _visible(text: str) -> str:
    return "".join(each if _harmless(each) else ascii(each)[1:-1] for each in text)


def _harmless(character: str) -> bool:
    """Python takes the spaces of French and Japanese, and what joins emoji, for unprintable."""
    return character.isprintable() or character in "\t\u200c\u200d" or unicodedata.category(character) == "Zs"


def _shown(name: str, value: Any) -> str:
    """A field; a time of the administration interface, a text in ISO 8601, as people read it."""
    if (name == "at" or name.endswith("_at")) and isinstance(value, str):
        try:
            value = dt.datetime.fromisoformat(value)
        except ValueError:
            return cell(value)
    return cell(value)


def _inline(value: Any) -> str:
    """A part of a field, such as an output: as JSON, so that a text and a number differ."""
    return cell(json.dumps(jsonable(value), ensure_ascii=False))


def _local(at: dt.datetime) -> str:
    """A time where the reader is, with the name of that zone."""
    return at.astimezone().strftime("%Y-%m-%d %H:%M:%S %Z")
