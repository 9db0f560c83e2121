"""Rows of people whom identity providers vouch for: which subject each of them is."""

from __future__ import annotations

from dataclasses import dataclass

from sqlalchemy import and_, bindparam, select, update
from sqlalchemy import insert as insert_into

from tower.store.schema import external_groups, external_identities
from tower.store.transaction import Reader, Transaction


@dataclass(frozen=True, slots=True)
class ExternalRow:
    """One identity at one issuer. Neither half is ever given to another subject.

    `heard_at` is when the issuer said the groups that are known (Unix seconds).
    """

    issuer: str
    sub: str
    subject: str
    created_at: float
    heard_at: float


def identity(reader: Reader, issuer: str, sub: str) -> ExternalRow | None:
    """Who this is here, or None."""
    row = reader.execute(_IDENTITY, {"issuer": issuer, "sub": sub}).first()
    return None if row is None else ExternalRow(*row)


def add_identity(tx: Transaction, row: ExternalRow) -> None:
    """Remember a new one."""
    values = {name: getattr(row, name) for name in ExternalRow.__dataclass_fields__}
    tx.execute(insert_into(external_identities).values(**values))


def hear(tx: Transaction, issuer: str, sub: str, at: float) -> None:
    """Note when the issuer said the groups that are known now."""
    mine = and_(external_identities.c.issuer == issuer, external_identities.c.sub == sub)
    tx.execute(update(external_identities).where(mine).values(heard_at=at))


def external_names(reader: Reader, subject: str) -> list[tuple[str, str]]:
    """Issuer and name of each group that an issuer said the subject is in."""
    return [(row.source, row.name) for row in reader.execute(_NAMES, {"subject": subject})]


_IDENTITY = select(*(external_identities.c[name] for name in ExternalRow.__dataclass_fields__)).where(
    and_(external_identities.c.issuer == bindparam("issuer"), external_identities.c.sub == bindparam("sub"))
)
_NAMES = select(external_groups.c.source, external_groups.c.name).where(
    external_groups.c.subject == bindparam("subject")
)
