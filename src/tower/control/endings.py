"""What the audit says of the end of an action: whose it was, which decision let it in, how it went."""

from __future__ import annotations

import json
from collections.abc import Sequence

from tower.audit import Event, Outcome, Record
from tower.policy.actions import Action, Resource, ResourceType
from tower.states import Phase
from tower.store.runs import ActionKey, ActionRow

MAX_NAMES = 100
"""So many actions at most are named in one record; their number is there besides."""


def finished(row: ActionRow, phase: Phase, *, at: float, outputs_uri: str = "") -> Record:
    """The record of an action that ran to its end, or into a failure."""
    detail: dict[str, object] = {"phase": phase.name, "action": row.action, "attempts": row.attempts}
    if outputs_uri:
        detail["outputs"] = outputs_uri
    outcome = Outcome.ALLOWED if phase is Phase.SUCCEEDED else Outcome.FAILED
    return _record(row, outcome, at=at, detail=detail)


def cancelled(row: ActionRow, *, at: float, by: str, reason: str, ended: Sequence[ActionKey]) -> Record:
    """The record of an action that was ended before its time, one for all that ended with it.

    Its subject is the person whose run it is; `by` is who ended it, "" for the end of what asked for it.
    """
    below = [key.action for key in ended if key != row.key]
    detail: dict[str, object] = {
        "phase": Phase.ABORTED.name,
        "action": row.action,
        "attempts": row.attempts,
        "aborted_by": by,
        "reason": reason,
    }
    if below:
        detail |= {"with": below[:MAX_NAMES], "with_count": len(below)}
    return _record(row, Outcome.CANCELLED, at=at, detail=detail)


def _record(row: ActionRow, outcome: Outcome, *, at: float, detail: dict[str, object]) -> Record:
    resource = Resource(ResourceType.RUN, project=row.project, domain=row.domain, name=row.run)
    return Record(
        at=at,
        event=Event.RUN_FINISH,
        outcome=outcome,
        subject=row.executed_by,
        credential_kind=row.credential_kind,
        credential_id=row.credential_id,
        actors=tuple(json.loads(row.actors)),
        action=Action.TASK_RUN.value,
        resource=str(resource),
        request_id=row.request_id or "",
        decision=row.decision,
        policy_revision=row.policy_revision,
        detail=detail,
    )
