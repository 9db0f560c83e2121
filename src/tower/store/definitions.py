"""Rows of projects and of task versions. A version never changes; the latest has the highest serial."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields
from typing import Any

from sqlalchemy import ColumnElement, Row, Select, and_, exists, func, select, update

from tower.store.database import Reader, Transaction
from tower.store.listing import Page, Seen, within
from tower.store.schema import projects, tasks, users

TaskKey = tuple[str, str, str]
"""Project, domain, name."""


@dataclass(frozen=True, slots=True)
class ProjectRow:
    """One project."""

    name: str
    description: str
    created_at: float
    created_by: str
    archived_at: float | None


@dataclass(frozen=True, slots=True)
class TaskRow:
    """One version of a task, without its specification; `deployer_*` are None for an unknown subject."""

    project: str
    domain: str
    name: str
    version: str
    digest: str
    code_digest: str
    short_name: str
    environment: str
    description: str
    deployed_by: str
    deployed_at: float
    serial: int
    privileges: str = ""
    deployer_kind: str | None = None
    deployer_name: str | None = None
    deployer_email: str | None = None

    @property
    def key(self) -> TaskKey:
        """Project, domain, name."""
        return (self.project, self.domain, self.name)


_COLUMNS = (
    *(tasks.c[field.name] for field in fields(TaskRow) if field.name in tasks.c),
    users.c.kind.label("deployer_kind"),
    users.c.name.label("deployer_name"),
    users.c.email.label("deployer_email"),
)
_STORED = tuple(field.name for field in fields(TaskRow) if field.name in tasks.c)
_newer = tasks.alias("newer")

SORTS = {"created_at": tasks.c.serial, "deployed_at": tasks.c.serial, "name": tasks.c.name}
"""What a list of tasks can be sorted by."""

TIES = (tasks.c.project, tasks.c.domain, tasks.c.name, tasks.c.version)

FIELDS: dict[str, ColumnElement[Any]] = {
    "name": tasks.c.name,
    "version": tasks.c.version,
    "short_name": tasks.c.short_name,
    "environment_name": tasks.c.environment,
    "environment": tasks.c.environment,
    "deployed_by": tasks.c.deployed_by,
    "created_at": tasks.c.deployed_at,
    "deployed_at": tasks.c.deployed_at,
}
"""What a list of tasks can be filtered by."""


def all_projects(reader: Reader) -> list[ProjectRow]:
    """Every project, archived ones included, by name."""
    statement = select(*(projects.c[field.name] for field in fields(ProjectRow))).order_by(projects.c.name)
    return [ProjectRow(**row._mapping) for row in reader.execute(statement)]


def insert_project(tx: Transaction, *, name: str, description: str, created_by: str) -> None:
    """Add a project. The name may be taken: sqlalchemy's IntegrityError."""
    tx.insert(projects, name=name, description=description, created_at=tx.now, created_by=created_by)


def update_project(tx: Transaction, name: str, *, description: str, archived: bool) -> bool:
    """Change what can be changed; False when there is no such project."""
    archived_at = func.coalesce(projects.c.archived_at, tx.now) if archived else None
    values = {"description": description, "archived_at": archived_at}
    return bool(tx.execute(update(projects).where(projects.c.name == name).values(values)).rowcount)


def get(reader: Reader, key: TaskKey, version: str) -> tuple[TaskRow, bytes] | None:
    """One version and its specification, or None."""
    statement = _tasks(tasks.c.spec).where(_is(key), tasks.c.version == version)
    row = reader.execute(statement).first()
    return None if row is None else (_task(row), row.spec)


def latest(reader: Reader, key: TaskKey) -> str | None:
    """The version that was deployed last, or None when there is no such task."""
    statement = select(tasks.c.version).where(_is(key)).order_by(tasks.c.serial.desc()).limit(1)
    return reader.execute(statement).scalar()


def next_serial(reader: Reader, project: str, domain: str) -> int:
    """The number after the highest in a domain."""
    statement = select(func.max(tasks.c.serial)).where(tasks.c.project == project, tasks.c.domain == domain)
    return int(reader.execute(statement).scalar() or 0) + 1


def count_versions(reader: Reader, key: TaskKey) -> int:
    """How many versions a task has."""
    return int(reader.execute(select(func.count()).select_from(tasks).where(_is(key))).scalar() or 0)


def insert(tx: Transaction, row: TaskRow, spec: bytes) -> None:
    """Add a version. It may exist: sqlalchemy's IntegrityError."""
    tx.insert(tasks, spec=spec, **{name: getattr(row, name) for name in _STORED})


def give(tx: Transaction, key: TaskKey, version: str, privileges: str) -> None:
    """Replace who gave a version its privileges, and with what limits."""
    tx.execute(update(tasks).where(_is(key), tasks.c.version == version).values(privileges=privileges))


def page_tasks(
    reader: Reader,
    page: Page,
    *,
    scopes: Sequence[Seen],
    latest_only: bool,
) -> list[TaskRow]:
    """One page of the tasks of these scopes: of each its latest version, or all versions."""
    statement = _of_scopes(scopes, latest_only=latest_only)
    return [_task(row) for row in reader.execute(page.apply(statement, ties=TIES))]


def count_tasks(reader: Reader, page: Page, *, scopes: Sequence[Seen], latest_only: bool) -> int:
    """How many tasks the pages of these scopes have together."""
    found = reader.execute(page.count(_of_scopes(scopes, latest_only=latest_only))).scalar()
    return int(found or 0)


def _of_scopes(scopes: Sequence[Seen], *, latest_only: bool) -> Select[*tuple[Any, ...]]:
    statement = _tasks().where(within(tasks, scopes))
    if not latest_only:
        return statement
    newer = _newer.c
    same = and_(newer.project == tasks.c.project, newer.domain == tasks.c.domain, newer.name == tasks.c.name)
    return statement.where(~exists().where(same, newer.serial > tasks.c.serial))


def task_names(reader: Reader, project: str, domain: str) -> list[str]:
    """The names of the tasks of one scope."""
    query = select(tasks.c.name).where(tasks.c.project == project, tasks.c.domain == domain).distinct()
    return [row.name for row in reader.execute(query.order_by(tasks.c.name))]


def page_versions(reader: Reader, page: Page, *, key: TaskKey) -> list[TaskRow]:
    """One page of the versions of a task."""
    return [_task(row) for row in reader.execute(page.apply(_tasks().where(_is(key)), ties=TIES))]


def _tasks(*more: ColumnElement[Any]) -> Select[*tuple[Any, ...]]:
    joined = tasks.outerjoin(users, users.c.subject == tasks.c.deployed_by)
    return select(*_COLUMNS, *more).select_from(joined)


def _is(key: TaskKey) -> ColumnElement[bool]:
    project, domain, name = key
    return and_(tasks.c.project == project, tasks.c.domain == domain, tasks.c.name == name)


def _task(row: Row[*tuple[Any, ...]]) -> TaskRow:
    return TaskRow(**{field.name: row._mapping[field.name] for field in fields(TaskRow)})
