"""The conditions of partial indexes on a database that is not the one in use here."""

from __future__ import annotations

from sqlalchemy import create_mock_engine
from sqlalchemy.schema import CreateIndex

from tower.store import migrations  # noqa: F401  (every table is in the metadata)
from tower.store.schema import metadata


def test_they_are_the_same_on_postgresql() -> None:
    said: list[str] = []

    def execute(statement: object, *_: object) -> None:
        if isinstance(statement, CreateIndex):
            said.append(str(statement.compile(dialect=engine.dialect)))

    engine = create_mock_engine("postgresql+psycopg2://", execute)
    metadata.create_all(engine, checkfirst=False)
    partial = {
        index.name: str(where)
        for table in metadata.tables.values()
        for index in table.indexes
        if (where := index.dialect_options["sqlite"]["where"]) is not None
    }
    assert len(partial) > 5
    for name, where in partial.items():
        (found,) = [each for each in said if f"INDEX {name} " in each]
        assert found.endswith(f" WHERE {where}")
    assert sum(" WHERE " in each for each in said) == len(partial)
