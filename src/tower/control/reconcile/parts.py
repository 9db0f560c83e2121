"""What the loops of this package work with: narrow views of other rooms, put together by `tower.main`."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol

from tower.clock import Clock
from tower.control.definitions import Definitions
from tower.control.events import Events
from tower.control.handovers import Handovers
from tower.control.rawdata import RawData
from tower.control.reconcile.ahead import Ahead
from tower.control.reconcile.bundles import Bundles
from tower.control.reconcile.plan import Ground
from tower.control.reconcile.rooms import Rooms
from tower.control.redaction import Redaction
from tower.control.starting import Starting
from tower.control.waiting import Waiting
from tower.executors.port import Executor
from tower.images.port import Builder
from tower.settings import Settings
from tower.store.database import Database, Transaction
from tower.store.runs import ActionRow


class Agent(Protocol):
    """The sockets that tell processes apart; `tower.agent.AgentSockets` has them."""

    async def open(
        self,
        key: str,
        kind: str,
        path: Path,
        /,
        *,
        workload_id: str = "",
        listener: socket.socket | None = None,
    ) -> None:
        """Listen for a workload, whose id is the key unless it is given, at the listener if there is one."""

    def register(self, key: str, pid: int, /) -> None:
        """Announce the root process of a workload."""

    async def close(self, key: str, /) -> None:
        """Stop listening and cut what is open."""


class Inputs(Protocol):
    """Finds the inputs of a run; `tower.control.inputs.Inputs` does."""

    async def read(self, row: ActionRow, /) -> bytes:
        """Serialised flyteidl2.task.Inputs."""


class Blobs(Protocol):
    """Keeps outputs; `tower.store.blobs.Blobs` does."""

    async def put_with(self, key: str, data: bytes, /) -> Callable[[Transaction], None]:
        """Store a content durably; the result is called in the transaction of what refers to it."""

    async def get(self, key: str, /, *, limit: int) -> bytes:
        """A content."""


Permit = Callable[[ActionRow, int], Awaitable[str]]
"""Whether the executor of an action may still run this attempt: "" or the reason why not."""


Watch = Callable[[str], Awaitable[str]]
"""Whether an attempt (`project/domain/run/action/attempt`) still acts for somebody: "" or why not."""


class Handle(Protocol):
    """A timer that was set."""

    def cancel(self) -> None:
        """Unset it."""


class Timers(Protocol):
    """Where the loops set their timers; tests drive their own."""

    def later(self, seconds: float, call: Callable[[], object], /) -> Handle:
        """Have `call` called in the event loop after so many seconds."""


class LoopTimers:
    """The timers of the running event loop."""

    def later(self, seconds: float, call: Callable[[], object], /) -> Handle:
        """Have `call` called after so many seconds, a day at most: who waits longer sets the timer again."""
        return asyncio.get_running_loop().call_later(min(seconds, 86_400.0), call)


@dataclass(frozen=True, slots=True)
class Parts:
    """Everything at once. `ground` is asked at each start, since the port may be known only then."""

    db: Database
    clock: Clock
    events: Events
    settings: Settings
    blobs: Blobs
    inputs: Inputs
    definitions: Definitions
    executor: Executor
    images: Builder
    agent: Agent
    bundles: Bundles
    rooms: Rooms
    permit: Permit
    ground: Callable[[], Ground]
    timers: Timers
    handovers: Handovers
    rawdata: RawData
    waiting: Waiting | None = None
    """Attempts that only wait for others need no place; None has each take one."""
    redaction: Redaction = field(default_factory=Redaction)
    """What the logs and results of what runs must not show."""
    watch: Watch | None = None
    """Asked of each running attempt when people, keys or grants change; None lets them run."""
    starting: Starting = field(default_factory=Starting)
    ahead: Ahead | None = None
    """Rooms for attempts that nobody has asked for yet; None makes each when it is needed."""
    grace: float = 5.0
    """Seconds between the request to end and the end by force."""
