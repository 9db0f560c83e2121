"""Who used which app, for the audit: the first request at once, those that follow as a number.

An app may get thousands of requests a second, and each is decided; a record for each would tell no more. So
the first one of a caller, with one credential, at one app, under one decision is recorded before it goes on,
and what follows within the window is one more record with their number when the window is over.
"""

from __future__ import annotations

from tower.audit import Event, Outcome
from tower.clock import Clock
from tower.control.access import Access
from tower.control.repeats import Repeats, Sighting
from tower.identity.principal import Principal
from tower.policy.engine import Decision

WINDOW_SECONDS = 300.0
MAX_USES = 16_384
"""So many are told apart at once; beyond that the oldest window ends early."""


class Uses:
    """Records allowed uses of apps. One for a gateway; `Access.settle` writes what is over."""

    def __init__(self, *, access: Access, clock: Clock) -> None:
        self._access = access
        self._repeats = Repeats(clock, seconds=WINDOW_SECONDS, capacity=MAX_USES)
        access.settling.append(self._repeats)

    async def note(self, principal: Principal, decision: Decision, *, request_id: str) -> None:
        """Record or count one. Raises when the record cannot be written: the request must not go on then."""
        key = (
            principal.subject,
            principal.credential.root,
            decision.resource,
            decision.policies,
            decision.revision,
        )
        sighting = Sighting(principal, decision, Event.APP_USE, Outcome.ALLOWED, request_id)
        await self._access.write(self._repeats, self._repeats.note(key, sighting))

    async def close(self) -> None:
        """End every window."""
        await self._access.write(self._repeats, self._repeats.settle(everything=True))
