"""Rows of secrets, and of what a deployed task may be given."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from sqlalchemy import ColumnElement, and_, func, or_, select, update
from sqlalchemy import insert as insert_into

from tower.store.schema_secrets import secret_grants, secrets
from tower.store.transaction import Reader, Transaction


@dataclass(frozen=True, slots=True)
class SecretPlace:
    """Where a secret stands: `project` and `domain` "" above their level; `owner` "" for nobody's own."""

    name: str
    project: str = ""
    domain: str = ""
    owner: str = ""


@dataclass(frozen=True, slots=True)
class SecretRow:
    """A secret. `wrapped` and `content` are sealed with the key `key_id`."""

    id: str
    name: str
    project: str
    domain: str
    owner: str
    version: int
    key_id: str
    wrapped: bytes = field(repr=False)
    content: bytes = field(repr=False)
    created_at: float
    created_by: str
    updated_at: float
    updated_by: str

    @property
    def place(self) -> SecretPlace:
        """Where it stands."""
        return SecretPlace(self.name, self.project, self.domain, self.owner)


def insert(tx: Transaction, row: SecretRow) -> None:
    """Add a secret. Raises IntegrityError where there is one at this place."""
    tx.execute(insert_into(secrets).values(**_values(row)))


def replace(tx: Transaction, row: SecretRow) -> None:
    """Write all of a row that is there."""
    tx.execute(update(secrets).where(secrets.c.id == row.id).values(**_values(row)))


def remove(tx: Transaction, place: SecretPlace) -> bool:
    """Delete a secret; False when there is none."""
    return tx.execute(secrets.delete().where(_at(place))).rowcount > 0


def remove_owned(tx: Transaction, owner: str) -> None:
    """Delete the secrets of a person who is gone."""
    tx.execute(secrets.delete().where(secrets.c.owner == owner, secrets.c.owner != ""))


def at(reader: Reader, place: SecretPlace) -> SecretRow | None:
    """The secret at this place, or None."""
    return _row(reader.execute(select(*_COLUMNS).where(_at(place))).first())


def count(reader: Reader, place: SecretPlace) -> int:
    """How many there are beside this place, whatever their names."""
    beside = (
        secrets.c.owner == place.owner,
        secrets.c.project == place.project,
        secrets.c.domain == place.domain,
    )
    found: int = reader.execute(select(func.count()).select_from(secrets).where(*beside)).scalar_one()
    return found


def named(reader: Reader, name: str, *, project: str, domain: str, owner: str) -> list[SecretRow]:
    """Those that a task of this place and person can mean by a name, the nearest first."""
    places = [
        SecretPlace(name, owner=owner),
        SecretPlace(name, project, domain),
        SecretPlace(name, project),
        SecretPlace(name),
    ]
    found = {
        row.place: row
        for each in reader.execute(select(*_COLUMNS).where(or_(*map(_at, places))))
        if (row := _row(each)) is not None
    }
    return [found[place] for place in places if place in found]


def everything(reader: Reader, *, owner: str = "") -> list[SecretRow]:
    """All that are nobody's own, and those of `owner`, by place and name."""
    query = (
        select(*_COLUMNS)
        .where(secrets.c.owner.in_(["", owner]))
        .order_by(secrets.c.owner, secrets.c.project, secrets.c.domain, secrets.c.name)
    )
    return [row for each in reader.execute(query) if (row := _row(each)) is not None]


def batch(reader: Reader, *, not_sealed_with: str, limit: int) -> list[SecretRow]:
    """Some that are sealed with another key than this one."""
    query = select(*_COLUMNS).where(secrets.c.key_id != not_sealed_with).limit(limit)
    return [row for each in reader.execute(query) if (row := _row(each)) is not None]


def key_ids(reader: Reader) -> Sequence[str]:
    """The keys that secrets are sealed with."""
    return reader.execute(select(secrets.c.key_id).distinct()).scalars().all()


def grant(
    tx: Transaction, key: tuple[str, str, str], version: str, levels: Mapping[str, Sequence[str]], *, by: str
) -> None:
    """Note what a version of a task may be given."""
    project, domain, task = key
    text = json.dumps({name: list(each) for name, each in levels.items()})
    values = {"project": project, "domain": domain, "task": task, "version": version}
    tx.execute(insert_into(secret_grants).values(**values, levels=text, granted_by=by, granted_at=tx.now))


def granted(reader: Reader, key: tuple[str, str, str], version: str) -> dict[str, list[str]]:
    """What a version of a task may be given: levels by name."""
    text = reader.execute(
        select(secret_grants.c.levels).where(
            secret_grants.c.project == key[0],
            secret_grants.c.domain == key[1],
            secret_grants.c.task == key[2],
            secret_grants.c.version == version,
        )
    ).scalar()
    found: dict[str, list[str]] = json.loads(text) if text else {}
    return found


def _at(place: SecretPlace) -> ColumnElement[bool]:
    return and_(
        secrets.c.owner == place.owner,
        secrets.c.project == place.project,
        secrets.c.domain == place.domain,
        secrets.c.name == place.name,
    )


def _values(row: SecretRow) -> dict[str, object]:
    return {name: getattr(row, name) for name in SecretRow.__dataclass_fields__}


def _row(found: object) -> SecretRow | None:
    return None if found is None else SecretRow(**found._mapping)  # type: ignore[attr-defined]


_COLUMNS = tuple(secrets.c[name] for name in SecretRow.__dataclass_fields__)
