"""Rows of triggers, of their revisions and of what came of each due time."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields
from enum import StrEnum
from typing import Any, NamedTuple

from sqlalchemy import ColumnElement, Row, Select, Table, and_, bindparam, false, func, or_, select, update

from tower.store.listing import Page, Seen
from tower.store.schema_schedules import trigger_firings, trigger_revisions, triggers
from tower.store.transaction import Reader, Transaction


class State(StrEnum):
    """Whether a trigger starts runs. A suspended one did until that was refused: a person must look."""

    ACTIVE = "active"
    INACTIVE = "inactive"
    SUSPENDED = "suspended"


class Outcome(StrEnum):
    """What came of a due time."""

    STARTED = "started"
    MISSED = "missed"
    """Tower was down, or too much else was late: a later time took its place."""
    SKIPPED = "skipped"
    """No run could be made of it then; the trigger goes on."""
    REFUSED = "refused"
    """Its person may not run the task any more: the trigger is suspended."""


class TriggerKey(NamedTuple):
    """Where a trigger stands."""

    project: str
    domain: str
    task: str
    name: str

    def __str__(self) -> str:
        return "/".join(self)


@dataclass(frozen=True, slots=True)
class TriggerRow:
    """One trigger; messages are serialised, JSON columns are text."""

    project: str
    domain: str
    task: str
    name: str
    revision: int
    version: str
    automation: bytes
    inputs: bytes
    run_spec: bytes
    description: str
    state: State
    notice: str
    deployed_by: str
    deployed_at: float
    updated_by: str
    updated_at: float
    run_as: str
    credential_kind: str
    credential_id: str
    actors: str
    ceilings: str
    since: float
    next_at: float | None
    last_at: float | None
    last_run: str

    @property
    def key(self) -> TriggerKey:
        """Where it stands."""
        return TriggerKey(self.project, self.domain, self.task, self.name)

    @property
    def owner(self) -> str:
        """Whose it is: whom it runs as, or who deployed it where it never ran."""
        return self.run_as or self.deployed_by


@dataclass(frozen=True, slots=True)
class RevisionRow:
    """A trigger as it was made by one change."""

    project: str
    domain: str
    task: str
    name: str
    revision: int
    action: int
    at: float
    by: str
    version: str
    automation: bytes
    inputs: bytes
    run_spec: bytes
    description: str
    state: State
    run_as: str


@dataclass(frozen=True, slots=True)
class FiringRow:
    """What came of one due time."""

    revision: int
    due_at: float
    at: float
    outcome: Outcome
    run: str
    reason: str


_COLUMNS = tuple(triggers.c[each.name] for each in fields(TriggerRow))
_REVISION = tuple(trigger_revisions.c[each.name] for each in fields(RevisionRow))
_FIRING = tuple(trigger_firings.c[each.name] for each in fields(FiringRow))
_ONE = select(*_COLUMNS).where(*(triggers.c[name] == bindparam(name) for name in TriggerKey._fields))

SORTS = {"name": triggers.c.name, "created_at": triggers.c.deployed_at, "updated_at": triggers.c.updated_at}
"""What a list of triggers can be sorted by."""

TIES = (triggers.c.project, triggers.c.domain, triggers.c.task, triggers.c.name)

FIELDS: dict[str, ColumnElement[Any]] = {
    "name": triggers.c.name,
    "task_name": triggers.c.task,
    "state": triggers.c.state,
    "deployed_by": triggers.c.deployed_by,
    "updated_by": triggers.c.updated_by,
    "run_as": triggers.c.run_as,
    "created_at": triggers.c.deployed_at,
    "updated_at": triggers.c.updated_at,
}
"""What a list of triggers can be filtered by."""

REVISION_SORTS = {"revision": trigger_revisions.c.revision, "created_at": trigger_revisions.c.at}
REVISION_TIES = (trigger_revisions.c.revision,)


def get(reader: Reader, key: TriggerKey) -> TriggerRow | None:
    """One trigger, or None."""
    row = reader.execute(_ONE, key._asdict()).first()
    return None if row is None else _trigger(row)


def put(tx: Transaction, row: TriggerRow, *, action: int, by: str) -> None:
    """Set a trigger in a new revision of it, and note the revision."""
    tx.execute(triggers.delete().where(_is(triggers, row.key)))
    tx.insert(triggers, **{each.name: _plain(getattr(row, each.name)) for each in fields(TriggerRow)})
    _note(tx, row, action=action, by=by)


def remove(tx: Transaction, row: TriggerRow, *, action: int, by: str) -> None:
    """Delete a trigger; the revision of `row` is the one that says so."""
    tx.execute(triggers.delete().where(_is(triggers, row.key)))
    _note(tx, row, action=action, by=by)


def next_revision(reader: Reader, key: TriggerKey) -> int:
    """The number after the highest that was ever used."""
    highest = select(func.max(trigger_revisions.c.revision)).where(_is(trigger_revisions, key))
    return int(reader.execute(highest).scalar() or 0) + 1


def count(reader: Reader, *, project: str, domain: str, task: str = "") -> int:
    """How many there are in a domain of a project, or of one task."""
    statement = (
        select(func.count())
        .select_from(triggers)
        .where(triggers.c.project == project, triggers.c.domain == domain)
    )
    if task:
        statement = statement.where(triggers.c.task == task)
    return int(reader.execute(statement).scalar() or 0)


def page(
    reader: Reader, asked: Page, *, scopes: Sequence[Seen], task: str = "", version: str = ""
) -> list[TriggerRow]:
    """One page of the triggers of tasks in these scopes, or of one task, or of one version of it."""
    statement = select(*_COLUMNS).where(_within(scopes))
    if task:
        statement = statement.where(triggers.c.task == task)
    if version:
        statement = statement.where(triggers.c.version == version)
    return [_trigger(row) for row in reader.execute(asked.apply(statement, ties=TIES))]


def task_names(reader: Reader, project: str, domain: str) -> list[str]:
    """The names of the tasks of one scope that have triggers."""
    place = and_(triggers.c.project == project, triggers.c.domain == domain)
    query = select(triggers.c.task).where(place).distinct().order_by(triggers.c.task)
    return [row.task for row in reader.execute(query)]


def revision(reader: Reader, key: TriggerKey, number: int) -> RevisionRow | None:
    """One revision, also of a trigger that was deleted, or None."""
    statement = select(*_REVISION).where(_is(trigger_revisions, key), trigger_revisions.c.revision == number)
    row = reader.execute(statement).first()
    return None if row is None else _revision(row)


def revisions(reader: Reader, asked: Page, key: TriggerKey) -> list[RevisionRow]:
    """One page of the revisions of a trigger."""
    statement = select(*_REVISION).where(_is(trigger_revisions, key))
    return [_revision(row) for row in reader.execute(asked.apply(statement, ties=REVISION_TIES))]


def due(reader: Reader, now: float, *, limit: int) -> list[TriggerRow]:
    """The triggers that are due, longest first."""
    statement = select(*_COLUMNS).where(triggers.c.next_at <= now).order_by(triggers.c.next_at).limit(limit)
    return [_trigger(row) for row in reader.execute(statement)]


def next_due(reader: Reader) -> float | None:
    """When the next one is due."""
    return reader.execute(
        select(func.min(triggers.c.next_at)).where(triggers.c.next_at.is_not(None))
    ).scalar()


def advance(tx: Transaction, row: TriggerRow, **values: Any) -> bool:
    """Change a trigger that is still as in `row`: active, of that revision and due then. False otherwise."""
    statement = (
        update(triggers)
        .where(
            _is(triggers, row.key),
            triggers.c.revision == row.revision,
            triggers.c.state == State.ACTIVE.value,
            triggers.c.next_at == row.next_at,
        )
        .values({name: _plain(value) for name, value in values.items()})
    )
    return tx.execute(statement).rowcount == 1


def set_notice(tx: Transaction, key: TriggerKey, notice: str) -> None:
    """Say something about a trigger without changing what it does."""
    tx.execute(update(triggers).where(_is(triggers, key)).values(notice=notice))


def add_firing(tx: Transaction, row: TriggerRow, firing: FiringRow, *, forget_before: float) -> None:
    """Note what came of a due time. It may be noted already: sqlalchemy's IntegrityError.

    Of times before `forget_before` those are forgotten that started nothing.
    """
    tx.execute(
        trigger_firings.delete().where(
            _is(trigger_firings, row.key),
            trigger_firings.c.due_at < forget_before,
            trigger_firings.c.outcome != Outcome.STARTED.value,
        )
    )
    values = {each.name: _plain(getattr(firing, each.name)) for each in fields(FiringRow)}
    tx.insert(trigger_firings, **row.key._asdict(), **values)


def firings(reader: Reader, key: TriggerKey, *, limit: int) -> list[FiringRow]:
    """What came of the latest due times, the newest first."""
    statement = (
        select(*_FIRING)
        .where(_is(trigger_firings, key))
        .order_by(trigger_firings.c.due_at.desc())
        .limit(limit)
    )
    return [
        FiringRow(**{**row._mapping, "outcome": Outcome(row.outcome)}) for row in reader.execute(statement)
    ]


def runs_of(key: TriggerKey) -> Select[tuple[str]]:
    """The names of the runs that a trigger started, for a condition on the runs of its project and domain."""
    return select(trigger_firings.c.run).where(_is(trigger_firings, key), trigger_firings.c.run != "")


def _within(scopes: Sequence[Seen]) -> ColumnElement[bool]:
    """What belongs to tasks of these scopes."""
    places = []
    for scope in scopes:
        place = and_(triggers.c.project == scope.project, triggers.c.domain == scope.domain)
        places.append(place if scope.names is None else and_(place, triggers.c.task.in_(scope.names)))
    return or_(false(), *places)


def _note(tx: Transaction, row: TriggerRow, *, action: int, by: str) -> None:
    values = {
        each.name: _plain(getattr(row, each.name))
        for each in fields(RevisionRow)
        if each.name not in {"action", "at", "by"}
    }
    tx.insert(trigger_revisions, action=action, at=tx.now, by=by, **values)


def _is(table: Table, key: TriggerKey) -> ColumnElement[bool]:
    return and_(*(table.c[name] == value for name, value in key._asdict().items()))


def _plain(value: Any) -> Any:
    return value.value if isinstance(value, StrEnum) else value


def _trigger(row: Row[*tuple[Any, ...]]) -> TriggerRow:
    return TriggerRow(**{**row._mapping, "state": State(row.state)})


def _revision(row: Row[*tuple[Any, ...]]) -> RevisionRow:
    return RevisionRow(**{**row._mapping, "state": State(row.state)})
