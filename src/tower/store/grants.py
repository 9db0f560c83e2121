"""Standing grants: how long a run may act for its person. They are columns of its root action."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from sqlalchemy import ColumnElement, Row, and_, bindparam, literal_column, or_, select, update

from tower.states import Phase
from tower.store.database import Reader, Transaction
from tower.store.prepared import prepared
from tower.store.runs import ROOT, ActionKey
from tower.store.schema import actions

_OPEN: ColumnElement[bool] = literal_column(
    "actions.phase < 5"
)  # the words of the partial index ix_actions_open


@dataclass(frozen=True, slots=True)
class GrantRow:
    """One action with what it leans on; the grant itself is that of the root `a0`, times since the epoch.

    `expires_at` None: written by a version that did not record it yet.
    """

    project: str
    domain: str
    run: str
    action: str
    task_project: str
    task_domain: str
    task_name: str
    executed_by: str
    via_app: str
    credential_kind: str
    credential_id: str
    actors: str
    ceilings: str
    phase: Phase
    created_at: float
    expires_at: float | None
    revoked_at: float | None
    revoked_by: str

    @property
    def key(self) -> ActionKey:
        """Where it stands."""
        return ActionKey(self.project, self.domain, self.run, self.action)


def get(reader: Reader, key: ActionKey) -> GrantRow | None:
    """What an action leans on, or None when there is no such action."""
    row = reader.execute(_ONE, key._asdict()).first()
    return None if row is None else _grant(row)


def page(reader: Reader, *, subject: str | None, after: ActionKey | None, limit: int) -> list[GrantRow]:
    """The grants of runs that have not ended, by their place: all, or those of one subject."""
    query = select(*_COLUMNS).where(_OPEN, actions.c.action == ROOT)
    if subject is not None:
        query = query.where(actions.c.executed_by == subject)
    place = (actions.c.project, actions.c.domain, actions.c.run)
    if after is not None:
        project, domain, run = after[:3]
        query = query.where(
            or_(
                actions.c.project > project,
                and_(actions.c.project == project, actions.c.domain > domain),
                and_(actions.c.project == project, actions.c.domain == domain, actions.c.run > run),
            )
        )
    return [_grant(row) for row in reader.execute(query.order_by(*place).limit(limit))]


def revoke(tx: Transaction, key: ActionKey, *, by: str) -> bool:
    """End the grant of a run now; False when somebody did before."""
    statement = (
        update(actions)
        .where(*(actions.c[name] == value for name, value in key._asdict().items()))
        .where(actions.c.grant_revoked_at.is_(None))
        .values(grant_revoked_at=tx.now, grant_revoked_by=by)
    )
    return bool(tx.execute(statement).rowcount)


def _grant(row: Row[*tuple[Any, ...]]) -> GrantRow:
    values = dict(row._asdict())
    return GrantRow(**{**values, "phase": Phase(values["phase"])})


_OWN = {name: actions.c[f"grant_{name}"] for name in ("expires_at", "revoked_at", "revoked_by")}
_COLUMNS = tuple(
    _OWN[name].label(name) if name in _OWN else actions.c[name] for name in GrantRow.__dataclass_fields__
)
# built once: it stands on the way of every call of a task
_ONE = prepared(select(*_COLUMNS).where(*(actions.c[name] == bindparam(name) for name in ActionKey._fields)))
