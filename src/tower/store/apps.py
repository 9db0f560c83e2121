"""Rows of apps and of their revisions."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields
from typing import Any

from sqlalchemy import ColumnElement, Row, and_, delete, func, select, update

from tower.errors import Invalid
from tower.states import AppStatus, Desired
from tower.store.database import Reader, Transaction
from tower.store.listing import Filter, Page, Seen, compare, within
from tower.store.schema_apps import app_revisions, apps


@dataclass(frozen=True, slots=True)
class AppRow:
    """One app as stored; `spec` is a serialised flyteidl2.app.App without its status."""

    project: str
    domain: str
    name: str
    host: str
    revision: int
    spec: bytes
    digest: str
    code_digest: str
    description: str
    requires_auth: bool
    desired: Desired
    status: AppStatus
    message: str
    deployed_by: str
    created_at: float
    updated_at: float
    started_at: float | None

    @property
    def id(self) -> str:
        """`project/domain/name`."""
        return f"{self.project}/{self.domain}/{self.name}"


@dataclass(frozen=True, slots=True)
class Revision:
    """One line of an app's history."""

    revision: int
    deployed_by: str
    created_at: float


_COLUMNS = tuple(apps.c[field.name] for field in fields(AppRow))

TIES = (apps.c.project, apps.c.domain, apps.c.name)
"""What makes the order of a list of apps total."""

SORTS = {
    "created_at": apps.c.created_at,
    "updated_at": apps.c.updated_at,
    "name": apps.c.name,
}
"""What a list of apps can be sorted by; the first is its own order."""

FIELDS: dict[str, ColumnElement[Any]] = {
    "name": apps.c.name,
    "domain": apps.c.domain,
    "created_by": apps.c.deployed_by,
    "created_at": apps.c.created_at,
    "updated_at": apps.c.updated_at,
}
"""What a list of apps can be filtered by."""


def status_filter(field: str, condition: Filter) -> ColumnElement[bool] | None:
    """The condition on `status_phase`, whose values are names of the protocol's enum or of `AppStatus`."""
    if field != "status_phase":
        return None
    return compare(apps.c.status, condition, parse=_status)


def _status(value: str, field: str) -> int:
    try:
        return int(AppStatus[value.upper().removeprefix("DEPLOYMENT_STATUS_")])
    except KeyError as error:
        raise Invalid(f"The filter on {field} needs a status such as ACTIVE.") from error


def get(reader: Reader, project: str, domain: str, name: str) -> AppRow | None:
    """One app, or None."""
    row = reader.execute(select(*_COLUMNS).where(_is(project, domain, name))).first()
    return None if row is None else _app(row)


def host_taken(reader: Reader, host: str) -> bool:
    """Whether an app holds this host name."""
    return reader.execute(select(apps.c.name).where(apps.c.host == host)).first() is not None


def everything(reader: Reader) -> list[AppRow]:
    """Every app of the installation, for the tables that are kept in memory."""
    return [_app(row) for row in reader.execute(select(*_COLUMNS).order_by(*TIES))]


def app_names(reader: Reader, project: str, domain: str) -> list[str]:
    """The names of the apps of one scope."""
    query = select(apps.c.name).where(apps.c.project == project, apps.c.domain == domain)
    return [row.name for row in reader.execute(query.order_by(apps.c.name))]


def page_apps(reader: Reader, page: Page, *, scopes: Sequence[Seen]) -> list[AppRow]:
    """One page of the apps of these scopes."""
    statement = select(*_COLUMNS).where(within(apps, scopes))
    return [_app(row) for row in reader.execute(page.apply(statement, ties=TIES))]


def count_apps(reader: Reader, page: Page, *, scopes: Sequence[Seen]) -> int:
    """How many apps the pages of these scopes have together."""
    statement = select(*_COLUMNS).where(within(apps, scopes))
    return int(reader.execute(page.count(statement)).scalar() or 0)


def revisions(reader: Reader, project: str, domain: str, name: str, *, limit: int = 50) -> list[Revision]:
    """The newest revisions first."""
    table = app_revisions
    statement = (
        select(table.c.revision, table.c.deployed_by, table.c.created_at)
        .where(table.c.project == project, table.c.domain == domain, table.c.name == name)
        .order_by(table.c.revision.desc())
        .limit(limit)
    )
    return [Revision(row.revision, row.deployed_by, row.created_at) for row in reader.execute(statement)]


def next_revision(reader: Reader, project: str, domain: str, name: str) -> int:
    """The number after the highest ever given to this name, also when the app was deleted meanwhile."""
    table = app_revisions
    statement = select(func.max(table.c.revision)).where(
        table.c.project == project, table.c.domain == domain, table.c.name == name
    )
    return int(reader.execute(statement).scalar() or 0) + 1


def insert(tx: Transaction, app: AppRow) -> None:
    """Add an app and its revision row. The key or the host may be taken: sqlalchemy's IntegrityError."""
    tx.insert(apps, **_values(app))
    _add_revision(tx, app)


def replace(tx: Transaction, app: AppRow) -> None:
    """Write an app over the one of the same key, with a revision row for its number."""
    values = _values(app)
    tx.execute(update(apps).where(_is(app.project, app.domain, app.name)).values(values))
    _add_revision(tx, app)


def set_desired(tx: Transaction, app: AppRow) -> None:
    """Change what the owner wants of the app, without a revision of its own."""
    tx.execute(
        update(apps)
        .where(_is(app.project, app.domain, app.name))
        .values(
            desired=int(app.desired),
            status=int(app.status),
            message=app.message,
            spec=app.spec,
            updated_at=app.updated_at,
        )
    )


def set_status(
    tx: Transaction,
    project: str,
    domain: str,
    name: str,
    *,
    revision: int,
    status: AppStatus,
    message: str = "",
    started_at: float | None = None,
) -> bool:
    """Record where the process of this revision stands; False when the app has moved on or is gone."""
    values: dict[str, object] = {"status": int(status), "message": message, "updated_at": tx.now}
    if started_at is not None:
        values["started_at"] = started_at
    result = tx.execute(
        update(apps).where(_is(project, domain, name), apps.c.revision == revision).values(values)
    )
    return bool(result.rowcount)


def remove(tx: Transaction, project: str, domain: str, name: str) -> bool:
    """Delete an app; its revision rows stay as history. False when there is none."""
    return bool(tx.execute(delete(apps).where(_is(project, domain, name))).rowcount)


def _is(project: str, domain: str, name: str) -> ColumnElement[bool]:
    return and_(apps.c.project == project, apps.c.domain == domain, apps.c.name == name)


def _values(app: AppRow) -> dict[str, object]:
    values = {field.name: getattr(app, field.name) for field in fields(AppRow)}
    return {**values, "desired": int(app.desired), "status": int(app.status)}


def _add_revision(tx: Transaction, app: AppRow) -> None:
    tx.insert(
        app_revisions,
        project=app.project,
        domain=app.domain,
        name=app.name,
        revision=app.revision,
        spec=app.spec,
        deployed_by=app.deployed_by,
        created_at=app.updated_at,
    )


def _app(row: Row[tuple[object, ...]]) -> AppRow:
    values = dict(row._mapping)
    return AppRow(**{**values, "desired": Desired(values["desired"]), "status": AppStatus(values["status"])})
