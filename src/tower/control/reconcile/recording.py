"""The commits of an attempt's life: rows, audit record and the news of it, all or nothing."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass

from tower.control import endings
from tower.control.events import Events
from tower.control.reconcile.outcome import Failure, error_json
from tower.states import Phase
from tower.store import attempts as store
from tower.store import audit, family
from tower.store.attempts import End
from tower.store.database import Database, Transaction
from tower.store.runs import ActionKey, ActionRow, abort, attempts_of, get

MAX_SYSTEM_FAILURES = 3
MAX_RESTARTS = 10
RESTARTED = "TowerRestarted"
STOPPED = "TowerStopped"


@dataclass(frozen=True, slots=True)
class Seen:
    """What was seen of an attempt until its end."""

    has_logs: bool
    started_at: float | None


class Recording:
    """Writes what happened. Every method returns after the commit."""

    def __init__(self, *, db: Database, events: Events) -> None:
        self._db = db
        self._events = events

    async def lease(self, row: ActionRow) -> ActionRow | None:
        """Begin the next attempt of a queued action; None when it is not queued any more.

        It need not reach the disk: a power cut that takes it takes the attempt too, and the action is queued.
        """

        def write(tx: Transaction) -> ActionRow | None:
            leased = store.lease(tx, row)
            if leased is not None:
                tx.after_commit(self._news(row.key))
            return leased

        return await self._db.write(write, durable=False)

    async def started(self, key: ActionKey, attempt: int, *, at: float) -> None:
        """The process exists."""

        def write(tx: Transaction) -> None:
            if store.started(tx, key, attempt, at):
                tx.after_commit(self._news(key))

        await self._db.write(write, durable=False)

    async def has_logs(self, key: ActionKey, attempt: int) -> None:
        """There is output to look at while it runs."""

        def write(tx: Transaction) -> None:
            store.has_logs(tx, key, attempt)
            tx.after_commit(self._news(key))

        await self._db.write(write, durable=False)

    async def succeeded(
        self, row: ActionRow, *, outputs_uri: str, outputs: Callable[[Transaction], None], seen: Seen
    ) -> None:
        """The outputs are at the URI; the callable completes that in the transaction."""
        end = End(
            Phase.SUCCEEDED,
            outputs_uri=outputs_uri,
            has_logs=seen.has_logs,
            started_at=seen.started_at,
        )

        def write(tx: Transaction) -> None:
            outputs(tx)
            self._finish(tx, row, end)

        await self._db.write(write)

    async def failed(self, row: ActionRow, failure: Failure, *, seen: Seen) -> None:
        """The attempt failed: another one is due, or the action failed with it."""
        end = End(Phase.FAILED, error=failure.json(), has_logs=seen.has_logs, started_at=seen.started_at)

        def write(tx: Transaction) -> None:
            if failure.retry and _another(tx, row, failure):
                store.requeue(tx, row.key, row.attempts, end)
                tx.after_commit(self._news(row.key, queue=True))
            else:
                self._finish(tx, row, end)

        await self._db.write(write)

    async def timed_out(self, row: ActionRow, *, seconds: float, seen: Seen) -> None:
        """The attempt ran too long."""
        error = error_json(
            f"The attempt ran longer than {seconds:g} seconds.", kind="user", code="MAX_RUNTIME_EXCEEDED"
        )
        end = End(Phase.TIMED_OUT, error=error, has_logs=seen.has_logs, started_at=seen.started_at)
        await self._db.write(lambda tx: self._finish(tx, row, end))

    async def stopped(self, row: ActionRow, *, seen: Seen) -> None:
        """Tower stops: the action waits for the next start."""
        error = error_json("Tower was stopped while this attempt ran.", kind="system", code=STOPPED)
        end = End(Phase.ABORTED, error=error, has_logs=seen.has_logs, started_at=seen.started_at)

        def write(tx: Transaction) -> None:
            store.requeue(tx, row.key, row.attempts, end)
            tx.after_commit(self._news(row.key))

        await self._db.write(write)

    async def over(self, row: ActionRow, *, seen: Seen) -> None:
        """Somebody else ended the action (an abort); the attempt's own row follows."""
        end = End(Phase.ABORTED, has_logs=seen.has_logs, started_at=seen.started_at)

        def write(tx: Transaction) -> None:
            store.finish(tx, row.key, row.attempts, end)
            tx.after_commit(self._news(row.key))

        await self._db.write(write)

    async def expire_queued(self, row: ActionRow, *, waited: float) -> None:
        """The action waited too long."""
        error = error_json(
            f"The run waited longer than {waited:g} seconds to start.",
            kind="user",
            code="QUEUED_TIMEOUT_EXCEEDED",
        )

        def write(tx: Transaction) -> None:
            if store.expire_queued(tx, row.key, error):
                self._record(tx, row, Phase.TIMED_OUT)
                self._end_below(tx, row)
                tx.after_commit(self._news(row.key))

        await self._db.write(write)

    async def recover(self) -> int:
        """Requeue what a former life of Tower left started; answers how many actions that were."""
        rows = await self._db.read(store.stranded)
        error = error_json("Tower restarted while this attempt ran.", kind="system", code=RESTARTED)
        end = End(Phase.FAILED, error=error)

        def write(tx: Transaction) -> None:
            for row in rows:
                ended = [json.loads(each.error)["code"] for each in attempts_of(tx, row.key) if each.error]
                if ended.count(RESTARTED) >= MAX_RESTARTS:
                    self._finish(tx, row, end)
                    continue
                store.requeue(tx, row.key, row.attempts, end)
                tx.after_commit(self._news(row.key, queue=True))

        if rows:
            await self._db.write(write)
        return len(rows)

    def _finish(self, tx: Transaction, row: ActionRow, end: End) -> None:
        if store.finish(tx, row.key, row.attempts, end):
            self._record(tx, row, end.phase, end.outputs_uri)
            self._end_below(tx, row)
        tx.after_commit(self._news(row.key))

    def _end_below(self, tx: Transaction, row: ActionRow) -> None:
        """What an action asked for ends with it."""
        reason = f"The action {row.action}, which asked for this one, has ended."
        ended = [key for key in family.open_below(tx, row.key) if abort(tx, key, reason=reason, by="")]
        for key in ended:
            tx.after_commit(self._news(key, queue=True))
        first = get(tx, ended[0]) if ended else None
        if first is not None:
            audit.append(tx, endings.cancelled(first, at=tx.now, by="", reason=reason, ended=ended))

    @staticmethod
    def _record(tx: Transaction, row: ActionRow, phase: Phase, outputs_uri: str = "") -> None:
        audit.append(tx, endings.finished(row, phase, at=tx.now, outputs_uri=outputs_uri))

    def _news(self, key: ActionKey, *, queue: bool = False) -> Callable[[], None]:
        topics: list[tuple[str, ...]] = [("action", *key), ("runs", key.project, key.domain)]
        if queue:
            topics.append(("queue",))
        return lambda: self._events.publish(*topics)


def _another(tx: Transaction, row: ActionRow, failure: Failure) -> bool:
    """Whether the action has an attempt left: failures of the code and of the system are counted apart."""
    kinds = [
        (error["kind"], error["code"])
        for each in attempts_of(tx, row.key)
        if each.attempt < row.attempts and each.error and (error := json.loads(each.error))
    ]
    if failure.user:
        return [kind for kind, _ in kinds].count("user") + 1 < row.max_attempts
    system = [kind for kind, code in kinds if kind == "system" and code not in {RESTARTED, STOPPED}]
    return len(system) + 1 <= MAX_SYSTEM_FAILURES
