"""The schema in the code and the schema that the revisions make are the same (habit 28)."""

from __future__ import annotations

import sqlite3
from pathlib import Path

import pytest
from alembic.autogenerate import compare_metadata
from alembic.runtime.migration import MigrationContext
from alembic.script import ScriptDirectory
from sqlalchemy import create_engine
from sqlalchemy.engine import Connection
from sqlalchemy.exc import IntegrityError

from tower.clock import SystemClock
from tower.errors import Precondition
from tower.store import migrations
from tower.store.database import Database
from tower.store.schema import metadata


def connect(path: Path) -> Connection:
    return create_engine(f"sqlite:///{path}").connect()


def shape(path: Path) -> dict[str, object]:
    """Tables with their columns, keys and indexes as SQLite sees them, free of how they were spelled."""
    connection = sqlite3.connect(path)
    try:
        names = [
            name for (name,) in connection.execute("SELECT name FROM sqlite_master WHERE type = 'table'")
        ]
        return {
            name: (
                sorted(
                    connection.execute(f"SELECT * FROM pragma_table_info('{name}')"), key=lambda row: row[1]
                ),
                sorted(connection.execute(f"SELECT * FROM pragma_foreign_key_list('{name}')")),
                sorted(
                    (index, unique, origin, partial, columns(connection, index))
                    for _, index, unique, origin, partial in connection.execute(
                        f"SELECT * FROM pragma_index_list('{name}')"
                    )
                ),
                sorted(
                    " ".join(sql.split())
                    for (sql,) in connection.execute(
                        "SELECT sql FROM sqlite_master WHERE type='index' AND sql NOT NULL AND tbl_name=?",
                        [name],
                    )
                ),
            )
            for name in names
        }
    finally:
        connection.close()


def columns(connection: sqlite3.Connection, index: str) -> tuple[str, ...]:
    return tuple(row[2] for row in connection.execute(f"SELECT * FROM pragma_index_info('{index}')"))


def test_the_sum_of_the_revisions_is_the_schema(tmp_path: Path) -> None:
    with connect(tmp_path / "stepped.db") as connection:
        migrations.step(connection, found=None)
        connection.commit()
        assert compare_metadata(MigrationContext.configure(connection), metadata) == []
        assert migrations.revision(connection) == migrations.HEAD
    with connect(tmp_path / "whole.db") as connection:
        migrations.upgrade(connection)
    assert shape(tmp_path / "stepped.db") == shape(tmp_path / "whole.db")


def test_the_named_head_is_the_newest_revision_and_there_is_one_line_of_them() -> None:
    script = ScriptDirectory(str(Path(migrations.__file__).parent))
    assert script.get_heads() == [migrations.HEAD]
    assert script.get_bases() == ["0001"]


def test_every_revision_file_is_named_by_its_number() -> None:
    script = ScriptDirectory(str(Path(migrations.__file__).parent))
    for revision in script.walk_revisions():
        assert Path(revision.path).name.startswith(f"v{revision.revision}_")


def test_contents_that_lay_in_the_rows_of_actions_are_in_the_blob_store_afterwards(tmp_path: Path) -> None:
    place = {"project": "p", "domain": "d", "run": "r", "task_project": "p", "task_domain": "d"}
    facts = {
        "task_name": "t",
        "task_version": "1",
        "inputs_hash": "i",
        "run_spec": b"",
        "executed_by": "alice",
    }
    rest = {
        "credential_kind": "api_key",
        "credential_id": "k",
        "phase": 5,
        "created_at": 7.0,
        "queued_at": 7.0,
    }
    rows = [
        {"action": "a0", "inputs_uri": "tower://inputs/p/d/i", "inputs": b"in"},
        {"action": "a1", "inputs_uri": "tower://inputs/p/d/i", "inputs": b"in", "outputs": b"out"},
        {"action": "a2", "inputs_uri": "tower://inputs/p/d/large", "outputs": None},
    ]
    with connect(tmp_path / "tower.db") as connection:
        migrations.step(connection, found=None, to="0006")
        for row in rows:
            values = {**place, **facts, **rest, **row}
            if values.get("outputs"):
                values |= {"outputs_uri": "tower://outputs/p/d/r/a1/1", "ended_at": 9.0}
            names = ", ".join(values)
            marks = ", ".join("?" for _ in values)
            connection.exec_driver_sql(
                f"INSERT INTO actions ({names}) VALUES ({marks})", tuple(values.values())
            )
        migrations.step(connection, found="0006")
        connection.commit()
        found = connection.exec_driver_sql("SELECT key, content, created_at FROM blobs ORDER BY key").all()
        assert found == [
            ("inputs/p/d/i/inputs.pb", b"in", 7.0),
            ("outputs/p/d/r/a1/1/outputs.pb", b"out", 9.0),
        ]
        columns = {name for _, name, *_ in connection.exec_driver_sql("PRAGMA table_info(actions)")}
        assert not {"inputs", "outputs"} & columns


def test_names_of_keys_are_each_owners_own_afterwards(tmp_path: Path) -> None:
    def add(key: str, subject: str) -> None:
        connection.exec_driver_sql(
            "INSERT INTO api_keys (id, name, subject, hash, created_at, created_by) "
            "VALUES (?, 'k', ?, x'00', 0, 'm')",
            (key, subject),
        )

    with connect(tmp_path / "tower.db") as connection:
        migrations.step(connection, found=None, to="0008")
        add("1", "alice")
        with pytest.raises(IntegrityError):
            add("2", "bob")
        migrations.step(connection, found="0008")
        add("2", "bob")
        with pytest.raises(IntegrityError):
            add("3", "alice")
        connection.exec_driver_sql("UPDATE api_keys SET deleted_at = 1 WHERE id = '1'")
        add("3", "alice")


async def test_an_unfinished_step_leaves_the_database_as_it_was(tmp_path: Path, monkeypatch) -> None:
    path = tmp_path / "tower.db"

    def fails(*_: object, **__: object) -> None:
        raise LookupError

    monkeypatch.setattr(migrations, "insert", fails)
    with pytest.raises(LookupError):
        Database.open(path, clock=SystemClock())
    assert shape(path) == {}
    monkeypatch.undo()
    await Database.open(path, clock=SystemClock()).close()


async def test_a_database_of_a_newer_tower_is_refused_and_left_alone(tmp_path: Path) -> None:
    path = tmp_path / "tower.db"
    await Database.open(path, clock=SystemClock()).close()
    with connect(path) as connection:
        connection.exec_driver_sql("UPDATE alembic_version SET version_num = '9999'")
        connection.commit()
    before = shape(path)
    with pytest.raises(Precondition, match="newer version"):
        Database.open(path, clock=SystemClock())
    assert shape(path) == before


async def test_a_database_of_somebody_else_is_refused_and_left_alone(tmp_path: Path) -> None:
    path = tmp_path / "tower.db"
    with connect(path) as connection:
        connection.exec_driver_sql("CREATE TABLE theirs (id INTEGER)")
        connection.commit()
    with pytest.raises(Precondition, match="not those of Tower"):
        Database.open(path, clock=SystemClock())
    assert list(shape(path)) == ["theirs"]


async def test_without_migration_an_older_database_is_refused(tmp_path: Path) -> None:
    with pytest.raises(Precondition) as refused:
        Database.open(tmp_path / "tower.db", clock=SystemClock(), migrate=False)
    assert "tower up" in refused.value.hint
    assert shape(tmp_path / "tower.db") == {}


def test_a_database_that_lacks_a_column_is_refused_at_once(tmp_path: Path) -> None:
    with connect(tmp_path / "tower.db") as connection:
        migrations.upgrade(connection)
        connection.exec_driver_sql("ALTER TABLE users DROP COLUMN email")
        connection.commit()
    with (
        connect(tmp_path / "tower.db") as connection,
        pytest.raises(Precondition, match="unfinished version") as refused,
    ):
        migrations.upgrade(connection)
    assert refused.value.cause == "users.email is missing"
