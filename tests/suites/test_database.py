"""What every database does, whatever stands behind it. A new backend joins by one more factory."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncIterator, Callable
from pathlib import Path

import pytest
from sqlalchemy import delete, func, insert, select, text, update
from sqlalchemy.exc import IntegrityError

from tower.clock import SystemClock
from tower.errors import Unavailable
from tower.store.database import Database, Reader, Transaction
from tower.store.schema import meta, users
from tower.store.schema_apps import apps

Factory = Callable[[], Database]


class StoppedClock(SystemClock):
    """A clock that a test sets."""

    time = 1000.0

    def now(self) -> float:
        return self.time


def sqlite(tmp_path: Path) -> Factory:
    return lambda: Database.open(tmp_path / "tower.db", clock=StoppedClock())


@pytest.fixture(params=[sqlite], ids=["sqlite"])
def factory(request: pytest.FixtureRequest, tmp_path: Path) -> Factory:
    return request.param(tmp_path)


@pytest.fixture
async def db(factory: Factory) -> AsyncIterator[Database]:
    async with factory() as opened:
        yield opened


def put(key: str, value: str = "") -> Callable[[Transaction], str]:
    def function(tx: Transaction) -> str:
        tx.insert(meta, key=key, value=value)
        return key

    return function


def keys(reader: Reader) -> list[str]:
    return list(reader.execute(select(meta.c.key).order_by(meta.c.key)).scalars())


class Gate:
    """Holds the writer, so that the functions queued meanwhile wait together and share a transaction."""

    def __init__(self, db: Database) -> None:
        self._db = db
        self._open = threading.Event()

    async def __aenter__(self) -> None:
        entered = asyncio.Event()
        loop = asyncio.get_running_loop()

        def hold(_tx: Transaction) -> None:
            loop.call_soon_threadsafe(entered.set)
            self._open.wait(120)

        self._held = asyncio.create_task(self._db.write(hold))
        await entered.wait()

    async def __aexit__(self, *_: object) -> None:
        await asyncio.sleep(0)  # let the tasks made inside the block queue their functions
        self._open.set()
        await self._held


async def test_a_write_is_seen_by_the_next_read(db: Database) -> None:
    assert await db.write(put("a")) == "a"
    assert await db.read(keys) == ["a"]
    assert db.read_now(keys) == ["a"]


async def test_what_was_answered_survives_a_reopening(factory: Factory) -> None:
    async with factory() as first:
        await first.write(put("a", "kept"))
    async with factory() as second:
        assert await second.read(lambda reader: reader.execute(select(meta.c.value)).scalar()) == "kept"


async def test_a_function_that_raises_undoes_its_own_work_and_nobody_elses(db: Database) -> None:
    def fails(tx: Transaction) -> None:
        tx.insert(meta, key="half", value="")
        raise LookupError("mine")

    async with Gate(db):
        calls = [asyncio.create_task(db.write(each)) for each in (put("a"), fails, put("b"))]
    results = await asyncio.gather(*calls, return_exceptions=True)
    assert [results[0], results[2]] == ["a", "b"]
    assert isinstance(results[1], LookupError)
    assert await db.read(keys) == ["a", "b"]


async def test_a_function_that_raises_alone_leaves_nothing(db: Database) -> None:
    def fails(tx: Transaction) -> None:
        tx.execute(insert(meta).values(key="half", value=""))
        raise LookupError("mine")

    with pytest.raises(LookupError, match="mine"):
        await db.write(fails)
    assert await db.read(keys) == []
    await db.write(put("after"))
    assert await db.read(keys) == ["after"]


@pytest.mark.parametrize("alone", [True, False])
async def test_a_broken_constraint_is_the_same_error_on_both_ways_of_inserting(
    db: Database, alone: bool
) -> None:
    await db.write(put("taken"))
    for again in (put("taken"), lambda tx: tx.execute(insert(meta).values(key="taken", value=""))):
        if alone:
            with pytest.raises(IntegrityError):
                await db.write(again)
        else:
            async with Gate(db):
                call = asyncio.create_task(db.write(again))
                other = asyncio.create_task(db.write(lambda _tx: "fine"))
            with pytest.raises(IntegrityError):
                await call
            assert await other == "fine"


async def test_an_error_never_shows_the_values(db: Database) -> None:
    def twice(tx: Transaction) -> None:
        tx.insert(meta, key="k", value="canary-7f3a")
        tx.insert(meta, key="k", value="canary-7f3a")

    with pytest.raises(IntegrityError) as caught:
        await db.write(twice)
    assert "canary" not in str(caught.value)
    assert "canary" not in repr(caught.value)


async def test_functions_run_one_after_the_other_and_see_each_other(db: Database) -> None:
    def count(tx: Transaction) -> int:
        found = tx.execute(select(func.count()).select_from(meta)).scalar_one()
        tx.insert(meta, key=f"{found:04}", value="")
        return found

    async with Gate(db):
        calls = [asyncio.create_task(db.write(count)) for _ in range(300)]
    assert await asyncio.gather(*calls) == list(range(300))
    assert len(await db.read(keys)) == 300


async def test_a_reader_sees_one_moment(db: Database) -> None:
    await db.write(put("a"))
    started, written = threading.Event(), threading.Event()

    def twice(reader: Reader) -> tuple[list[str], list[str]]:
        first = keys(reader)
        started.set()
        written.wait(120)
        return first, keys(reader)

    reading = asyncio.create_task(db.read(twice))
    await asyncio.to_thread(started.wait, 10)
    await db.write(put("b"))
    written.set()
    assert await reading == (["a"], ["a"])
    assert await db.read(keys) == ["a", "b"]


async def test_a_reader_cannot_write(db: Database) -> None:
    with pytest.raises(Exception, match=r"readonly|read-only"):
        await db.read(lambda reader: reader.execute(insert(meta).values(key="x", value="")))
    assert await db.read(keys) == []


async def test_a_cancelled_caller_does_not_undo_the_work(db: Database) -> None:
    async with Gate(db):
        calls = [asyncio.create_task(db.write(put(f"{number}"))) for number in range(3)]
        await asyncio.sleep(0)
        calls[1].cancel()
    results = await asyncio.gather(*calls, return_exceptions=True)
    assert isinstance(results[1], asyncio.CancelledError)
    assert await db.read(keys) == ["0", "1", "2"]


async def test_callbacks_follow_the_commit_in_the_event_loop_before_the_caller_resumes(db: Database) -> None:
    seen: list[object] = []

    def function(tx: Transaction) -> str:
        tx.insert(meta, key="a", value="")
        tx.after_commit(lambda: seen.append((threading.current_thread(), db.read_now(keys))))
        return "done"

    assert await db.write(function) == "done"
    assert seen == [(threading.current_thread(), ["a"])]


async def test_callbacks_of_an_undone_function_are_never_called(db: Database) -> None:
    called: list[str] = []

    def fails(tx: Transaction) -> None:
        tx.after_commit(lambda: called.append("no"))
        raise LookupError

    async with Gate(db):
        calls = [asyncio.create_task(db.write(fails)) for _ in range(2)]
    await asyncio.gather(*calls, return_exceptions=True)
    with pytest.raises(LookupError):
        await db.write(fails)
    assert called == []


async def test_a_callback_that_raises_is_reported_and_harms_nobody(db: Database) -> None:
    reported: list[dict[str, object]] = []
    asyncio.get_running_loop().set_exception_handler(lambda _loop, context: reported.append(context))

    def function(tx: Transaction) -> str:
        tx.after_commit(lambda: 1 / 0)
        tx.after_commit(lambda: reported.append({}))
        return "done"

    assert await db.write(function) == "done"
    assert isinstance(reported[0]["exception"], ZeroDivisionError)
    assert len(reported) == 2


async def test_a_kept_transaction_refuses_to_work(db: Database) -> None:
    kept: list[Transaction] = []
    await db.write(kept.append)
    with pytest.raises(RuntimeError, match="ended"):
        kept[0].insert(meta, key="late", value="")
    with pytest.raises(RuntimeError, match="ended"):
        kept[0].execute(delete(meta))


async def test_a_coroutine_function_and_a_lazy_result_are_refused(db: Database) -> None:
    async def wrong(_tx: Transaction) -> None: ...

    with pytest.raises(TypeError, match="plain function"):
        await db.write(wrong)
    with pytest.raises(TypeError, match="Fetch the rows"):
        await db.write(lambda tx: tx.execute(select(meta)))


async def test_remembered_values_go_with_their_transaction(db: Database) -> None:
    def step(fail: bool) -> Callable[[Transaction], int]:
        def function(tx: Transaction) -> int:
            number = (tx.recall("number") or 0) + 1
            tx.remember("number", number)
            assert tx.recall("number") == number
            if fail:
                raise LookupError
            return number

        return function

    async with Gate(db):
        calls = [asyncio.create_task(db.write(step(fail))) for fail in (False, True, False)]
    results = await asyncio.gather(*calls, return_exceptions=True)
    assert (results[0], results[2]) == (1, 2)
    with pytest.raises(LookupError):
        await db.write(step(True))
    assert await db.write(step(False)) == 3


async def test_a_failed_commit_fails_all_its_callers_and_forgets(db: Database) -> None:
    await db.write(lambda tx: tx.remember("number", 7))

    def breaks_at_commit(tx: Transaction) -> str:
        # a deferred foreign key is looked at when the transaction commits
        tx.execute(text("PRAGMA defer_foreign_keys = ON"))
        tx.execute(
            text(
                "INSERT INTO attempts (project, domain, run, action, attempt, phase, created_at)"
                " VALUES ('p', 'd', 'no-such-run', 'a0', 1, 1, 0)"
            )
        )
        return "never"

    called: list[str] = []

    def innocent(tx: Transaction) -> None:
        tx.insert(meta, key="innocent", value="")
        tx.after_commit(lambda: called.append("no"))

    async with Gate(db):
        calls = [asyncio.create_task(db.write(each)) for each in (innocent, breaks_at_commit)]
    for result in await asyncio.gather(*calls, return_exceptions=True):
        assert isinstance(result, Unavailable)
    assert called == []
    assert await db.read(keys) == []
    assert await db.write(lambda tx: tx.recall("number")) is None
    await db.write(put("after"))
    assert await db.read(keys) == ["after"]


async def test_closing_finishes_what_was_accepted_and_refuses_the_rest(factory: Factory) -> None:
    db = factory()
    async with Gate(db):
        calls = [asyncio.create_task(db.write(put(f"{number:02}"))) for number in range(20)]
        await asyncio.sleep(0)
        closing = asyncio.create_task(db.close())
    await closing
    assert len(await asyncio.gather(*calls)) == 20
    with pytest.raises(Unavailable):
        await db.write(put("late"))
    with pytest.raises(Unavailable):
        await db.read(keys)
    await db.close()
    async with factory() as again:
        assert len(await again.read(keys)) == 20


async def test_values_come_back_as_they_went_in_on_both_ways_of_inserting(db: Database) -> None:
    app = {
        "project": "p",
        "domain": "d",
        "name": "naïve \u2603",
        "host": "h",
        "revision": 2**40,
        "spec": b"\x00\xff" * 3,
        "digest": "",
        "requires_auth": True,
        "desired": 1,
        "status": 1,
        "deployed_by": "alice",
        "created_at": 0.1 + 0.2,
        "updated_at": 1,
    }

    def function(tx: Transaction) -> list[dict[str, object]]:
        tx.insert(apps, **app)
        tx.execute(insert(apps).values(**app | {"name": "other", "host": "other"}))
        return [dict(row._mapping) for row in tx.execute(select(apps).order_by(apps.c.name))]

    for row in await db.write(function):
        expected = app | {"name": row["name"], "host": row["host"]}
        assert {name: row[name] for name in app} == expected
        assert row["requires_auth"] is True


async def test_the_time_of_a_transaction_is_the_clocks(db: Database) -> None:
    assert await db.write(lambda tx: tx.now) == 1000.0


async def test_updates_and_deletes_tell_how_many_rows(db: Database) -> None:
    await db.write(put("a"))
    await db.write(put("b"))
    changed = update(meta).where(meta.c.key == "a").values(value="new")
    assert await db.write(lambda tx: tx.execute(changed).rowcount) == 1
    assert await db.write(lambda tx: tx.execute(delete(meta)).rowcount) == 2


async def test_columns_not_named_get_their_default(db: Database) -> None:
    def function(tx: Transaction) -> tuple[str, float | None]:
        tx.insert(users, subject="alice", kind="user", created_at=1.0, created_by="machine")
        row = tx.execute(select(users.c.email, users.c.disabled_at)).one()
        return row.email, row.disabled_at

    assert await db.write(function) == ("", None)


def test_callers_of_several_loops_share_one_writer(factory: Factory) -> None:
    db = factory()
    failures: list[BaseException] = []

    def loop(name: str) -> None:
        async def writes() -> None:
            await asyncio.gather(*[db.write(put(f"{name}{number}")) for number in range(50)])

        try:
            asyncio.run(writes())
        except BaseException as error:
            failures.append(error)

    threads = [threading.Thread(target=loop, args=(name,)) for name in "abc"]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert failures == []

    async def finish() -> int:
        count = len(await db.read(keys))
        await db.close()
        return count

    assert asyncio.run(finish()) == 150
