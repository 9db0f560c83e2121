"""Actions that other actions of the same run asked for: which there are, and which have not ended."""

from __future__ import annotations

from sqlalchemy import bindparam, func, select

from tower.states import Phase
from tower.store.database import Reader
from tower.store.prepared import prepared
from tower.store.runs import ActionKey
from tower.store.schema import actions


def children(reader: Reader, parent: ActionKey) -> list[ActionKey]:
    """What an action asked for itself, first to last."""
    return [parent._replace(action=row.action) for row in reader.execute(_CHILDREN, _place(parent))]


def count_children(reader: Reader, parent: ActionKey) -> int:
    """How many children an action has."""
    return int(reader.execute(_COUNT, _place(parent)).scalar() or 0)


def count(reader: Reader, run: ActionKey) -> int:
    """How many actions a run has."""
    return int(reader.execute(_ALL, _place(run)).scalar() or 0)


def open_below(reader: Reader, key: ActionKey) -> list[ActionKey]:
    """Every action that has not ended among the descendants, the parents before their children."""
    found: list[ActionKey] = []
    parents = [key]
    while parents:
        parent = parents.pop()
        for row in reader.execute(_BELOW, _place(parent)):
            child = parent._replace(action=row.action)
            parents.append(child)
            if not Phase(row.phase).terminal:
                found.append(child)
    return found


def _place(key: ActionKey) -> dict[str, str]:
    return {"project": key.project, "domain": key.domain, "run": key.run, "parent": key.action}


# built once: each end of an action asks for what is open below it
_RUN = [actions.c[name] == bindparam(name) for name in ("project", "domain", "run")]
_MINE = (*_RUN, actions.c.parent == bindparam("parent"), actions.c.parent.is_not(None))
_CHILDREN = prepared(select(actions.c.action).where(*_MINE).order_by(actions.c.created_at, actions.c.action))
_BELOW = prepared(select(actions.c.action, actions.c.phase).where(*_MINE))
_COUNT = prepared(select(func.count()).select_from(actions).where(*_MINE))
_ALL = prepared(select(func.count()).select_from(actions).where(*_RUN))
