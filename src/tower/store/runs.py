"""Rows of actions and attempts. A run is its root action `a0`."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, fields
from operator import attrgetter
from typing import Any, NamedTuple

from sqlalchemy import (
    JSON,
    ColumnElement,
    Integer,
    Row,
    Select,
    and_,
    bindparam,
    func,
    literal,
    literal_column,
    or_,
    select,
    type_coerce,
    update,
)

from tower.errors import Invalid
from tower.states import MOVES, Phase
from tower.store.blobs import parse_uri
from tower.store.database import Reader, Transaction
from tower.store.listing import Filter, Op, Page, Seen, compare, integer
from tower.store.prepared import prepared
from tower.store.schema import actions, attempts, users
from tower.store.transaction import Form

ROOT = "a0"
"""The name of every run's root action."""

_OPEN = [int(phase) for phase, moves in MOVES.items() if moves]
_STILL_OPEN: ColumnElement[bool] = literal_column(
    "actions.phase < 5"
)  # the words of the partial index ix_actions_open
_LABEL = re.compile(r"[A-Za-z0-9][A-Za-z0-9._/-]{0,127}")


class ActionKey(NamedTuple):
    """Where an action stands."""

    project: str
    domain: str
    run: str
    action: str = ROOT


@dataclass(slots=True)  # not frozen: for this many fields that would cost 5 µs on each new run
class ActionRow:
    """One action as stored: never change one. `run_spec` and `spec` are serialised, JSON columns are text."""

    project: str
    domain: str
    run: str
    action: str
    parent: str | None
    task_project: str
    task_domain: str
    task_name: str
    task_version: str
    spec: bytes | None
    code_digest: str
    inputs_uri: str
    inputs_hash: str
    run_spec: bytes
    labels: str
    executed_by: str
    via_app: str
    credential_kind: str
    credential_id: str
    actors: str
    ceilings: str
    decision: str
    policy_revision: str
    request_id: str | None
    phase: Phase
    attempts: int
    max_attempts: int
    queue_timeout: float | None
    run_timeout: float | None
    created_at: float
    queued_at: float
    started_at: float | None
    ended_at: float | None
    outputs_uri: str
    error: str
    abort_reason: str
    aborted_by: str
    turn: int = 0
    warning: str = ""
    grant_expires_at: float | None = None

    @property
    def key(self) -> ActionKey:
        """Where it stands."""
        return ActionKey(self.project, self.domain, self.run, self.action)

    @property
    def inputs_key(self) -> str:
        """Where its flyteidl2.task.Inputs lie in the blob store."""
        return f"{parse_uri(self.inputs_uri)}/inputs.pb"

    @property
    def outputs_key(self) -> str:
        """Where its flyteidl2.task.Outputs lie in the blob store; "" while there are none."""
        return f"{parse_uri(self.outputs_uri)}/outputs.pb" if self.outputs_uri else ""


@dataclass(frozen=True, slots=True)
class AttemptRow:
    """One attempt of an action."""

    attempt: int
    phase: Phase
    created_at: float
    started_at: float | None
    ended_at: float | None
    outputs_uri: str
    error: str
    has_logs: bool


class Person(NamedTuple):
    """What is known of a subject that a row names."""

    subject: str
    kind: str
    name: str
    email: str


_COLUMNS = tuple(actions.c[field.name] for field in fields(ActionRow))
_ATTEMPT = tuple(attempts.c[field.name] for field in fields(AttemptRow))
# built once: they stand on the way of every run, more than once
_ONE = prepared(select(*_COLUMNS).where(*(actions.c[name] == bindparam(name) for name in ActionKey._fields)))
_ATTEMPTS = prepared(
    select(*_ATTEMPT)
    .where(*(attempts.c[name] == bindparam(name) for name in ActionKey._fields))
    .order_by(attempts.c.attempt)
)
_PEOPLE = select(users.c.subject, users.c.kind, users.c.name, users.c.email)
_PERSON = prepared(_PEOPLE.where(users.c.subject == bindparam("subject")))
_PHASE_OF_ACTION = [field.name for field in fields(ActionRow)].index("phase")
_PHASE_OF_ATTEMPT = [field.name for field in fields(AttemptRow)].index("phase")

SORTS = {"created_at": actions.c.created_at, "name": actions.c.run}
"""What a list of runs can be sorted by."""

ACTION_SORTS = {"created_at": actions.c.created_at, "name": actions.c.action}
"""What a list of the actions of a run can be sorted by."""

TIES = (actions.c.project, actions.c.domain, actions.c.run, actions.c.action)

FIELDS: dict[str, ColumnElement[Any]] = {
    "name": actions.c.run,
    "phase": actions.c.phase,
    "task_name": actions.c.task_name,
    "task_version": actions.c.task_version,
    "created_by": actions.c.executed_by,
    "executed_by": actions.c.executed_by,
    "via_app": actions.c.via_app,
    "created_at": actions.c.created_at,
    "updated_at": func.coalesce(
        actions.c.ended_at, actions.c.started_at, actions.c.created_at, type_=actions.c.created_at.type
    ),
    "ended_at": actions.c.ended_at,
    "parent_name": actions.c.parent,
    "action_type": literal(1),
}
"""What lists of runs and actions can be filtered by; `labels.<key>` and names of phases besides."""


def insert(tx: Transaction, row: ActionRow) -> None:
    """Add an action. The name, or the caller's request id, may be taken: sqlalchemy's IntegrityError."""
    if _SPECIAL(row) == _DEFAULTS:
        tx.insert_row(_USUAL, _USUAL_VALUES(row))
    else:
        tx.insert_row(_WHOLE, _VALUES(row))


class Template:
    """New actions that differ in what `fill` takes: made of one of them, which is looked at no more."""

    __slots__ = ("_values",)

    def __init__(self, row: ActionRow) -> None:
        self._values: list[Any] = list(_VALUES(row))

    def fill(
        self,
        *,
        run: str,
        inputs_uri: str,
        inputs_hash: str,
        request_id: str,
        now: float,
        grant_expires_at: float | None,
    ) -> ActionRow:
        """Another one, which is asked for now."""
        values = self._values.copy()
        values[_RUN] = run
        values[_INPUTS_URI] = inputs_uri
        values[_INPUTS_HASH] = inputs_hash
        values[_REQUEST] = request_id
        values[_CREATED] = values[_QUEUED] = now
        values[_GRANT] = grant_expires_at
        return ActionRow(*values)


def _default(name: str) -> str | int | None:
    """What the database puts into a column of its own accord, None where it puts nothing."""
    column = actions.c[name]
    default: Any = column.server_default
    if default is None:
        assert column.nullable
        return None
    return int(default.arg) if isinstance(column.type, Integer) else str(default.arg)


# each column costs a quarter of a microsecond to bind, and of a new run these mostly say nothing
_SPECIAL_NAMES = (
    *("parent", "spec", "labels", "via_app", "actors", "ceilings", "attempts", "started_at", "ended_at"),
    *("outputs_uri", "error", "abort_reason", "aborted_by", "turn", "warning"),
)
_DEFAULTS = tuple(_default(name) for name in _SPECIAL_NAMES)
_SPECIAL = attrgetter(*_SPECIAL_NAMES)
_WHOLE = Form(actions, tuple(field.name for field in fields(ActionRow)))
_VALUES = attrgetter(*_WHOLE.columns)
_RUN, _INPUTS_URI, _INPUTS_HASH, _REQUEST, _CREATED, _QUEUED, _GRANT = map(
    _WHOLE.columns.index,
    ("run", "inputs_uri", "inputs_hash", "request_id", "created_at", "queued_at", "grant_expires_at"),
)
_USUAL = Form(actions, tuple(name for name in _WHOLE.columns if name not in _SPECIAL_NAMES))
_USUAL_VALUES = attrgetter(*_USUAL.columns)


def get(reader: Reader, key: ActionKey) -> ActionRow | None:
    """One action, or None."""
    row = reader.execute(_ONE, key._asdict()).first()
    return None if row is None else _action(row)


def by_request(reader: Reader, *, executed_by: str, request_id: str) -> ActionRow | None:
    """The action that this caller created under this request id, or None."""
    statement = select(*_COLUMNS).where(
        actions.c.executed_by == executed_by, actions.c.request_id == request_id
    )
    row = reader.execute(statement).first()
    return None if row is None else _action(row)


def attempts_of(reader: Reader, key: ActionKey) -> list[AttemptRow]:
    """The attempts of an action, first to last."""
    return [_attempt(row) for row in reader.execute(_ATTEMPTS, key._asdict())]


def people(reader: Reader, subjects: Sequence[str]) -> dict[str, Person]:
    """What is known of these subjects."""
    wanted = sorted({subject for subject in subjects if subject})
    if not wanted:
        return {}
    if len(wanted) == 1:
        found = reader.execute(_PERSON, {"subject": wanted[0]})
    else:
        found = reader.execute(_PEOPLE.where(users.c.subject.in_(wanted)))
    return {row.subject: Person(**row._asdict()) for row in found}


def count_open(reader: Reader, *, executed_by: str) -> int:
    """How many actions of this subject have not ended."""
    statement = (
        select(func.count()).select_from(actions).where(_STILL_OPEN, actions.c.executed_by == executed_by)
    )
    return int(reader.execute(statement).scalar() or 0)


def page_runs(
    reader: Reader,
    page: Page,
    *,
    scopes: Sequence[Seen],
    owner: str = "",
    task: tuple[str, str, str] | None = None,
    version: str = "",
    among: Select[tuple[str]] | None = None,
) -> list[ActionRow]:
    """One page of the runs of these scopes; with `names` those whose task is one of these there."""
    if not scopes:
        return []
    places = or_(*map(_seen, scopes))
    statement = select(*_COLUMNS).where(places, actions.c.action == ROOT)
    if owner:
        statement = statement.where(actions.c.executed_by == owner)
    if task is not None:
        project, domain, name = task
        statement = statement.where(
            actions.c.task_project == project, actions.c.task_domain == domain, actions.c.task_name == name
        )
    if version:
        statement = statement.where(actions.c.task_version == version)
    if among is not None:
        statement = statement.where(actions.c.run.in_(among))
    return [_action(row) for row in reader.execute(page.apply(statement, ties=TIES))]


def _seen(scope: Seen) -> ColumnElement[bool]:
    place = and_(actions.c.project == scope.project, actions.c.domain == scope.domain)
    if scope.names is None:
        return place
    return and_(
        place,
        actions.c.task_project == scope.project,
        actions.c.task_domain == scope.domain,
        actions.c.task_name.in_(scope.names),
    )


def page_actions(reader: Reader, page: Page, *, key: ActionKey) -> list[ActionRow]:
    """One page of the actions of one run."""
    statement = select(*_COLUMNS).where(
        actions.c.project == key.project, actions.c.domain == key.domain, actions.c.run == key.run
    )
    return [_action(row) for row in reader.execute(page.apply(statement, ties=TIES))]


def open_actions(reader: Reader, key: ActionKey) -> list[ActionKey]:
    """The actions of a run that have not ended."""
    statement = select(actions.c.action).where(
        actions.c.project == key.project,
        actions.c.domain == key.domain,
        actions.c.run == key.run,
        actions.c.phase.in_(_OPEN),
    )
    return [key._replace(action=row.action) for row in reader.execute(statement)]


def abort(tx: Transaction, key: ActionKey, *, reason: str, by: str) -> bool:
    """Move an action to ABORTED; False when it had ended already."""
    statement = (
        update(actions)
        .where(_is(key), actions.c.phase.in_(_OPEN))
        .values(phase=int(Phase.ABORTED), ended_at=tx.now, abort_reason=reason, aborted_by=by)
    )
    return bool(tx.execute(statement).rowcount)


def special(field: str, condition: Filter) -> ColumnElement[bool] | None:
    """The conditions of runs that are no plain column: labels, and phases by name."""
    if field == "phase":
        return compare(actions.c.phase, condition, parse=_phase)
    if not field.startswith("labels."):
        return None
    key = field.removeprefix("labels.")
    if not _LABEL.fullmatch(key):
        raise Invalid("That is not the key of a label.")
    value = type_coerce(actions.c.labels, JSON)[key].as_string()
    if condition.op not in {Op.EQUAL, Op.IN, Op.NOT_EQUAL, Op.NOT_IN, Op.EXISTS, Op.NOT_EXISTS}:
        raise Invalid("A label can be compared for equality, or for being there.")
    return compare(value, condition)


def _phase(value: str, field: str) -> int:
    name = value.upper().removeprefix("ACTION_PHASE_")
    return int(Phase[name]) if name in Phase.__members__ else integer(value, field)


def _is(key: ActionKey) -> ColumnElement[bool]:
    return and_(
        actions.c.project == key.project,
        actions.c.domain == key.domain,
        actions.c.run == key.run,
        actions.c.action == key.action,
    )


def _action(row: Row[*tuple[Any, ...]]) -> ActionRow:
    values = list(row)  # in the order of `_COLUMNS`
    values[_PHASE_OF_ACTION] = Phase(values[_PHASE_OF_ACTION])
    return ActionRow(*values)


def _attempt(row: Row[*tuple[Any, ...]]) -> AttemptRow:
    values = list(row)  # in the order of `_ATTEMPT`
    values[_PHASE_OF_ATTEMPT] = Phase(values[_PHASE_OF_ATTEMPT])
    return AttemptRow(*values)
