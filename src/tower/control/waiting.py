"""Places for attempts: which attempts only wait, so that theirs is free, and who can have one at once."""

from __future__ import annotations

from collections import Counter
from collections.abc import Container, Iterator
from contextlib import contextmanager
from typing import Protocol

from tower.control.events import Events
from tower.identity.principal import ActorKind, Principal
from tower.store.runs import ActionKey, ActionRow


class Place(Protocol):
    """Room for one action, taken before the action is stored."""

    def begin(self, row: ActionRow) -> None:
        """The action is stored, its first attempt with it: start that. In the event loop."""

    def give_back(self) -> None:
        """The action was not stored. Nothing happens after `begin`."""


class Places(Protocol):
    """Gives out room; the loop of runs does."""

    def take(self, key: ActionKey) -> Place | None:
        """Room for an action that is about to be stored; None when it is to wait its turn like any other."""


class Waiting:
    """One per process: the attempts that it runs wait over its own sockets.

    Only for descendants an attempt is let wait without a place. What is deepest starts first, so with `n`
    places at most `n` attempts wait at each depth, and the depth has a limit.
    """

    def __init__(self, *, events: Events) -> None:
        self._events = events
        self._keys: Counter[ActionKey] = Counter()
        self.places: Places | None = None
        """Set by the loop of runs, once it starts any."""

    def take(self, key: ActionKey) -> Place | None:
        """Room to start an action at once, where there is some."""
        return None if self.places is None else self.places.take(key)

    def among(self, keys: Container[ActionKey]) -> int:
        """How many of these actions wait."""
        return sum(1 for key in self._keys if key in keys)

    def waits(self, key: ActionKey) -> bool:
        """Whether this action waits."""
        return key in self._keys

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
