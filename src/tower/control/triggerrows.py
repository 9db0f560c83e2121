"""The row of a trigger after a change, and whether a caller may stand for it. Pure."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from tower.control.grants import actors_to_text, ceilings_to_text
from tower.control.triggers import Checked
from tower.errors import Denied
from tower.identity.principal import ActorKind, Kind, Principal
from tower.identity.webhooks import ID_PREFIX as WEBHOOK_PREFIX
from tower.store.schedules import State, TriggerKey, TriggerRow


def declared_row(
    key: TriggerKey, version: str, checked: Checked, old: TriggerRow | None, *, by: str, now: float
) -> TriggerRow:
    """The row of a declaration, not active yet; the beat of an interval that is active goes on."""
    goes_on = old is not None and old.state is State.ACTIVE and old.automation == checked.automation
    return TriggerRow(
        *key,
        revision=0 if old is None else old.revision,
        version=version,
        automation=checked.automation,
        inputs=checked.inputs,
        run_spec=checked.run_spec,
        description=checked.description,
        state=State.INACTIVE,
        notice="",
        deployed_by=by,
        deployed_at=now,
        updated_by=by,
        updated_at=now,
        run_as="",
        credential_kind="",
        credential_id="",
        actors="[]",
        ceilings="[]",
        since=old.since if old is not None and goes_on else now,
        next_at=old.next_at if old is not None and goes_on and checked.active else None,
        last_at=None if old is None else old.last_at,
        last_run="" if old is None else old.last_run,
    )


def identity(principal: Principal) -> dict[str, Any]:
    """Whom runs are started as, with the limits of what was shown."""
    return {
        "run_as": principal.subject,
        "credential_kind": principal.credential.kind.value,
        "credential_id": principal.credential.root,
        "actors": actors_to_text(principal.actors),
        "ceilings": ceilings_to_text(principal.ceilings),
    }


def check_person(principal: Principal) -> None:
    """Raise Denied for a caller that cannot stand for what runs later, when nobody is there."""
    if principal.kind is Kind.MACHINE:
        raise Denied("The operator of the machine runs no tasks.", hint="Use the key of a user.")
    if any(actor.kind is ActorKind.RUN for actor in principal.actors):
        raise Denied(
            "A running task cannot activate a trigger: it would outlive the run.",
            hint="Activate it from outside: flyte update trigger NAME TASK --activate.",
        )
    if principal.credential.root.startswith(WEBHOOK_PREFIX):
        raise Denied("The delivery of a webhook cannot activate a trigger.")


def same(row: TriggerRow, old: TriggerRow) -> bool:
    """Whether a change would change nothing but when it was made."""
    kept = {
        name: getattr(old, name)
        for name in ("deployed_by", "deployed_at", "updated_by", "updated_at", "since")
    }
    return replace(row, **kept) == old
