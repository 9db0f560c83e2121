"""Statements that go to the driver itself give what SQLAlchemy gives."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from sqlalchemy import bindparam, insert, select, update
from sqlalchemy.exc import IntegrityError, NoResultFound

from tower.clock import SystemClock
from tower.store.database import Database, Transaction
from tower.store.prepared import Lookup, Rows, prepared
from tower.store.schema import users

_BY_SUBJECT = select(users.c.subject, users.c.disabled_at, users.c.kind.label("sort")).where(
    users.c.subject == bindparam("subject")
)
_FAST = prepared(select(*_BY_SUBJECT.selected_columns).where(users.c.subject == bindparam("subject")))
_RENAME = prepared(update(users).where(users.c.subject == bindparam("who")).values(name=bindparam("name")))
_NULL = prepared(update(users).values(name=None))
_SEVERAL = prepared(select(users.c.subject).where(users.c.kind.in_(["user", "service"])))


@pytest.fixture
async def db(tmp_path: Path) -> AsyncIterator[Database]:
    async with Database.open(tmp_path / "tower.db", clock=SystemClock()) as database:
        await database.write(lambda tx: tx.execute(insert(users), [_person("ana"), _person("bo")]).close())
        yield database


def _person(subject: str) -> dict[str, object]:
    return {
        "subject": subject,
        "kind": "user",
        "name": subject,
        "email": "",
        "created_at": 1.0,
        "created_by": "",
    }


async def test_a_marked_statement_gives_the_same_rows(db: Database) -> None:
    def both(reader: Lookup) -> None:
        given = {"subject": "ana"}
        fast, slow = reader.execute(_FAST, given), reader.execute(_BY_SUBJECT, given)
        assert isinstance(fast, Rows)
        assert not isinstance(slow, Rows)
        row, same = fast.first(), slow.first()
        assert tuple(row) == tuple(same)
        assert row._asdict() == same._asdict()
        assert (row.subject, row.sort) == ("ana", "user")

    db.read_now(both)  # type: ignore[arg-type]


async def test_without_a_row_there_is_none(db: Database) -> None:
    def nobody(reader: Lookup) -> None:
        found = reader.execute(_FAST, {"subject": "nobody"})
        assert (found.first(), found.scalar(), found.one_or_none(), found.all(), list(found)) == (
            None,
            None,
            None,
            [],
            [],
        )
        with pytest.raises(NoResultFound):
            found.one()

    db.read_now(nobody)  # type: ignore[arg-type]


async def test_a_missing_value_is_no_null(db: Database) -> None:
    with pytest.raises(KeyError):
        db.read_now(lambda reader: reader.execute(_FAST, {}))


async def test_a_statement_with_a_list_cannot_be_marked(db: Database) -> None:
    with pytest.raises(TypeError):
        db.read_now(lambda reader: reader.execute(_SEVERAL))


async def test_changes_say_how_many_rows_they_met(db: Database) -> None:
    def change(tx: Transaction) -> tuple[int, int]:
        met = tx.execute(_RENAME, {"who": "ana", "name": "Ana"}).rowcount
        return met, tx.execute(_RENAME, {"who": "nobody", "name": "Ana"}).rowcount

    assert await db.write(change) == (1, 0)
    found = db.read_now(lambda reader: reader.execute(select(users.c.name).order_by(users.c.subject)).all())
    assert [row.name for row in found] == ["Ana", "bo"]


async def test_errors_are_those_of_sqlalchemy_and_undo_the_change(db: Database) -> None:
    def change(tx: Transaction) -> None:
        tx.execute(_RENAME, {"who": "ana", "name": "Ana"})
        tx.execute(_NULL)

    with pytest.raises(IntegrityError):
        await db.write(change)
    found = db.read_now(lambda reader: reader.execute(select(users.c.name).order_by(users.c.subject)).all())
    assert [row.name for row in found] == ["ana", "bo"]
