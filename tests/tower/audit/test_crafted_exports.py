"""An export comes from anybody: whatever is in it, `tower audit verify` ends with a sentence and a status."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tower.audit import Entry, Event, Head, Outcome, Record, seal
from tower.cli.administration import Administration
from tower.cli.audit import audit
from tower.control import proving
from tower.control.proving import checkpoint_line, header, record_line, sign
from tower.identity.signing import SigningKey

KEY = SigningKey.generate()
RUN = "p/d/r1"
DEEP = "[" * 200_000
STATUSES = {0, 2, 4, 6}
"""Whole, no export, no such run, not whole: what the command is documented to end with."""


def entry(after: Head, detail: dict[str, Any], *, actors: tuple[str, ...] = (), at: float = 1.0) -> Entry:
    record = Record(
        at=at,
        event=Event.RUN_CREATE,
        outcome=Outcome.ALLOWED,
        subject="alice",
        credential_kind="api_key",
        credential_id="k",
        actors=actors,
        resource="task:p/d/t",
        detail=detail,
    )
    return seal(record, after=after)


def whole(*details: dict[str, Any]) -> list[dict[str, Any]]:
    """The lines of an export that holds, with one record for each detail."""
    head = Head()
    lines = [header(0, key_id=KEY.kid, keys=[])]
    for detail in details:
        made = entry(head, detail)
        head = Head(made.seq, made.hash)
        lines.append(record_line(made))
    return [*lines, checkpoint_line(sign(KEY, head, 2.0)), {"type": "end", "seq": head.seq}]


def dumped(lines: list[dict[str, Any]]) -> list[bytes]:
    return [json.dumps(line).encode() + b"\n" for line in lines]


GOOD = dumped(whole({"run": RUN, "action": "a0"}, {"run": RUN, "action": "a1", "parent": "a0"}))
RECORD = json.loads(GOOD[1])


@pytest.fixture(scope="module")
def public(tmp_path_factory: pytest.TempPathFactory) -> Path:
    private = KEY.key.private_key
    assert isinstance(private, Ed25519PrivateKey)
    path = tmp_path_factory.mktemp("kept") / "installation.pem"
    path.write_bytes(private.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo))
    return path


def verify(public: Path, content: bytes, *options: str) -> Result:
    """The command over a file of this content, in a process that has neither home nor database."""
    path = public.with_name("trail.jsonl")
    path.write_bytes(content)
    arguments = ["verify", "--file", str(path), "--key", str(public), *options]
    done = CliRunner().invoke(audit, arguments, obj=Administration(public.parent / "no-home"))
    assert done.exception is None or isinstance(done.exception, SystemExit), done.exc_info
    assert done.exit_code in STATUSES
    return done


def changed(**values: Any) -> bytes:
    return json.dumps({**RECORD, **values}).encode() + b"\n"


CRAFTED = {
    "deep": DEEP.encode(),
    "deep object": b'{"a":' * 200_000,
    "deep field": json.dumps(RECORD).encode()[:-1] + b',"more":' + DEEP.encode() + b"}",
    "nul": b"\0\n",
    "nul inside": GOOD[1].replace(b"alice", b"al\0ice"),
    "no utf-8": GOOD[1].replace(b"alice", b"al\xff\xfeice"),
    "utf-16": GOOD[1].decode().encode("utf-16"),
    "empty": b"\n",
    "number": b"1\n",
    "text": b'"record"\n',
    "list": b"[]\n",
    "null": b"null\n",
    "no fields": b'{"type":"record"}\n',
    "a field more": changed(more=1),
    "a type nobody knows": b'{"type":"\\ud800"}\n',
    "a list for a type": b'{"type":[]}\n',
    "number of many digits": b'{"type":"record","seq":' + b"9" * 5000 + b"}\n",
    "large seq": changed(seq=10**4000),
    "negative seq": changed(seq=-1),
    "seq is true": changed(seq=True),
    "seq is a fraction": changed(seq=1.5),
    "large at": changed(at=10**400),
    "infinite at": changed(at=float("inf")),
    "no number at": changed(at=float("nan")),
    "a list for a text": changed(subject=[]),
    "checkpoint of nothing": b'{"type":"checkpoint"}\n',
    "second header": GOOD[0],
    "end of nothing": b'{"type":"end"}\n',
}


@pytest.mark.parametrize("options", [(), ("--run", RUN)], ids=["chain", "run"])
@pytest.mark.parametrize("line", CRAFTED.values(), ids=CRAFTED.keys())
def test_a_line_that_is_none_is_named(public: Path, line: bytes, options: tuple[str, ...]) -> None:
    done = verify(public, GOOD[0] + line, *options)
    assert done.exit_code == 2
    assert "Line 2 is no line of an audit export." in done.output
    assert len(done.output) < 400


@pytest.mark.parametrize(
    "value",
    [
        {"after": float("inf")},
        {"after": 10**400},
        {"after": [1]},
        {"keys": 1},
        {"keys": [1]},
        {"keys": [{"key_id": "", "public": "", "signature": "", "at": 10**400}]},
    ],
)
def test_a_header_that_is_none_is_named(public: Path, value: dict[str, Any]) -> None:
    line = json.dumps({**json.loads(GOOD[0]), **value}).encode()
    done = verify(public, line + b"\n" + b"".join(GOOD[1:]))
    assert done.exit_code == 2
    assert "Line 1 is no line" in done.output


def test_a_line_without_an_end_is_not_read_to_its_end(public: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(proving, "LONGEST_LINE", 1000)
    done = verify(public, GOOD[0] + b'{"type":"' + b"x" * 2000)
    assert done.exit_code == 2
    assert "longer than 1000 bytes" in done.output


def test_an_empty_file_and_a_cut_one_are_not_whole(public: Path) -> None:
    assert verify(public, b"").exit_code == 6
    assert verify(public, b"".join(GOOD[:-1])).exit_code == 6
    assert verify(public, b"".join(GOOD)).exit_code == 0


@pytest.mark.parametrize(
    "detail",
    [
        {"run": RUN, "action": [], "version": {"a": 1}, "inputs": 1, "code_digest": None},
        {"run": RUN, "action": "\ud800", "parent": "", "version": "\x1b[2J\n\0"},
    ],
)
@pytest.mark.parametrize("form", ["text", "json"])
def test_what_a_record_says_is_printed_whatever_it_is(
    public: Path, detail: dict[str, Any], form: str
) -> None:
    done = verify(public, b"".join(dumped(whole(detail))), "--run", RUN, "-o", form)
    assert done.exit_code == 0, done.output
    assert not {"\x1b", "\0"} & set(done.output)


@pytest.mark.parametrize("field", ["detail", "actors"])
def test_deep_json_inside_a_record_is_none(public: Path, field: str) -> None:
    first = replace(entry(Head(), {"run": RUN}, at=1e300), **{field: DEEP, "hash": ""})
    first = replace(first, hash=first.digest())
    lines = [header(0, key_id=KEY.kid, keys=[]), record_line(first), {"type": "end", "seq": 1}]
    for run in (RUN, "r1"):
        verify(public, b"".join(dumped(lines)), "--run", run, "-o", "json")
        verify(public, b"".join(dumped(lines)), "--run", run)


def test_runs_below_runs_without_end_are_told(public: Path) -> None:
    head, lines = Head(), [header(0, key_id=KEY.kid, keys=[])]
    actors: tuple[str, ...] = ()
    for number in range(1500):
        made = entry(head, {"run": f"p/d/r{number}", "action": "a0"}, actors=actors)
        lines.append(record_line(made))
        head = Head(made.seq, made.hash)
        actors = (f"run:p/d/r{number}/a0/1",)
    lines += [checkpoint_line(sign(KEY, head, 2.0)), {"type": "end", "seq": head.seq}]
    done = verify(public, b"".join(dumped(lines)), "--run", "p/d/r0")
    assert done.exit_code == 6


values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=2) | st.dictionaries(st.text(max_size=3), inner, max_size=2),
    max_leaves=4,
)


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_no_change_to_an_export_ends_in_a_traceback(public: Path, data: st.DataObject) -> None:
    lines = list(GOOD)
    place = data.draw(st.integers(0, len(lines) - 1))
    match data.draw(st.sampled_from(["field", "bytes", "drop", "move"])):
        case "field":
            line = json.loads(lines[place])
            line[data.draw(st.sampled_from(sorted(line)))] = data.draw(values)
            lines[place] = json.dumps(line).encode() + b"\n"
        case "bytes":
            at = data.draw(st.integers(0, len(lines[place])))
            length = data.draw(st.integers(0, 4))
            lines[place] = lines[place][:at] + data.draw(st.binary(max_size=6)) + lines[place][at + length :]
        case "drop":
            del lines[place]
        case "move":
            lines.insert(data.draw(st.integers(0, len(lines) - 1)), lines.pop(place))
    for options in ((), ("--run", RUN), ("--run", "r1", "-o", "json")):
        verify(public, b"".join(lines), *options)
