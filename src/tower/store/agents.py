"""Rows of agents on other nodes: who holds the token of an attempt."""

from __future__ import annotations

from dataclasses import dataclass

from sqlalchemy import ColumnElement, bindparam, delete, select, update

from tower.store.database import Reader, Transaction
from tower.store.schema_agents import agents

Place = tuple[str, str, str, str, int]
"""Project, domain, run, action and attempt."""

_NAMES = ("project", "domain", "run", "action", "attempt")


@dataclass(frozen=True, slots=True)
class AgentRow:
    """The one key that may hold tokens of an attempt; `ended_at` when it may no more, and `why`."""

    key: bytes
    created_at: float
    ended_at: float | None
    why: str


def get(reader: Reader, place: Place) -> AgentRow | None:
    """The agent of an attempt, or None."""
    row = reader.execute(_ONE, dict(zip(_NAMES, place, strict=True))).first()
    return None if row is None else AgentRow(*row)


def add(tx: Transaction, place: Place, key: bytes) -> None:
    """The ticket of an attempt was exchanged by the holder of this key."""
    tx.insert(agents, **dict(zip(_NAMES, place, strict=True)), key=key, created_at=tx.now)


def replace(tx: Transaction, place: Place, key: bytes) -> None:
    """Another agent took over."""
    values = {"key": key, "created_at": tx.now, "ended_at": None, "why": ""}
    tx.execute(update(agents).where(*_is(place)).values(**values))


def end(tx: Transaction, place: Place, *, why: str) -> bool:
    """What the agent holds is refused from now on; False when it was already."""
    statement = update(agents).where(*_is(place), agents.c.ended_at.is_(None))
    return bool(tx.execute(statement.values(ended_at=tx.now, why=why)).rowcount)


def remove(tx: Transaction, place: Place) -> None:
    """Forget the agent of an attempt that is over."""
    tx.execute(delete(agents).where(*_is(place)))


def _is(place: Place) -> list[ColumnElement[bool]]:
    return [agents.c[name] == value for name, value in zip(_NAMES, place, strict=True)]


# built once: it stands on the way of every call through an agent
_ONE = select(agents.c.key, agents.c.created_at, agents.c.ended_at, agents.c.why).where(
    *(agents.c[name] == bindparam(name) for name in _NAMES)
)
