"""The queue of actions and the rows of attempts, each step a compare-and-set: the late change nothing."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from sqlalchemy import (
    BindParameter,
    ColumnElement,
    and_,
    bindparam,
    func,
    literal_column,
    or_,
    select,
    update,
)

from tower.states import Phase
from tower.store import runs
from tower.store.database import Reader, Transaction
from tower.store.prepared import prepared
from tower.store.runs import ActionKey, ActionRow
from tower.store.schema import actions, attempts

# the words of the partial index ix_actions_open
_OPEN: ColumnElement[bool] = literal_column("actions.phase < 5")
_QUEUED = and_(_OPEN, actions.c.phase == int(Phase.QUEUED))


@dataclass(frozen=True, slots=True)
class End:
    """How an attempt ended.

    `error` is JSON (message, kind user|system, code) or ""; `started_at` counts where the start was not
    recorded before.
    """

    phase: Phase
    outputs_uri: str = ""
    error: str = ""
    has_logs: bool = False
    started_at: float | None = None


def queued(reader: Reader, limit: int) -> list[ActionKey]:
    """The next actions: what runs ask for before new runs, the deepest first; then what waits longest."""
    return [ActionKey(*row) for row in reader.execute(_NEXT, {"limit": limit})]


def queued_of_others(reader: Reader, busy: Sequence[ActionKey]) -> ActionKey | None:
    """The next action of somebody whom none of these actions acts for, or None."""
    people = {reader.execute(_PERSON, _where(key)).scalar() for key in busy}
    statement = (
        select(actions.c.project, actions.c.domain, actions.c.run, actions.c.action)
        .where(_QUEUED, actions.c.executed_by.not_in(people))
        .order_by(actions.c.turn, actions.c.queued_at)
        .limit(1)
    )
    found = reader.execute(statement).first()
    return None if found is None else ActionKey(*found)


def next_queue_deadline(reader: Reader) -> float | None:
    """When the next waiting action has waited too long, or None."""
    statement = select(func.min(actions.c.queued_at + actions.c.queue_timeout)).where(_QUEUED)
    return reader.execute(statement).scalar()


def overdue(reader: Reader, now: float, limit: int = 100) -> list[ActionKey]:
    """Actions that have waited too long."""
    statement = (
        select(actions.c.project, actions.c.domain, actions.c.run, actions.c.action)
        .where(_QUEUED, actions.c.queued_at + actions.c.queue_timeout <= now)
        .limit(limit)
    )
    return [ActionKey(*row) for row in reader.execute(statement)]


def phase(reader: Reader, key: ActionKey) -> Phase | None:
    """Where an action stands, None when there is no such action."""
    found = reader.execute(_PHASE, _where(key)).scalar()
    return None if found is None else Phase(found)


def stranded(reader: Reader) -> list[ActionRow]:
    """Actions that were started: right after a start of Tower those of its former life."""
    statement = select(actions.c.project, actions.c.domain, actions.c.run, actions.c.action).where(
        _OPEN, actions.c.phase.in_(_RUNNING)
    )
    keys = [ActionKey(*row) for row in reader.execute(statement)]
    return [row for key in keys if (row := runs.get(reader, key)) is not None]


def lease(tx: Transaction, row: ActionRow) -> ActionRow | None:
    """Take a queued action and begin its next attempt; None when it is not queued any more.

    `row` is what was read of it; the answer is the row as it is now.
    """
    attempt = row.attempts + 1
    if not tx.execute(_LEASE, {**_where(row.key), "w_attempts": row.attempts, "attempts": attempt}).rowcount:
        return None
    leased = replace(row, phase=Phase.INITIALIZING, attempts=attempt)
    _begin(tx, leased)
    return leased


def insert(tx: Transaction, row: ActionRow) -> ActionRow:
    """Add an action with its first attempt, leased from the beginning; answers the row as it is then.

    Raises IntegrityError as `runs.insert` does.
    """
    leased = replace(row, phase=Phase.INITIALIZING, attempts=1)
    runs.insert(tx, leased)
    _begin(tx, leased)
    return leased


def _begin(tx: Transaction, leased: ActionRow) -> None:
    tx.insert(
        attempts,
        **leased.key._asdict(),
        attempt=leased.attempts,
        phase=int(Phase.INITIALIZING),
        created_at=tx.now,
    )


def started(tx: Transaction, key: ActionKey, attempt: int, at: float) -> bool:
    """The process of an attempt exists since `at`; False when the attempt is over already."""
    where = {**_where(key), "w_attempts": attempt, "began": at}
    if not tx.execute(_STARTED, where).rowcount:
        return False
    tx.execute(_ATTEMPT_STARTED, where)
    return True


def finish(tx: Transaction, key: ActionKey, attempt: int, end: End) -> bool:
    """End the attempt and its action; False when something else (an abort, say) ended the action before.

    The attempt's own row is completed in both cases.
    """
    values = {
        "phase": int(end.phase),
        "ended_at": tx.now,
        "outputs_uri": end.outputs_uri,
        "error": end.error,
        "began": end.started_at,
    }
    moved = tx.execute(_FINISH, {**_where(key), "w_attempts": attempt, **values}).rowcount
    _complete(tx, key, attempt, end if moved else _overtaken(tx, key, end))
    return bool(moved)


def requeue(tx: Transaction, key: ActionKey, attempt: int, end: End) -> bool:
    """End the attempt and let its action wait for another one; False when the action is over already."""
    moved = tx.execute(
        update(actions)
        .where(_is(key), actions.c.phase.in_(_RUNNING), actions.c.attempts == attempt)
        .values(phase=int(Phase.QUEUED), queued_at=tx.now)
    ).rowcount
    _complete(tx, key, attempt, end if moved else _overtaken(tx, key, end))
    return bool(moved)


def expire_queued(tx: Transaction, key: ActionKey, error: str) -> bool:
    """End an action that waited too long; False when it does not wait any more."""
    moved = tx.execute(
        update(actions)
        .where(_is(key), actions.c.phase == int(Phase.QUEUED))
        .values(phase=int(Phase.TIMED_OUT), ended_at=tx.now, error=error)
    )
    return bool(moved.rowcount)


def has_logs(tx: Transaction, key: ActionKey, attempt: int) -> None:
    """Note that an attempt has printed something."""
    tx.execute(update(attempts).where(_is_attempt(key, attempt)).values(has_logs=True))


def _complete(tx: Transaction, key: ActionKey, attempt: int, end: End) -> None:
    """Write the end into an attempt's row, unless it has one."""
    values = {
        "phase": int(end.phase),
        "ended_at": tx.now,
        "outputs_uri": end.outputs_uri,
        "error": end.error,
        "has_logs": end.has_logs,
        "began": end.started_at,
    }
    tx.execute(_COMPLETE, {**_where(key), "w_attempts": attempt, **values})


def _overtaken(tx: Transaction, key: ActionKey, end: End) -> End:
    """The end of an attempt whose action was ended by something else."""
    ended = phase(tx, key)
    last = ended if ended is not None and ended.terminal else Phase.ABORTED
    return End(last, has_logs=end.has_logs, started_at=end.started_at)


def _where(key: ActionKey) -> dict[str, object]:
    return {f"w_{name}": value for name, value in key._asdict().items()}


def _is(key: ActionKey) -> ColumnElement[bool]:
    return and_(*(actions.c[name] == value for name, value in key._asdict().items()))


def _is_attempt(key: ActionKey, attempt: int) -> ColumnElement[bool]:
    same = (attempts.c[name] == value for name, value in key._asdict().items())
    return and_(*same, attempts.c.attempt == attempt)


def _values(*names: str) -> dict[str, BindParameter[object]]:
    return {name: bindparam(name) for name in names}


# built once: these stand on the way of every attempt
_RUNNING = (int(Phase.INITIALIZING), int(Phase.RUNNING))
_KEY = and_(*(actions.c[name] == bindparam(f"w_{name}") for name in ActionKey._fields))
_ATTEMPT_KEY = and_(
    *(attempts.c[name] == bindparam(f"w_{name}") for name in ActionKey._fields),
    attempts.c.attempt == bindparam("w_attempts"),
)
_BEGAN = func.coalesce(actions.c.started_at, bindparam("began"))
_COUNT = actions.c.attempts == bindparam("w_attempts")
_PHASE = prepared(select(actions.c.phase).where(_KEY))
_PERSON = prepared(select(actions.c.executed_by).where(_KEY))
_NEXT = prepared(
    select(actions.c.project, actions.c.domain, actions.c.run, actions.c.action)
    .where(_QUEUED)
    .order_by(actions.c.turn, actions.c.queued_at)
    .limit(bindparam("limit"))
)
_LEASE = prepared(
    update(actions)
    .where(_KEY, _COUNT, actions.c.phase == int(Phase.QUEUED))
    .values(phase=int(Phase.INITIALIZING), **_values("attempts"))
)
_STARTED = prepared(
    update(actions)
    .where(_KEY, _COUNT, actions.c.phase == int(Phase.INITIALIZING))
    .values(phase=int(Phase.RUNNING), started_at=_BEGAN)
)
_ATTEMPT_STARTED = prepared(
    update(attempts).where(_ATTEMPT_KEY).values(phase=int(Phase.RUNNING), started_at=bindparam("began"))
)
_FINISH = prepared(
    update(actions)
    .where(_KEY, _COUNT, or_(*(actions.c.phase == phase for phase in _RUNNING)))
    .values(started_at=_BEGAN, **_values("phase", "ended_at", "outputs_uri", "error"))
)
_COMPLETE = prepared(
    update(attempts)
    .where(_ATTEMPT_KEY, attempts.c.ended_at.is_(None))
    .values(
        started_at=func.coalesce(attempts.c.started_at, bindparam("began")),
        **_values("phase", "ended_at", "outputs_uri", "error", "has_logs"),
    )
)
