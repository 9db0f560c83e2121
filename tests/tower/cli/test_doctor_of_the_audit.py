"""`tower doctor` looks at the end of the audit chain, and with `--full` at all of it."""

from __future__ import annotations

import json
import shutil
import sqlite3
import subprocess
from contextlib import closing
from pathlib import Path

import pytest
from tests.tower_process import BIN, clean_environment

from tower.audit import Entry
from tower.cli.administration import Administration
from tower.main import checkup, proof


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The home of a Tower in which something was recorded and signed several times."""
    home = tmp_path_factory.mktemp("audit") / "home"
    Administration(home).found()
    for name in ("alice", "bob"):
        subprocess.run(
            [BIN / "tower", "--home", home, "users", "add", name], env=clean_environment({}), check=True
        )
    return home


@pytest.fixture
def home(made: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(made, tmp_path / "home", symlinks=True))


def write(home: Path, *statements: str) -> None:
    with closing(sqlite3.connect(home / "tower.db")) as database, database:
        for statement in statements:
            database.execute(statement)


def ask(home: Path, question: str) -> int:
    with closing(sqlite3.connect(home / "tower.db")) as database:
        return int(database.execute(question).fetchone()[0])


def said(home: Path, *, full: bool = False) -> tuple[str, str]:
    [finding] = [each for each in checkup.home(home, full=full) if each.name == "audit"]
    return finding.status, finding.told


LAST = "(SELECT max(seq) FROM audit)"
SIGNED = "(SELECT max(seq) FROM audit_checkpoints)"
UNSIGN = f"DELETE FROM audit_checkpoints WHERE seq = {SIGNED}"


def test_a_chain_in_order(home: Path) -> None:
    last = ask(home, f"SELECT {LAST}")
    status, told = said(home)
    assert status == checkup.OK
    assert f"through record {last}, signed through {last}" in told
    assert "--full" in told
    status, told = said(home, full=True)
    assert (status, told) == (checkup.OK, f"whole through record {last}, signed through {last}")


def test_what_is_older_than_the_last_signature_is_looked_at_with_full(home: Path) -> None:
    write(home, "UPDATE audit SET subject = 'mallory' WHERE seq = 2")
    assert said(home)[0] == checkup.OK
    status, told = said(home, full=True)
    assert (status, "record 2" in told) == (checkup.FAIL, True)


@pytest.mark.parametrize(
    ("wrong", "record"),
    [
        ("DELETE FROM audit WHERE seq = 2", "record 2:"),
        ("DELETE FROM audit WHERE seq <= 2", "record 1:"),
        (f"UPDATE audit SET subject = 'mallory' WHERE seq = {LAST}", "record LAST:"),
        (f"UPDATE audit SET hash = 'x' WHERE seq = {LAST}", "record LAST:"),
        (f"DELETE FROM audit WHERE seq = {LAST}", "record LAST:"),
        (f"UPDATE audit_checkpoints SET hash = 'x' WHERE seq = {SIGNED}", "record LAST:"),
        (f"UPDATE audit_checkpoints SET signature = 'AAAA' WHERE seq = {SIGNED}", "record LAST:"),
    ],
)
def test_each_of_these_is_found_at_once(home: Path, wrong: str, record: str) -> None:
    last = ask(home, f"SELECT {LAST}")
    write(home, wrong)
    for full in (False, True):
        status, told = said(home, full=full)
        assert status == checkup.FAIL
        assert record.replace("LAST", str(last)) in told, told


@pytest.mark.parametrize(
    "wrong",
    [
        f"UPDATE audit SET subject = 'mallory' WHERE seq = {LAST} - 1",
        f"DELETE FROM audit WHERE seq = {LAST}",
        "UPDATE audit SET previous = 'x' WHERE seq = " + LAST,
    ],
)
def test_records_behind_the_last_signature_are_looked_at(home: Path, wrong: str) -> None:
    """Of those the file beside the database tells where the chain ended."""
    write(home, UNSIGN)
    assert said(home)[0] == checkup.OK
    assert ask(home, f"SELECT {LAST} - {SIGNED}") > 0
    write(home, wrong)
    assert said(home)[0] == checkup.FAIL


def test_without_any_signature_in_the_database_all_is_looked_at(home: Path) -> None:
    write(home, "DELETE FROM audit_checkpoints")
    assert said(home)[0] == checkup.OK
    write(home, "UPDATE audit SET subject = 'mallory' WHERE seq = 2")
    assert said(home)[0] == checkup.FAIL


def test_a_file_beside_the_database_that_we_did_not_sign_is_found(home: Path) -> None:
    kept = json.loads((home / proof.HEAD_FILE).read_text())
    (home / proof.HEAD_FILE).write_text(json.dumps({**kept, "seq": kept["seq"] + 1}) + "\n")
    assert said(home)[0] == checkup.FAIL


def test_the_work_does_not_grow_with_the_trail(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    digests: list[int] = []
    genuine = Entry.digest
    monkeypatch.setattr(Entry, "digest", lambda entry: digests.append(entry.seq) or genuine(entry))
    assert said(home)[0] == checkup.OK
    assert digests == [ask(home, f"SELECT {LAST}")]


def test_the_command_takes_the_option(home: Path) -> None:
    write(home, "UPDATE audit SET subject = 'mallory' WHERE seq = 2")
    for options, wanted in (((), True), (("--full",), False)):
        done = subprocess.run(
            [BIN / "tower", "--home", home, "doctor", *options],
            env=clean_environment({}), check=False, capture_output=True, text=True,
        )  # fmt: skip
        assert ("fail audit" not in done.stdout) is wanted, done.stdout
