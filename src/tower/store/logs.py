"""What attempts and apps print, kept as lines of JSON: `{"t": seconds, "m": "text\\n"}`, bounded per file.

The file is append-only, so a reader needs nothing but a position in it.
"""

from __future__ import annotations

import json
import os
import re
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path

_LONGEST_LINE = 16 * 1024
_LONGEST_CREDENTIAL = 4 * 1024
_MOST_STEPS = 64
_LARGEST_READ = 4 * 1024 * 1024
_NOTE = "[the output is longer than this log may be; the rest was dropped]\n"

# what looks like a credential of ours, or like any signed token, never reaches a log (T32)
_KEY = re.compile(rb"(twr_[A-Za-z0-9]{12}_)[A-Za-z0-9_-]{20,}")
# what only begins like a token is found too, and then left: looking at it once keeps the time linear
_TOKEN = re.compile(rb"(eyJ[A-Za-z0-9_-]{6})[A-Za-z0-9_-]*(\.[A-Za-z0-9_-]+\.[A-Za-z0-9_-]+)?")


@dataclass(frozen=True, slots=True)
class Line:
    """One line: seconds since the epoch (UTC) when it began to arrive, and its text with its end of line."""

    at: float
    text: str


class LogSink:
    """Appends output to one file. Used in the event loop: a write costs some ten microseconds.

    `changed` is called after each write that added lines. A line without an end is kept back until its end
    comes, it is longer than 16 KiB and what could be a secret's beginning, or the sink is closed. A full log
    takes no more, or with `rotate` is moved aside to `<name>.1` and begun anew.
    """

    def __init__(
        self,
        path: Path,
        limit: int,
        *,
        now: Callable[[], float],
        changed: Callable[[], object] = lambda: None,
        rotate: bool = False,
        hide: Callable[[bytes], bytes] = lambda text: text,
        whole: Callable[[], Iterable[bytes]] = tuple,
    ) -> None:
        """Open `path` for appending, its folder made private where absent; `limit` bytes at most.

        `hide` gets each line before it is written, and answers what of it may be seen. It gets a line that is
        too long to wait for its end in parts, and never a part of one of the values that `whole` names.
        """
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        self._path = path
        self._limit = limit
        self._now = now
        self._changed = changed
        self._rotate = rotate
        self._hide = hide
        self._whole = whole
        self._rest = b""
        self._rest_at = 0.0
        self.lines = 0
        self._descriptor = -1
        self._room = 0
        self._open()

    def write(self, chunk: bytes) -> None:
        """Take a piece of output. After the limit it is dropped, with one line that says so."""
        if self._descriptor < 0 or self._room <= 0 or not chunk:
            return
        at = self._now()
        pieces = (self._rest + chunk).split(b"\n")
        first_at = self._rest_at if self._rest else at
        *complete, rest = pieces
        lines: list[tuple[float, bytes]] = []
        for number, line in enumerate(complete):
            lines += [(first_at if number == 0 else at, part) for part in self._shown(line, end=b"\n")]
        if not complete:
            at = first_at
        while len(rest) > _LONGEST_LINE + _LONGEST_CREDENTIAL:
            # a value that has not arrived to its end begins in what is held back
            whole = [value for value in self._whole() if b"\n" not in value]
            held = max(_LONGEST_CREDENTIAL, *(len(value) for value in whole), 0)
            if len(rest) <= _LONGEST_LINE + held:
                break
            end = _cut_at(rest, whole)
            lines += [(at, part) for part in self._shown(rest[:end])]
            rest = rest[end:]
        self._rest, self._rest_at = rest, at
        self._append(lines)

    def close(self) -> None:
        """Write the line that has no end yet, and close. May be called again."""
        if self._descriptor < 0:
            return
        if self._rest:
            self._append([(self._rest_at, part) for part in self._shown(self._rest)])
        os.close(self._descriptor)
        self._descriptor = -1

    def _shown(self, line: bytes, end: bytes = b"") -> list[bytes]:
        """What may be seen of a line, in parts of the longest length."""
        return [part for part in _cut(masked(self._hide(line)) + end) if part]

    def _open(self) -> None:
        flags = os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC
        self._descriptor = os.open(self._path, flags, 0o600)
        self._room = self._limit - os.fstat(self._descriptor).st_size

    def _append(self, lines: list[tuple[float, bytes]]) -> None:
        if not lines or self._room <= 0:
            return
        out = bytearray()
        for at, line in lines:
            record = _record(at, line.decode(errors="replace"))
            if len(record) > self._room and self._rotate:
                self._flush(out)
                out = bytearray()
                os.close(self._descriptor)
                os.replace(self._path, self._path.with_name(f"{self._path.name}.1"))
                self._open()
            if len(record) > self._room:
                out += _record(at, _NOTE)
                self._room = 0
                self.lines += 1
                break
            self._room -= len(record)
            out += record
            self.lines += 1
        self._flush(out)
        self._changed()

    def _flush(self, out: bytearray) -> None:
        view = memoryview(out)
        while view:
            view = view[os.write(self._descriptor, view) :]


def read(path: Path, offset: int = 0, *, limit: int = 1000) -> tuple[list[Line], int]:
    """Up to `limit` lines from a position on, and the position behind them. No file is an empty one.

    At most 4 MiB are looked at: fewer lines than `limit` do not mean that the end was reached, the same
    position as before does. A position that no line begins at means that the log was begun anew: so is the
    reading.
    """
    try:
        with open(path, "rb") as file:
            if offset:
                file.seek(offset - 1)
                if file.read(1) != b"\n":
                    offset = file.seek(0)
            data = file.read(_LARGEST_READ)
    except FileNotFoundError:
        return [], 0
    lines: list[Line] = []
    position = 0
    while len(lines) < limit:
        end = data.find(b"\n", position)
        if end < 0:
            break
        record = json.loads(data[position:end])
        lines.append(Line(record["t"], record["m"]))
        position = end + 1
    return lines, offset + position


def tail(path: Path, *, lines: int = 20, size: int = 16 * 1024) -> str:
    """The end of a log as text: at most so many lines, out of the last `size` bytes."""
    try:
        with open(path, "rb") as file:
            length = file.seek(0, os.SEEK_END)
            start = max(0, length - size)
            file.seek(start)
            data = file.read(size)
    except FileNotFoundError:
        return ""
    records = data.split(b"\n")
    if start:
        records = records[1:]
    return "".join(json.loads(record)["m"] for record in records[:-1][-lines:])


def attempt_path(home: Path, attempt_id: str) -> Path:
    """The log of an attempt, whose id is `project/domain/run/action/attempt`."""
    return home / "logs" / f"{attempt_id}.log"


def app_path(home: Path, app_id: str) -> Path:
    """The log of an app, whose id is `project/domain/name`."""
    return home / "logs" / "apps" / f"{app_id}.log"


def _record(at: float, text: str) -> bytes:
    return f'{{"t":{at:.6f},"m":{json.dumps(text, ensure_ascii=False)}}}\n'.encode(errors="replace")


def masked(line: bytes) -> bytes:
    """The text without what looks like a credential of ours, or like any signed token."""
    if b"twr_" not in line and b"eyJ" not in line:
        return line
    line = _TOKEN.sub(lambda found: found[1] + b"[masked]" if found[2] else found[0], line)
    return _KEY.sub(lambda found: found[1] + b"[masked]", line)


def _cut(line: bytes) -> list[bytes]:
    """A line in parts of at most 16 KiB, cut between characters; the last part may be empty."""
    parts = []
    while len(line) > _LONGEST_LINE:
        end = _between_characters(line)
        parts.append(line[:end])
        line = line[end:]
    return [*parts, line]


def _between_characters(line: bytes) -> int:
    end = _LONGEST_LINE
    while end > _LONGEST_LINE - 4 and line[end] & 0xC0 == 0x80:
        end -= 1
    return end


def _cut_at(line: bytes, whole: Iterable[bytes]) -> int:
    """Where to cut a line that is too long: in none of these values, and in no credential."""
    values = set(whole)
    if b"twr_" in line or b"eyJ" in line:
        values |= {found[0] for found in _TOKEN.finditer(line) if found[2]}
        values |= {found[0] for found in _KEY.finditer(line)}
    end = _between_characters(line)
    for _ in range(_MOST_STEPS):
        over = [line.find(value, max(0, end - len(value) + 1), end + len(value) - 1) for value in values]
        begins = min((begin for begin in over if begin >= 0), default=end)
        if begins == 0:
            return max(len(value) for value in values if line.startswith(value))
        if begins == end:
            break
        end = begins
    return end
