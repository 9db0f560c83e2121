"""The queue of actions and the rows of attempts, each step a compare-and-set: the late change nothing."""

from __future__ import annotations

from dataclasses import dataclass

from sqlalchemy import ColumnElement, and_, func, literal_column, select, update

from tower.states import Phase
from tower.store import runs
from tower.store.database import Reader, Transaction
from tower.store.runs import ActionKey, ActionRow
from tower.store.schema import actions, attempts

# the words of the partial index ix_actions_open
_OPEN: ColumnElement[bool] = literal_column("actions.phase < 5")
_QUEUED = and_(_OPEN, actions.c.phase == int(Phase.QUEUED))
_STARTED = (int(Phase.INITIALIZING), int(Phase.RUNNING))


@dataclass(frozen=True, slots=True)
class End:
    """How an attempt ended. `error` is JSON (message, kind user|system, code) or ""."""

    phase: Phase
    outputs_uri: str = ""
    error: str = ""
    has_logs: bool = False


def queued(reader: Reader, limit: int) -> list[ActionKey]:
    """The actions that wait longest."""
    statement = (
        select(actions.c.project, actions.c.domain, actions.c.run, actions.c.action)
        .where(_QUEUED)
        .order_by(actions.c.queued_at)
        .limit(limit)
    )
    return [ActionKey(*row) for row in reader.execute(statement)]


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
    found = reader.execute(select(actions.c.phase).where(_is(key))).scalar()
    return None if found is None else Phase(found)


def stranded(reader: Reader) -> list[ActionRow]:
    """Actions that were started: right after a start of Tower those of its former life."""
    statement = select(actions.c.project, actions.c.domain, actions.c.run, actions.c.action).where(
        _OPEN, actions.c.phase.in_(_STARTED)
    )
    keys = [ActionKey(*row) for row in reader.execute(statement)]
    return [row for key in keys if (row := runs.get(reader, key)) is not None]


def lease(tx: Transaction, key: ActionKey) -> ActionRow | None:
    """Take a queued action and begin its next attempt; None when it is not queued any more."""
    taken = tx.execute(
        update(actions)
        .where(_is(key), actions.c.phase == int(Phase.QUEUED))
        .values(phase=int(Phase.INITIALIZING), attempts=actions.c.attempts + 1)
    )
    if not taken.rowcount:
        return None
    row = runs.get(tx, key)
    assert row is not None
    tx.insert(
        attempts,
        project=key.project,
        domain=key.domain,
        run=key.run,
        action=key.action,
        attempt=row.attempts,
        phase=int(Phase.INITIALIZING),
        created_at=tx.now,
    )
    return row


def started(tx: Transaction, key: ActionKey, attempt: int) -> bool:
    """The process of an attempt exists; False when the attempt is over already."""
    moved = tx.execute(
        update(actions)
        .where(_is(key), actions.c.phase == int(Phase.INITIALIZING), actions.c.attempts == attempt)
        .values(phase=int(Phase.RUNNING), started_at=func.coalesce(actions.c.started_at, tx.now))
    )
    if moved.rowcount:
        tx.execute(
            update(attempts)
            .where(_is_attempt(key, attempt))
            .values(phase=int(Phase.RUNNING), started_at=tx.now)
        )
    return bool(moved.rowcount)


def finish(tx: Transaction, key: ActionKey, attempt: int, end: End) -> bool:
    """End the attempt and its action; False when something else (an abort, say) ended the action before.

    The attempt's own row is completed in both cases.
    """
    moved = tx.execute(
        update(actions)
        .where(_is(key), actions.c.phase.in_(_STARTED), actions.c.attempts == attempt)
        .values(phase=int(end.phase), ended_at=tx.now, outputs_uri=end.outputs_uri, error=end.error)
    )
    if moved.rowcount:
        complete(tx, key, attempt, end)
    else:
        row = runs.get(tx, key)
        phase = row.phase if row is not None and row.phase.terminal else Phase.ABORTED
        complete(tx, key, attempt, End(phase, has_logs=end.has_logs))
    return bool(moved.rowcount)


def requeue(tx: Transaction, key: ActionKey, attempt: int, end: End) -> bool:
    """End the attempt and let its action wait for another one; False when the action is over already."""
    moved = tx.execute(
        update(actions)
        .where(_is(key), actions.c.phase.in_(_STARTED), actions.c.attempts == attempt)
        .values(phase=int(Phase.QUEUED), queued_at=tx.now)
    )
    if moved.rowcount:
        complete(tx, key, attempt, end)
    else:
        row = runs.get(tx, key)
        phase = row.phase if row is not None and row.phase.terminal else Phase.ABORTED
        complete(tx, key, attempt, End(phase, has_logs=end.has_logs))
    return bool(moved.rowcount)


def expire_queued(tx: Transaction, key: ActionKey, error: str) -> bool:
    """End an action that waited too long; False when it does not wait any more."""
    moved = tx.execute(
        update(actions)
        .where(_is(key), actions.c.phase == int(Phase.QUEUED))
        .values(phase=int(Phase.TIMED_OUT), ended_at=tx.now, error=error)
    )
    return bool(moved.rowcount)


def complete(tx: Transaction, key: ActionKey, attempt: int, end: End) -> None:
    """Write the end into an attempt's row, unless it has one."""
    tx.execute(
        update(attempts)
        .where(_is_attempt(key, attempt), attempts.c.ended_at.is_(None))
        .values(
            phase=int(end.phase),
            ended_at=tx.now,
            outputs_uri=end.outputs_uri,
            error=end.error,
            has_logs=end.has_logs,
        )
    )


def has_logs(tx: Transaction, key: ActionKey, attempt: int) -> None:
    """Note that an attempt has printed something."""
    tx.execute(update(attempts).where(_is_attempt(key, attempt)).values(has_logs=True))


def _is(key: ActionKey) -> ColumnElement[bool]:
    return and_(
        actions.c.project == key.project,
        actions.c.domain == key.domain,
        actions.c.run == key.run,
        actions.c.action == key.action,
    )


def _is_attempt(key: ActionKey, attempt: int) -> ColumnElement[bool]:
    return and_(
        attempts.c.project == key.project,
        attempts.c.domain == key.domain,
        attempts.c.run == key.run,
        attempts.c.action == key.action,
        attempts.c.attempt == attempt,
    )
