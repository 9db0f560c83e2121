"""What happens too often to have a record each: the first at once, those that follow as a number.

A window begins with the first of a kind, which is a record; what follows within it is counted, and one more
record with the number is due when the window is over. Memory is bounded: beyond `capacity` the oldest window
ends early. What is counted and not yet written is lost when the process is killed, no more.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from tower.audit import Event, Outcome
from tower.clock import Clock
from tower.identity.principal import Principal
from tower.policy.actions import Resource, ResourceType
from tower.policy.engine import Decision

_SAMPLES = 8
_NOTHING: Mapping[str, Any] = {}


@dataclass(frozen=True, slots=True)
class Sighting:
    """One decision about a known caller, as it goes on record."""

    principal: Principal
    decision: Decision
    event: Event
    outcome: Outcome
    request_id: str = ""
    detail: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Due:
    """A record to be written now: of a first one, or with `window` of those that followed it."""

    key: Hashable
    sighting: Sighting
    window: Window | None = None


@dataclass(slots=True)
class Window:
    """Those of one kind since the first."""

    last: Sighting
    since: float
    until: float
    ends: float
    more: int = 0
    resources: list[str] = field(default_factory=list)

    def add(self, sighting: Sighting, now: float) -> None:
        """Count one."""
        self.more += 1
        self.last, self.until = sighting, now
        self._sample(sighting.decision.resource)

    def merge(self, other: Window) -> None:
        """Count those of an earlier window, too."""
        self.more += other.more
        self.since = min(self.since, other.since)
        for resource in other.resources:
            self._sample(resource)

    def sighting(self) -> Sighting:
        """The last one, with the number of them all; about no thing where they were about several."""
        told: dict[str, Any] = {"more": self.more, "since": self.since, "until": self.until}
        decision, detail = self.last.decision, self.last.detail
        if len(self.resources) > 1:
            decision = replace(decision, resource=str(Resource(ResourceType.ORG)))
            detail, told["resources"] = _NOTHING, self.resources
        return replace(self.last, decision=decision, detail={**detail, **told})

    def _sample(self, resource: str) -> None:
        if len(self.resources) < _SAMPLES and resource not in self.resources:
            self.resources.append(resource)


class Repeats:
    """Says what is to be written of what is noted; `Access` writes it."""

    def __init__(self, clock: Clock, *, seconds: float, capacity: int) -> None:
        self._clock = clock
        self._seconds = seconds
        self._capacity = capacity
        self._windows: OrderedDict[Hashable, Window] = OrderedDict()

    def __contains__(self, key: Hashable) -> bool:
        """Whether a window of this kind is open: then the next of them is only counted."""
        found = self._windows.get(key)
        return found is not None and self._clock.now() < found.ends

    def note(self, key: Hashable, sighting: Sighting) -> list[Due]:
        """Note one. What is to be written before the caller goes on; nothing for one that was counted."""
        now = self._clock.now()
        found = self._windows.get(key)
        if found is not None and now < found.ends:
            found.add(sighting, now)
            return []
        over = []
        if found is not None:
            over.append(key)
        elif len(self._windows) >= self._capacity:
            over.append(next(iter(self._windows)))
        due = self._end(over)
        self._windows[key] = Window(
            sighting, now, now, now + self._seconds, resources=[sighting.decision.resource]
        )
        return [*due, Due(key, sighting)]

    def settle(self, *, everything: bool = False) -> list[Due]:
        """End the windows that are over, or all of them; the numbers to be written."""
        now = self._clock.now()
        return self._end([key for key, each in self._windows.items() if everything or now >= each.ends])

    def failed(self, due: Sequence[Due]) -> None:
        """Take back what could not be written: numbers are counted on, the next one of a kind is a first."""
        now = self._clock.now()
        for each in due:
            found = self._windows.get(each.key)
            if each.window is not None:
                kept = found or each.window
                if found is not None:
                    found.merge(each.window)
                self._windows[each.key] = kept
                kept.ends = min(kept.ends, now)
            elif found is not None and not found.more:
                del self._windows[each.key]
            elif found is not None:
                found.ends = now

    def _end(self, keys: Sequence[Hashable]) -> list[Due]:
        ended = [(key, self._windows.pop(key)) for key in keys]
        return [Due(key, window.sighting(), window) for key, window in ended if window.more]
