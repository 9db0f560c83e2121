"""Who waits for what: commits publish, loops and watch streams subscribe. In process, no polling."""

from __future__ import annotations

import asyncio
from collections import defaultdict
from collections.abc import AsyncIterator, Hashable
from contextlib import contextmanager
from typing import Any, Protocol


class Waiter(Protocol):
    """Who is told of a publication."""

    def set(self) -> None:
        """There was one."""


class Events:
    """A broadcast by topic inside one event loop.

    Topics in use:

    - `("queue",)`: something may be startable
    - `("action", project, domain, run, action)`: the action changed
    - `("runs", project, domain)`: a run of the domain changed
    - `("app", project, domain, name)`: the app changed
    - `("people",)`: an account, a key, a webhook or a grant changed
    - `("log", id)`: more output of an attempt (`project/domain/run/action/attempt`) or an app
      (`project/domain/name`)

    A subscriber is only told *that* something changed and reads the state itself: a slow one loses nothing.
    """

    def __init__(self) -> None:
        self._waiters: dict[Hashable, set[Waiter]] = defaultdict(set)

    def publish(self, *topics: Hashable) -> None:
        """Wake every subscriber of the topics. Call it in the event loop, after the commit."""
        for topic in topics:
            for waiter in self._waiters.get(topic, ()):
                waiter.set()

    def join(self, topic: Hashable, waiter: Waiter) -> None:
        """Tell `waiter` of each publication until it parts: for who must know which of many topics it was."""
        self._waiters[topic].add(waiter)

    def part(self, topic: Hashable, waiter: Waiter) -> None:
        """The end of `join`."""
        self._waiters[topic].discard(waiter)
        if not self._waiters[topic]:
            del self._waiters[topic]

    @contextmanager
    def joined(self, topic: Hashable, waiter: Waiter) -> Any:
        """`join` for a block."""
        self.join(topic, waiter)
        try:
            yield waiter
        finally:
            self.part(topic, waiter)

    @contextmanager
    def subscribe(self, *topics: Hashable) -> Any:
        """Subscribe for a block: yields an `asyncio.Event` that is set by each publication.

        Subscribe before reading the state, clear before reading it again, and no change is missed.
        """
        waiter = asyncio.Event()
        for topic in topics:
            self.join(topic, waiter)
        try:
            yield waiter
        finally:
            for topic in topics:
                self.part(topic, waiter)

    async def changes(self, *topics: Hashable) -> AsyncIterator[None]:
        """Yield once at once and then after each publication; for streams that send the state each time."""
        with self.subscribe(*topics) as waiter:
            while True:
                waiter.clear()
                yield
                await waiter.wait()
