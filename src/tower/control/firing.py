"""What comes of a due time: one run as the trigger's person, or a record of why there is none.

The run, its audit record, the note of the firing and the next due time are one transaction, under the key of
trigger, revision and due time. Whatever ends in between leaves the time due, and nothing starts twice.
"""

from __future__ import annotations

from dataclasses import replace

import structlog
from flyteidl2.task import common_pb2, run_pb2

from tower.audit import Event
from tower.audit import Outcome as AuditOutcome
from tower.clock import Clock, utc
from tower.control import triggers
from tower.control.access import Access
from tower.control.directory import Directory
from tower.control.grants import actors_from_text, ceilings_from_text
from tower.control.launches import Launch
from tower.control.runs import Runs
from tower.control.tasks import resource as task_resource
from tower.control.timetable import Timetable, upcoming
from tower.errors import Denied, Fault, NotFound, Unavailable
from tower.identity.principal import Actor, ActorKind, Credential, CredentialKind, Kind, Principal
from tower.policy.actions import Action
from tower.policy.engine import Decision
from tower.settings import Settings
from tower.store import schedules as store
from tower.store.database import Database, Transaction
from tower.store.runs import ActionRow
from tower.store.schedules import FiringRow, Outcome, State, TriggerRow

log = structlog.get_logger("tower.schedules")

BATCH = 100
KEPT_SECONDS = 30 * 86_400.0
"""How long it is known of a due time that it started nothing."""


_NOTHING = "started nothing"
"""What is said of a due time that was passed over, until the next run."""


class _Changed(Exception):
    """The trigger is not any more what was read: it was changed, or has fired."""


class Firing:
    """Fires what is due. One per process; several at once do no harm."""

    def __init__(
        self,
        *,
        db: Database,
        clock: Clock,
        access: Access,
        directory: Directory,
        runs: Runs,
        settings: Settings,
    ) -> None:
        self._db = db
        self._clock = clock
        self._access = access
        self._directory = directory
        self._runs = runs
        self._settings = settings

    async def next_due(self) -> float | None:
        """When the next trigger is due (seconds since the epoch), also one that is overdue."""
        return await self._db.read(store.next_due)

    async def fire_due(self) -> int:
        """Fire what is due now, as much as is read at once; how many triggers that were.

        Raises Unavailable when the store does not answer: what is due stays due.
        """
        now = self._clock.now()
        rows = await self._db.read(lambda reader: store.due(reader, now, limit=BATCH))
        for row in rows:
            await self._fire(row)
        return len(rows)

    async def _fire(self, row: TriggerRow) -> None:
        """See to one due time. Whatever goes wrong with it keeps no other from firing."""
        now = self._clock.now()
        try:
            table = triggers.table(row)
            assert table is not None
            following = table.after(now)
        except Exception as error:
            # it was read when it was deployed, with another version of the time zones for example
            log.exception("a schedule cannot be read", trigger=str(row.key))
            why = error.public if isinstance(error, Fault) else "It cannot be read."
            await self._suspend(row, why)
            return
        try:
            await self._see_to(row, table, following, now=now)
        except Unavailable:
            raise
        except Exception:
            log.exception("a schedule could not fire", trigger=str(row.key))
            reason = "An internal error; the log of Tower has it."
            await self._pass_over(row, Outcome.SKIPPED, reason, following=following)

    async def _see_to(
        self, row: TriggerRow, table: Timetable, following: float | None, *, now: float
    ) -> None:
        assert row.next_at is not None
        due = _latest(table, row.next_at, now, window=self._settings.catch_up)
        if due is None:
            reason = f"Tower was not there at {_spoken(row.next_at)}, and that was too long ago."
            await self._pass_over(row, Outcome.MISSED, reason, following=following)
            return
        principal = await self._person(row)
        if isinstance(principal, str):
            await self._suspend(row, principal)
            return
        await self._start(row, principal, due, following)

    async def _start(
        self, row: TriggerRow, principal: Principal, due: float, following: float | None
    ) -> None:
        def also(tx: Transaction, run: ActionRow) -> None:
            notice = "" if _NOTHING in row.notice else row.notice
            changes = {"next_at": following, "last_at": due, "last_run": run.run, "notice": notice}
            if not store.advance(tx, row, **changes):
                raise _Changed
            self._note(tx, row, due, Outcome.STARTED, run=run.run)
            if row.next_at is not None and due > row.next_at:
                why = f"Tower was not there; the run of {_spoken(due)} takes its place."
                self._note(tx, row, row.next_at, Outcome.MISSED, reason=why)

        asked = Launch(
            project=row.project,
            domain=row.domain,
            run_spec=run_pb2.RunSpec.FromString(row.run_spec),
            task=(row.project, row.domain, row.task),
            version=row.version,
            inputs=triggers.fill(row, common_pb2.Inputs.FromString(row.inputs), due),
        )
        # a space is in no request id that comes from outside
        request_id = f"schedule {row.key} {row.revision} {due!r}"
        try:
            await self._runs.launch(principal, asked, request_id=request_id, also=also)
        except _Changed:
            return
        except (Denied, NotFound) as fault:
            await self._suspend(row, f"{row.run_as} may not run {row.task} any more. {fault.public}")
        except Unavailable:
            raise
        except Fault as fault:
            log.warning(
                "a schedule started nothing", trigger=str(row.key), code=fault.code, cause=fault.cause
            )
            await self._pass_over(row, Outcome.SKIPPED, fault.public, following=following)

    async def _person(self, row: TriggerRow) -> Principal | str:
        """Who the run is started as, or why nobody is: what they showed when they activated must hold."""
        facts = await self._directory.subject(row.run_as)
        if facts is None or facts.disabled:
            return f"The account {row.run_as} is disabled or gone."
        key = await self._directory.key(row.credential_id) if row.credential_id else None
        if key is None and row.credential_kind == CredentialKind.API_KEY:
            return f"The key that {row.run_as} activated it with is gone."
        if key is not None:
            if key.off or key.subject != row.run_as:
                return f"The key that {row.run_as} activated it with was deleted or disabled."
            if key.expires_at is not None and key.expires_at <= self._clock.now():
                return f"The key that {row.run_as} activated it with has expired."
        try:
            actors, ceilings = actors_from_text(row.actors), ceilings_from_text(row.ceilings)
        except (TypeError, ValueError, AttributeError):
            return "The limits that it was activated with cannot be read."
        return replace(
            _principal(row),
            kind=facts.kind,
            name=facts.name,
            email=facts.email,
            actors=(*actors, _actor(row)),
            ceilings=ceilings,
        )

    async def _suspend(self, row: TriggerRow, reason: str) -> None:
        """Nothing is started until a person has looked: a refusal is not tried again every minute."""
        notice = f"Suspended at {_spoken(self._clock.now())}: {reason}"
        task = task_resource((row.project, row.domain, row.task))
        decision = Decision(
            False, ("schedule-suspended",), self._access.revision, Action.TASK_RUN.value, str(task)
        )

        def write(tx: Transaction) -> None:
            if not store.advance(tx, row, state=State.SUSPENDED, notice=notice, next_at=None):
                return
            assert row.next_at is not None
            self._note(tx, row, row.next_at, Outcome.REFUSED, reason=reason)
            self._record(tx, row, decision, event=Event.TRIGGER_SUSPEND, reason=reason)

        await self._db.write(write)
        log.warning("a schedule is suspended", trigger=str(row.key), run_as=row.run_as, reason=reason)

    async def _pass_over(
        self, row: TriggerRow, outcome: Outcome, reason: str, *, following: float | None
    ) -> None:
        """This time starts nothing, the next one may."""
        task = task_resource((row.project, row.domain, row.task))
        decision = Decision(
            False, (f"schedule-{outcome}",), self._access.revision, Action.TASK_RUN.value, str(task)
        )

        def write(tx: Transaction) -> None:
            assert row.next_at is not None
            notice = f"{_spoken(row.next_at)} {_NOTHING}: {reason}"
            if not store.advance(tx, row, next_at=following, notice=notice):
                return
            self._note(tx, row, row.next_at, outcome, reason=reason)
            self._record(tx, row, decision, event=Event.TRIGGER_MISS, reason=reason)

        await self._db.write(write)

    def _note(
        self,
        tx: Transaction,
        row: TriggerRow,
        due: float,
        outcome: Outcome,
        *,
        run: str = "",
        reason: str = "",
    ) -> None:
        firing = FiringRow(row.revision, due, tx.now, outcome, run, reason)
        store.add_firing(tx, row, firing, forget_before=tx.now - KEPT_SECONDS)

    def _record(
        self, tx: Transaction, row: TriggerRow, decision: Decision, *, event: Event, reason: str
    ) -> None:
        self._access.record(
            tx,
            _principal(row),
            decision,
            event=event,
            outcome=AuditOutcome.REFUSED if event is Event.TRIGGER_SUSPEND else AuditOutcome.FAILED,
            detail={
                "trigger": str(row.key),
                "revision": row.revision,
                "version": row.version,
                "due": row.next_at,
                "reason": reason,
            },
        )


def _principal(row: TriggerRow) -> Principal:
    """The trigger's person as the trigger names them; limits and names are not in it."""
    credential = Credential(CredentialKind.SCHEDULE, str(row.key), parent=row.credential_id)
    return Principal(row.run_as, Kind.USER, "", credential, actors=(_actor(row),))


def _actor(row: TriggerRow) -> Actor:
    return Actor(ActorKind.SCHEDULE, f"{row.key}/{row.revision}")


def _latest(table: Timetable, first: float, now: float, *, window: float) -> float | None:
    """The last due time up to now, `first` or a later one; None when it is longer ago than `window`."""
    found = first if now - first <= window else None
    for time in upcoming(table, max(first, now - window)):
        if time > now:
            break
        found = time
    return found


def _spoken(time: float) -> str:
    return utc(time).strftime("%Y-%m-%d %H:%M:%S UTC")
