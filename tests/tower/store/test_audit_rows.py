"""Audit rows live and die with the effect they record, and pages are found by index."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from sqlalchemy import func, select, text

from tower.audit import Break, Damage, Event, Outcome, Record, verify
from tower.clock import SystemClock
from tower.store import audit as rows
from tower.store.database import Database, Transaction
from tower.store.schema import meta


@pytest.fixture
async def db(tmp_path: Path) -> AsyncIterator[Database]:
    async with Database.open(tmp_path / "tower.db", clock=SystemClock()) as opened:
        yield opened


def record(
    resource: str = "run:p/d/r",
    *,
    subject: str = "alice",
    outcome: Outcome = Outcome.ALLOWED,
    event: Event = Event.RUN_CREATE,
    app: str = "",
    at: float = 1.0,
) -> Record:
    return Record(
        at=at,
        event=event,
        outcome=outcome,
        subject=subject,
        credential_kind="api_key",
        credential_id="k1",
        actors=(f"app:{app}",) if app else (),
        resource=resource,
        detail={"b": 1, "a": "é"},
    )


async def test_the_chain_goes_on_over_failures_and_reopenings(tmp_path: Path) -> None:
    def fails(tx: Transaction) -> None:
        rows.append(tx, record("lost"))
        raise LookupError

    for opening in range(3):
        async with Database.open(tmp_path / "tower.db", clock=SystemClock()) as db:
            calls = [db.write(lambda tx: rows.append(tx, record())) for _ in range(5)]
            calls += [db.write(fails) for _ in range(3)]
            calls += [db.write(lambda tx: rows.append(tx, record())) for _ in range(5)]
            results = await asyncio.gather(*calls, return_exceptions=True)
            numbers = [result for result in results if isinstance(result, int)]
            assert numbers == list(range(opening * 10 + 1, opening * 10 + 11))
            entries = await db.read(rows.chain)
            assert verify(entries, head=await db.read(rows.head)) is None
            assert "lost" not in {entry.resource for entry in entries}


async def test_an_effect_without_its_record_does_not_happen(db: Database) -> None:
    await db.write(lambda tx: rows.append(tx, record()))
    await db.write(
        lambda tx: tx.execute(
            text("CREATE TRIGGER full BEFORE INSERT ON audit BEGIN SELECT RAISE(ABORT, 'no room'); END")
        ).close()
    )

    def effect(tx: Transaction) -> None:
        tx.insert(meta, key="effect", value="")
        rows.append(tx, record())

    with pytest.raises(Exception, match="no room"):
        await db.write(effect)
    assert await db.read(lambda reader: reader.execute(select(func.count()).select_from(meta)).scalar()) == 0


@pytest.mark.parametrize(
    ("statement", "found"),
    [
        ("UPDATE audit SET subject = 'bob' WHERE seq = 4", Break(4, Damage.EDITED)),
        ("UPDATE audit SET detail = '{}' WHERE seq = 4", Break(4, Damage.EDITED)),
        ("UPDATE audit SET subject = CAST(x'ff' AS TEXT) WHERE seq = 4", Break(4, Damage.EDITED)),
        ("UPDATE audit SET subject = x'ff' WHERE seq = 4", Break(4, Damage.EDITED)),
        ("UPDATE audit SET at = 'never' WHERE seq = 4", Break(4, Damage.EDITED)),
        ("UPDATE audit SET detail = '{' WHERE seq = 4", Break(4, Damage.EDITED)),
        ("UPDATE audit SET seq = 40 WHERE seq = 4", Break(4, Damage.MISSING)),
        ("DELETE FROM audit WHERE seq = 4", Break(4, Damage.MISSING)),
        ("DELETE FROM audit WHERE seq >= 4", Break(4, Damage.TRUNCATED)),
        ("DELETE FROM audit WHERE seq = 1", Break(1, Damage.MISSING)),
    ],
)
async def test_tampering_with_the_table_is_named(db: Database, statement: str, found: Break) -> None:
    for _ in range(6):
        await db.write(lambda tx: rows.append(tx, record()))
    kept = await db.read(rows.head)
    await db.write(lambda tx: tx.execute(text(statement)).rowcount)
    assert await db.read(lambda reader: rows.check(reader, kept=kept)) == found


async def test_an_intact_chain_of_many_parts_holds(db: Database) -> None:
    await db.write(lambda tx: [rows.append(tx, record()) for _ in range(2500)][-1])
    assert await db.read(rows.check) is None
    await db.write(lambda tx: tx.execute(text("UPDATE audit SET app = 'x' WHERE seq = 2400")).rowcount)
    assert await db.read(rows.check) == Break(2400, Damage.EDITED)


async def test_pages_filter_and_go_on_where_they_ended(db: Database) -> None:
    def fill(tx: Transaction) -> None:
        for number in range(20):
            rows.append(
                tx,
                record(
                    f"run:p/d/r{number % 4}",
                    subject="alice" if number % 2 else "bob",
                    outcome=Outcome.REFUSED if number % 5 == 0 else Outcome.ALLOWED,
                    event=Event.ACCESS_REFUSE if number % 5 == 0 else Event.RUN_CREATE,
                    app="p/d/Web" if number % 3 == 0 else "p/d/web",
                    at=float(number),
                ),
            )

    await db.write(fill)

    async def page(**filters: object) -> list[int]:
        return [int(entry.at) for entry in await db.read(lambda reader: rows.page(reader, **filters))]

    assert await page(limit=3) == [19, 18, 17]
    assert await page(limit=3, before=18) == [16, 15, 14]
    assert await page(subject="bob", limit=3) == [18, 16, 14]
    assert await page(outcome="refused") == [15, 10, 5, 0]
    assert await page(outcome="allowed", subject="alice", since=10, until=14) == [13, 11]
    assert await page(event="access.refuse", subject="alice") == [15, 5]
    assert await page(app="p/d/Web", limit=2) == [18, 15]
    assert await page(resource="run:p/d/r3", limit=2) == [19, 15]
    assert await page(subject="carol") == []


@pytest.mark.parametrize(
    "filters", [{}, {"subject": "a"}, {"app": "p/d/w"}, {"resource": "r"}, {"outcome": "refused"}]
)
async def test_each_filter_has_an_index_that_serves_the_order(db: Database, filters: dict[str, str]) -> None:
    seen: list[str] = []

    class Explaining:
        def execute(self, statement: object) -> list[object]:
            sql = str(statement.compile(compile_kwargs={"literal_binds": True}))  # type: ignore[attr-defined]
            seen.extend(row[3] for row in self._connection.exec_driver_sql(f"EXPLAIN QUERY PLAN {sql}"))
            return []

    def explain(connection: object) -> None:
        explaining = Explaining()
        explaining._connection = connection  # type: ignore[attr-defined]
        rows.page(explaining, before=100, **filters)  # type: ignore[arg-type]

    await db.read(explain)
    plan = " ".join(seen)
    assert "TEMP B-TREE" not in plan
    for name in filters:
        assert f"ix_audit_{name}" in plan
