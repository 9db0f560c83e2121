"""What only inserts shares its inserts; writes that need no disk are seen, and kept by later ones."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sqlalchemy import select
from sqlalchemy.exc import IntegrityError

from tower.audit import Event, Outcome, Record, verify
from tower.clock import SystemClock
from tower.store import audit
from tower.store.database import Database, Reader, Transaction
from tower.store.schema import meta


@pytest.fixture
async def db(tmp_path: Path) -> AsyncIterator[Database]:
    async with Database.open(tmp_path / "tower.db", clock=SystemClock()) as opened:
        yield opened


def values(reader: Reader) -> dict[str, str]:
    return {row.key: row.value for row in reader.execute(select(meta).where(meta.c.key.like("t%")))}


def insert(tx: Transaction, key: str) -> str:
    tx.insert(meta, key=f"t{key}", value=key)
    made = Record(1.0, Event.RUN_CREATE, Outcome.ALLOWED, "alice", "api_key", "k1", resource=f"run:p/d/{key}")
    audit.append(tx, made)
    return key


async def test_many_rows_arrive_with_the_answers_of_their_own_functions(db: Database) -> None:
    names = [str(number) for number in range(200)]
    answers = await asyncio.gather(
        *(db.write(lambda tx, name=name: insert(tx, name), simple=True) for name in names)  # type: ignore[misc]
    )
    assert answers == names
    assert await db.read(values) == {f"t{name}": name for name in names}
    entries = await db.read(lambda reader: audit.chain(reader, limit=1000))
    assert len(entries) == 200
    assert verify(entries) is None


@settings(max_examples=25, deadline=None)
@given(plan=st.lists(st.tuples(st.integers(0, 12), st.booleans(), st.booleans()), max_size=40))
def test_one_that_fails_takes_nothing_of_the_others_along(
    tmp_path_factory: pytest.TempPathFactory, plan: list[tuple[int, bool, bool]]
) -> None:
    """Each function inserts a key, perhaps one that is taken, perhaps raising afterwards."""

    async def run() -> None:
        called: list[str] = []

        def function(tx: Transaction, key: str, *, raises: bool) -> str:
            insert(tx, key)
            tx.after_commit(lambda: called.append(key))
            if raises:
                raise LookupError(key)
            return key

        path = tmp_path_factory.mktemp("db") / "tower.db"
        async with Database.open(path, clock=SystemClock()) as db:
            results = await asyncio.gather(
                *(
                    db.write(
                        lambda tx, key=str(key), raises=raises: function(tx, key, raises=raises),  # type: ignore[misc]
                        simple=simple,
                    )
                    for key, raises, simple in plan
                ),
                return_exceptions=True,
            )
            kept = [result for result in results if isinstance(result, str)]
            assert sorted(await db.read(values)) == sorted(f"t{key}" for key in kept)
            assert len(set(kept)) == len(kept)
            assert {str(key) for key, raises, _ in plan if not raises} == set(kept)
            assert sorted(called) == sorted(kept)
            assert {type(each) for each in results} <= {str, LookupError, IntegrityError}
            entries = await db.read(audit.chain)
            assert len(entries) == len(kept)
            assert verify(entries) is None

    asyncio.run(run())


async def test_a_write_that_waits_for_no_disk_is_seen_at_once_and_kept(tmp_path: Path) -> None:
    async with Database.open(tmp_path / "tower.db", clock=SystemClock()) as db:
        await db.write(lambda tx: tx.insert(meta, key="t1", value="soft"), durable=False)
        assert await db.read(values) == {"t1": "soft"}
        await db.write(lambda tx: tx.insert(meta, key="t2", value="hard"))
    async with Database.open(tmp_path / "tower.db", clock=SystemClock()) as db:
        assert await db.read(values) == {"t1": "soft", "t2": "hard"}


async def test_one_durable_write_makes_its_whole_batch_durable(db: Database) -> None:
    levels: list[int] = []

    def level(tx: Transaction) -> None:
        levels.append(int(tx._session.connection.exec_driver_sql("PRAGMA synchronous").scalar_one()))

    gate = threading.Event()
    held = asyncio.ensure_future(db.write(lambda _: gate.wait(), durable=False))
    await asyncio.sleep(0)
    together = [asyncio.ensure_future(db.write(level, durable=durable)) for durable in (False, True, False)]
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    gate.set()
    await asyncio.gather(held, *together)
    await db.write(level, durable=False)
    await db.write(level)
    assert levels == [2, 2, 2, 1, 2]  # FULL for the batch, NORMAL alone
