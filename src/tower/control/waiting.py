"""Which attempts only wait: for what they asked for themselves, so that their place is free for it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Container, Iterator
from contextlib import contextmanager

from tower.control.events import Events
from tower.identity.principal import ActorKind, Principal
from tower.store.runs import ActionKey, ActionRow


class Waiting:
    """One per process: the attempts that it runs wait over its own sockets.

    Only for descendants an attempt is let wait without a place. What is deepest starts first, so with `n`
    places at most `n` attempts wait at each depth, and the depth has a limit.
    """

    def __init__(self, *, events: Events) -> None:
        self._events = events
        self._keys: Counter[ActionKey] = Counter()

    def among(self, keys: Container[ActionKey]) -> int:
        """How many of these actions wait."""
        return sum(1 for key in self._keys if key in keys)

    @contextmanager
    def waiting(self, key: ActionKey) -> Iterator[None]:
        """The action waits during the block."""
        self._keys[key] += 1
        self._events.publish(("queue",))
        try:
            yield
        finally:
            self._keys[key] -= 1
            if not self._keys[key]:
                del self._keys[key]

    @contextmanager
    def for_own(self, principal: Principal, row: ActionRow) -> Iterator[None]:
        """The calling task waits for this action during the block, if it asked for it, in any attempt."""
        caller = attempt_of(principal)
        if caller is None or f'"run:{"/".join(caller[0])}/' not in row.actors:
            yield
            return
        with self.waiting(caller[0]):
            yield


def attempt_of(principal: Principal) -> tuple[ActionKey, str] | None:
    """The action that calls, and the id of its attempt; None for a caller that is no running task."""
    last = principal.actors[-1] if principal.actors else None
    if last is None or last.kind is not ActorKind.RUN:
        return None
    project, domain, run, action, _ = last.id.split("/")
    return ActionKey(project, domain, run, action), last.id
