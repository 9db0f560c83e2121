"""The rows of the audit chain: appended inside the transaction of the effect that they record."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from sqlalchemy import Select, func, select
from sqlalchemy.exc import SQLAlchemyError

from tower.audit import Break, Checkpoint, Entry, Head, Outcome, Record, sealed, verify
from tower.store.schema_audit import audit, audit_checkpoints
from tower.store.transaction import Form, Reader, Transaction

_HEAD = "audit.head"


def append(tx: Transaction, record: Record) -> int:
    """Add a record to the chain and return its number. When this raises, let the transaction fail with it.

    The end of the chain is kept with the writer and undone with the transaction, so nothing is read here.
    """
    end = tx.recall(_HEAD) or head(tx)
    values = sealed(record, after=end)
    tx.insert_row(_ROW, values)
    seq: int = values[0]
    tx.remember(_HEAD, Head(seq, values[-1]))
    return seq


def head(reader: Reader) -> Head:
    """The end of the chain; the beginning when nothing was recorded yet."""
    row = reader.execute(select(audit.c.seq, audit.c.hash).order_by(audit.c.seq.desc()).limit(1)).first()
    return Head() if row is None else Head(row.seq, row.hash)


def page(
    reader: Reader,
    *,
    subject: str | None = None,
    app: str | None = None,
    run: str | None = None,
    action: str | None = None,
    resource: str | None = None,
    event: str | None = None,
    outcome: str | None = None,
    since: float | None = None,
    until: float | None = None,
    before: int | None = None,
    limit: int = 50,
) -> list[Entry]:
    """The newest entries first. `before` is the number of the last entry of the page before this one.

    `app` and `run` are `project/domain/name`; `since` (included) and `until` (not included) are seconds since
    the epoch.
    """
    query = select(audit).order_by(audit.c.seq.desc()).limit(limit)
    for column, value in (
        (audit.c.subject, subject),
        (audit.c.app, app),
        (audit.c.run, run),
        (audit.c.action, action),
        (audit.c.resource, resource),
        (audit.c.event, event),
        (audit.c.outcome, outcome),
    ):
        if value is not None:
            query = query.where(column == value)
    if outcome is not None and outcome != Outcome.ALLOWED:
        query = query.where(audit.c.outcome != "allowed")  # the words of the partial index
    if app:
        query = query.where(audit.c.app != "")  # likewise
    if run:
        query = query.where(audit.c.run != "")  # likewise
    if since is not None:
        query = query.where(audit.c.at >= since)
    if until is not None:
        query = query.where(audit.c.at < until)
    if before is not None:
        query = query.where(audit.c.seq < before)
    return _entries(reader, query)


def chain(reader: Reader, *, after: int = 0, limit: int = 1000) -> list[Entry]:
    """Entries in the order of the chain, those behind the number `after`: what `tower.audit.verify` takes."""
    return _entries(reader, select(audit).where(audit.c.seq > after).order_by(audit.c.seq).limit(limit))


def checkpoints(reader: Reader, *, after: int = 0, limit: int = 1_000_000) -> list[Checkpoint]:
    """The checkpoints behind the record `after`, in the order of the chain."""
    query = (
        select(audit_checkpoints)
        .where(audit_checkpoints.c.seq > after)
        .order_by(audit_checkpoints.c.seq)
        .limit(limit)
    )
    return [Checkpoint(**row._mapping) for row in reader.execute(query)]


def checkpoint_before(reader: Reader, at: float) -> Checkpoint | None:
    """The last checkpoint that was signed before this time, with all that it vouches for older than it."""
    query = (
        select(audit_checkpoints)
        .where(audit_checkpoints.c.at < at)
        .order_by(audit_checkpoints.c.seq.desc())
        .limit(1)
    )
    row = reader.execute(query).first()
    return None if row is None else Checkpoint(**row._mapping)


def end_of(tx: Transaction) -> Head:
    """The end of the chain inside a writing transaction, its own records included."""
    found: Head = tx.recall(_HEAD) or head(tx)
    return found


def add_checkpoint(tx: Transaction, row: Checkpoint) -> None:
    """Keep a checkpoint; one at the same record is there already and as good."""
    known = select(audit_checkpoints.c.seq).where(audit_checkpoints.c.seq == row.seq)
    if tx.execute(known).first() is None:
        values = {name: getattr(row, name) for name in Checkpoint.__dataclass_fields__}
        tx.execute(audit_checkpoints.insert().values(**values))


def prune(tx: Transaction, through: Checkpoint) -> int:
    """Remove the records up to a checkpoint and the checkpoints before it; it stays as the new beginning."""
    tx.execute(audit_checkpoints.delete().where(audit_checkpoints.c.seq < through.seq))
    return tx.execute(audit.delete().where(audit.c.seq <= through.seq)).rowcount


def whole(reader: Reader, *, after: int = 0) -> Iterator[Entry]:
    """Every record behind `after` in the order of the chain, a part at a time.

    One that cannot be read comes as one of no hash.
    """
    return _whole(reader, after)


def last_checkpoint(reader: Reader) -> Checkpoint | None:
    """The newest checkpoint."""
    query = select(audit_checkpoints).order_by(audit_checkpoints.c.seq.desc()).limit(1)
    row = reader.execute(query).first()
    return None if row is None else Checkpoint(**row._mapping)


def gap(reader: Reader) -> int | None:
    """The first number that no record has, between records or before the first; None where all are there.

    Records that were pruned are none that is missing: the checkpoint behind the last of them is kept.
    """
    first, last, count = reader.execute(
        select(func.min(audit.c.seq), func.max(audit.c.seq), func.count())
    ).one()
    if first is None:
        return None
    anchored = select(audit_checkpoints.c.seq).where(audit_checkpoints.c.seq == first - 1)
    if first > 1 and reader.execute(anchored).first() is None:
        return 1
    if count == last - first + 1:
        return None
    behind = audit.alias()
    before = select(func.min(audit.c.seq)).where(
        audit.c.seq < last, ~select(behind.c.seq).where(behind.c.seq == audit.c.seq + 1).exists()
    )
    return int(reader.execute(before).scalar_one()) + 1


def check(reader: Reader, *, kept: Head | None = None) -> Break | None:
    """Verify the whole chain, a part at a time: the first break, or None when it holds.

    `kept` is a head from an earlier look. A record that cannot even be read is named as edited.
    """
    return verify(_whole(reader, 0), head=kept)


def _whole(reader: Reader, after: int) -> Iterator[Entry]:
    limit = 1000
    while True:
        try:
            part = chain(reader, after=after, limit=limit)
        except SQLAlchemyError:
            if limit > 1:
                limit = 1
                continue
            following = select(func.min(audit.c.seq)).where(audit.c.seq > after)
            yield _unreadable(reader.execute(following).scalar_one())
            return
        if not part:
            return
        yield from part
        after = part[-1].seq


def _unreadable(seq: int) -> Entry:
    """Stands for a record whose bytes are no longer text: its hash is none."""
    texts = {name: "" for name in Entry.__dataclass_fields__ if name not in {"seq", "at"}}
    return Entry(seq=seq, at=0.0, **texts)


def _entries(reader: Reader, query: Select[*tuple[Any, ...]]) -> list[Entry]:
    return [Entry(**row._mapping) for row in reader.execute(query)]


_ROW = Form(audit, tuple(Entry.__dataclass_fields__))
assert set(_ROW.columns) == set(audit.c.keys())
