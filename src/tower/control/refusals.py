"""Credentials that did not hold, for the audit: one record for each source and minute, not for each.

Nobody is behind them whom a record could name, and strangers send as many as they like: a record for each
would let them fill the disk. What is counted and not yet written is lost when the process is killed, no more.
"""

from __future__ import annotations

from collections import OrderedDict
from dataclasses import dataclass, field
from typing import Any

from tower.audit import Event, Outcome, Record
from tower.clock import Clock
from tower.policy.actions import Action, Resource, ResourceType

WINDOW_SECONDS = 60.0
MAX_SOURCES = 64
"""So many sources at most are told apart in one window; the others are counted as one."""

OTHERS = "others"
_MAX_KEYS = 8


@dataclass(slots=True)
class _Counted:
    since: float
    until: float
    count: int = 0
    throttled: int = 0
    doors: set[str] = field(default_factory=set)
    keys: list[str] = field(default_factory=list)


class Refusals:
    """Counts refused credentials; `take` gives out the records that are due."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._counted: OrderedDict[str, _Counted] = OrderedDict()

    def note(self, *, source: str, door: str, keys: tuple[str, ...], throttled: bool) -> None:
        """Count one. `keys` are the public ids that the credentials named, never the credentials."""
        now = self._clock.now()
        if source not in self._counted and len(self._counted) >= MAX_SOURCES:
            source = OTHERS
        found = self._counted.get(source)
        if found is None:
            found = self._counted[source] = _Counted(now, now)
        found.count += 1
        found.throttled += throttled
        found.until = now
        found.doors.add(door)
        for key in keys:
            if len(found.keys) < _MAX_KEYS and key not in found.keys:
                found.keys.append(key)

    @property
    def due(self) -> bool:
        """Whether a window is over."""
        first = next(iter(self._counted.values()), None)
        return first is not None and self._clock.now() - first.since >= WINDOW_SECONDS

    def take(self, revision: str) -> list[Record]:
        """The records of everything that was counted, which begins anew."""
        counted, self._counted = self._counted, OrderedDict()
        return [_record(source, found, revision) for source, found in counted.items()]


def _record(source: str, found: _Counted, revision: str) -> Record:
    detail: dict[str, Any] = {
        "source": source,
        "count": found.count,
        "throttled": found.throttled,
        "since": found.since,
        "until": found.until,
        "doors": sorted(found.doors),
    }
    if found.keys:
        detail["keys"] = found.keys
    return Record(
        at=found.until,
        event=Event.AUTH_REFUSE,
        outcome=Outcome.REFUSED,
        subject="",
        credential_kind="",
        credential_id="",
        action=Action.SELF_VIEW.value,
        resource=str(Resource(ResourceType.ORG)),
        decision="no-such-credential",
        policy_revision=revision,
        detail=detail,
    )
