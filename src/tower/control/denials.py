"""What known callers were refused, or gave up, for the audit: nobody fills the trail by being turned away.

The first refusal of a caller, with one credential, of one action on one thing for one reason, is a record
before it is answered; those that follow within a minute are one more record with their number. A caller who
asks about ever new things has only so many records of their own in a minute; what goes beyond is counted by
action, with some of the things as samples.
"""

from __future__ import annotations

import json
from collections import OrderedDict
from collections.abc import Hashable

from tower.clock import Clock
from tower.control.repeats import Due, Repeats, Sighting

WINDOW_SECONDS = 60.0
MAX_KINDS = 4096
"""So many are told apart at once, of all callers; beyond that the oldest window ends early."""

DISTINCT = 60
"""So many different refusals of one person have a record each in one window."""

_MAX_CALLERS = 4096


class Denials:
    """Counts refusals and cancellations of known callers. One for an `Access`, which writes them."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self.repeats = Repeats(clock, seconds=WINDOW_SECONDS, capacity=MAX_KINDS)
        self._callers: OrderedDict[str, tuple[float, int]] = OrderedDict()

    def note(self, sighting: Sighting) -> list[Due]:
        """Note one; what is to be written before it is answered."""
        key = _exact(sighting)
        if key not in self.repeats and not self._room(sighting.principal.subject):
            key = _crowd(sighting)
        return self.repeats.note(key, sighting)

    def _room(self, subject: str) -> bool:
        """Whether this person may have one more record of their own now; it is taken."""
        now = self._clock.now()
        since, taken = self._callers.pop(subject, (now, 0))
        if now - since >= WINDOW_SECONDS:
            since, taken = now, 0
        self._callers[subject] = since, min(taken + 1, DISTINCT + 1)
        if len(self._callers) > _MAX_CALLERS:
            self._callers.popitem(last=False)
        return taken < DISTINCT


def _exact(sighting: Sighting) -> Hashable:
    principal, decision = sighting.principal, sighting.decision
    return (
        sighting.event,
        sighting.outcome,
        principal.subject,
        principal.credential.root,
        principal.actors,
        decision.action,
        decision.resource,
        decision.policies,
        json.dumps(dict(sighting.detail), sort_keys=True, default=str) if sighting.detail else "",
    )


def _crowd(sighting: Sighting) -> Hashable:
    return (sighting.event, sighting.outcome, sighting.principal.subject, sighting.decision.action)
