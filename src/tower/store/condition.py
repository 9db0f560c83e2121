"""Whether the database is whole, as SQLite itself sees it."""

from __future__ import annotations

from dataclasses import dataclass

from sqlalchemy import Connection, func, select

from tower.store.migrations import revision
from tower.store.schema_audit import audit


@dataclass(frozen=True, slots=True)
class Condition:
    """`damage` is the first complaint of `PRAGMA quick_check`, empty for none; `newest` the time (seconds
    since the epoch) of the newest audit record, 0 without any.
    """

    revision: str
    damage: str
    newest: float


def condition(reader: Connection) -> Condition:
    """Look at all pages of the database."""
    damage = ""
    if reader.dialect.name == "sqlite":
        told = str(reader.exec_driver_sql("PRAGMA quick_check(1)").scalar())
        damage = "" if told == "ok" else told
    newest = reader.execute(select(func.max(audit.c.at))).scalar()
    plain: Connection = getattr(reader, "plain", reader)
    return Condition(revision(plain) or "", damage, float(newest or 0.0))
