"""Who used which app, for the audit: the first request at once, those that follow as a number.

An app may get thousands of requests a second, and each is decided; a record for each would tell no more. So
the first one of a caller, with one credential, at one app, under one decision is recorded before it goes on,
and what follows within the window is one more record with their number when the window is over.
"""

from __future__ import annotations

from collections import OrderedDict
from dataclasses import dataclass

from tower.audit import Event
from tower.clock import Clock
from tower.control.access import Access
from tower.identity.principal import Principal
from tower.policy.engine import Decision

WINDOW_SECONDS = 300.0
MAX_USES = 16_384
"""So many are told apart at once; beyond that the oldest window ends early."""

_Key = tuple[str, str, str, tuple[str, ...], str]


@dataclass(slots=True)
class _Use:
    principal: Principal
    decision: Decision
    since: float
    until: float
    more: int = 0


class Uses:
    """Records allowed uses of apps. One for a gateway; `Access.settle` ends the windows that are over."""

    def __init__(self, *, access: Access, clock: Clock) -> None:
        self._access = access
        self._clock = clock
        self._uses: OrderedDict[_Key, _Use] = OrderedDict()
        access.settling.append(self.settle)

    async def note(self, principal: Principal, decision: Decision, *, request_id: str) -> None:
        """Record or count one. Raises when the record cannot be written: the request must not go on then."""
        now = self._clock.now()
        key = _key(principal, decision)
        found = self._uses.get(key)
        if found is not None and now - found.since < WINDOW_SECONDS:
            found.more += 1
            found.until = now
            return
        if found is not None:
            await self._end(key)
        elif len(self._uses) >= MAX_USES:
            await self._end(next(iter(self._uses)))
        self._uses[key] = _Use(principal, decision, now, now)
        try:
            await self._access.note(principal, decision, event=Event.APP_USE, request_id=request_id)
        except BaseException:
            self._uses.pop(key, None)
            raise

    async def settle(self) -> None:
        """End the windows that are over."""
        now = self._clock.now()
        for key in [key for key, use in self._uses.items() if now - use.since >= WINDOW_SECONDS]:
            await self._end(key)

    async def close(self) -> None:
        """End every window."""
        for key in list(self._uses):
            await self._end(key)

    async def _end(self, key: _Key) -> None:
        use = self._uses.pop(key, None)
        if use is not None and use.more:
            detail = {"more": use.more, "since": use.since, "until": use.until}
            await self._access.note(use.principal, use.decision, event=Event.APP_USE, detail=detail)


def _key(principal: Principal, decision: Decision) -> _Key:
    return (
        principal.subject,
        principal.credential.root,
        decision.resource,
        decision.policies,
        decision.revision,
    )
