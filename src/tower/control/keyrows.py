"""The row of a key just made, and what may stand in it."""

from __future__ import annotations

import json
from collections.abc import Collection

from tower.errors import Invalid
from tower.identity.keys import ApiKey
from tower.policy.actions import Action
from tower.policy.rules import ANY
from tower.store.identities import KeyRow


def key_row(
    made: ApiKey,
    *,
    name: str,
    subject: str,
    now: float,
    by: str,
    role: str | None = None,
    project: str = ANY,
    domain: str = ANY,
    actions: str | None = None,
    expires_at: float | None = None,
    maker: str = "",
) -> KeyRow:
    """The row of a key just made."""
    return KeyRow(
        id=made.id,
        name=name,
        subject=subject,
        role=role,
        project=project,
        domain=domain,
        created_at=now,
        created_by=by,
        expires_at=expires_at,
        last_used_at=None,
        deleted_at=None,
        actions=actions,
        maker=maker,
    )


def actions_column(names: Collection[str] | None) -> str | None:
    """The column of a list of actions. Raises Invalid for an unknown one."""
    if names is None:
        return None
    unknown = sorted(set(names) - set(Action))
    if unknown or not names:
        raise Invalid(
            f"There is no action {unknown[0][:60]}." if unknown else "The field actions is empty.",
            hint=f"Actions are {', '.join(Action)}.",
        )
    return json.dumps(sorted(set(names)))


def earliest(*ends: float | None) -> float | None:
    """The first of some ends; None is no end."""
    return min((end for end in ends if end is not None), default=None)
