"""What only the embedded database has: a private file, a claim on it, a process that may be killed."""

from __future__ import annotations

import asyncio
import signal
import stat
import subprocess
import sys
from pathlib import Path

import pytest
from sqlalchemy import select

from tower.audit import verify
from tower.clock import SystemClock
from tower.errors import InUse, Invalid, Precondition
from tower.store import engine
from tower.store.audit import chain
from tower.store.database import Database
from tower.store.schema import meta

WRITES_FOREVER = """
import asyncio, sys
from tower.audit import Event, Outcome, Record
from tower.clock import SystemClock
from tower.store.audit import append
from tower.store.database import Database
from tower.store.schema import meta

async def main():
    db = Database.open(sys.argv[1], clock=SystemClock())
    async def client(name):
        number = 0
        while True:
            number += 1
            key = f"{name}-{number}"
            def pair(tx):
                append(tx, Record(at=tx.now, event=Event.RUN_CREATE, outcome=Outcome.ALLOWED, subject=name,
                                  credential_kind="api_key", credential_id="k", resource=key))
                tx.insert(meta, key=key, value="")
            await db.write(pair)
            print(key, flush=True)
    await asyncio.gather(*[client(f"c{number}") for number in range(8)])

asyncio.run(main())
"""


async def test_every_answered_write_survives_a_kill_and_no_effect_lacks_its_record(tmp_path: Path) -> None:
    path = tmp_path / "tower.db"
    child = subprocess.Popen(
        [sys.executable, "-c", WRITES_FOREVER, str(path)], stdout=subprocess.PIPE, text=True
    )
    assert child.stdout is not None
    answered = [child.stdout.readline().strip() for _ in range(500)]
    child.send_signal(signal.SIGKILL)
    rest = child.stdout.read().split("\n")
    child.wait()
    child.stdout.close()
    answered += [line for line in rest[:-1] if line]
    async with Database.open(path, clock=SystemClock()) as db:
        rows = set(await db.read(lambda reader: reader.execute(select(meta.c.key)).scalars().all()))
        entries = await db.read(lambda reader: chain(reader, limit=1_000_000))
    assert set(answered) <= rows
    assert rows == {entry.resource for entry in entries}
    assert verify(entries) is None


async def test_the_files_are_private(tmp_path: Path) -> None:
    path = tmp_path / "tower.db"
    async with Database.open(path, clock=SystemClock()) as db:
        await db.write(lambda tx: tx.insert(meta, key="a", value=""))
        for file in tmp_path.iterdir():
            assert stat.S_IMODE(file.stat().st_mode) == 0o600, file


async def test_a_second_tower_on_the_same_file_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(engine, "_PATIENCE", 0.0)
    path = tmp_path / "tower.db"
    async with Database.open(path, clock=SystemClock()):
        with pytest.raises(InUse, match="Another Tower"):
            Database.open(path, clock=SystemClock())
    await Database.open(path, clock=SystemClock()).close()


async def test_a_file_that_is_about_to_be_free_is_waited_for(tmp_path: Path) -> None:
    path = tmp_path / "tower.db"
    first = Database.open(path, clock=SystemClock())
    waiting = asyncio.create_task(asyncio.to_thread(Database.open, path, clock=SystemClock()))
    await first.close()
    await (await waiting).close()


async def test_a_running_towers_file_can_be_inspected(tmp_path: Path) -> None:
    path = tmp_path / "tower.db"
    async with Database.open(path, clock=SystemClock()) as db:
        await db.write(lambda tx: tx.insert(meta, key="a", value=""))
        async with Database.open(path, clock=SystemClock(), read_only=True) as seen:
            assert await seen.read(lambda reader: reader.execute(select(meta.c.key)).scalars().all()) == ["a"]
            with pytest.raises(Precondition, match="reading only"):
                await seen.write(lambda tx: tx.insert(meta, key="b", value=""))


def test_a_database_in_memory_is_refused() -> None:
    with pytest.raises(Invalid, match="memory"):
        Database.open("sqlite://", clock=SystemClock())


async def test_commits_are_flushed_to_the_disk(tmp_path: Path) -> None:
    async with Database.open(tmp_path / "tower.db", clock=SystemClock()) as db:
        found = await db.write(
            lambda tx: [
                tx._session.connection.exec_driver_sql(f"PRAGMA {name}").scalar()
                for name in ("synchronous", "journal_mode", "foreign_keys")
            ]
        )
    assert found == [2, "wal", 1]
