"""One listening socket per workload: the socket is the credential, held by the kernel's word on the peer.

A connection is served only when its peer is of the workload's process tree, and a request only when it
carries the header `x-flyte-agent: 1`, which no browser and no redirected fetch sends (T8).
"""

from __future__ import annotations

import asyncio
import os
import socket
from collections import Counter
from collections.abc import Awaitable, Callable, MutableMapping
from contextlib import suppress
from enum import StrEnum
from pathlib import Path
from typing import Any

import structlog
import uvicorn
from uvicorn.server import ServerState

from tower.agent.attest import Birth, Peer, birth, descends, hosted, peer
from tower.agent.metrics import CALLS, REFUSALS
from tower.protocol import Bounded

_HEADER = (b"x-flyte-agent", b"1")
_BACKLOG = 128
_LONGEST_PATH = 107
_LARGEST_EARLY = 1 << 20
_SECONDS_TO_READ = 1.0
MOST_CONNECTIONS = 256
"""Open at a time for one workload: each takes one of the descriptors that there are for everybody."""

_MOST_REFUSED = 32
_MOST_LINES = 10
_REFUSED = (
    b"HTTP/1.1 403 Forbidden\r\ncontent-type: text/plain\r\ncontent-length: 38\r\n"
    b"connection: close\r\n\r\nThis socket belongs to another process"
)
_CROWDED = (
    b"HTTP/1.1 503 Service Unavailable\r\ncontent-type: text/plain\r\ncontent-length: 30\r\n"
    b"retry-after: 1\r\nconnection: close\r\n\r\nToo many connections are open."
)

Message = MutableMapping[str, Any]
App = Callable[
    [MutableMapping[str, Any], Callable[[], Awaitable[Message]], Callable[[Message], Awaitable[None]]],
    Awaitable[None],
]
Name = Callable[[str, str, int], object]
"""Makes the value for `scope["state"]["workload"]` of a kind, a workload id and the peer's process id."""

log = structlog.get_logger("tower.agent")


class Kind(StrEnum):
    """What a socket belongs to; the values are those of `tower.identity.workload.WorkloadKind`."""

    ATTEMPT = "attempt"
    APP = "app"
    ADMIN = "admin"


class Refusals(StrEnum):
    """Why a connection or request was turned away; `CROWDED`: the workload has too many open."""

    STRANGER = "stranger"
    UNREGISTERED = "unregistered"
    HEADER = "header"
    CROWDED = "crowded"


class AgentSockets:
    """Opens, serves and closes the sockets. `counts` has `served`, and one number per refusal."""

    def __init__(self, app: App, *, name: Name, patience: float = 15.0) -> None:
        """Serve `app`; a connection waits `patience` seconds for the announcement of the root process."""
        self.counts: Counter[str] = Counter()
        self.config = uvicorn.Config(
            _guarded(app, self.counts),
            http="httptools",
            ws="none",
            lifespan="off",
            log_config=None,
            access_log=False,
            proxy_headers=False,
            server_header=False,
            date_header=False,
            timeout_keep_alive=60,
        )
        self.config.load()
        self.name = name
        self.patience = patience
        self._doors: dict[str, _Door] = {}

    @property
    def open_sockets(self) -> int:
        """How many sockets listen now."""
        return len(self._doors)

    async def open(
        self,
        key: str,
        kind: Kind | str,
        path: Path,
        *,
        workload_id: str = "",
        listener: socket.socket | None = None,
    ) -> None:
        """Listen at `path` for a workload; its folder must be private. Raises OSError, ValueError.

        `key` names the socket for `register` and `close`. It is the workload's id, unless two processes of
        one workload overlap, as the revisions of an app do: then that is `workload_id`. A `listener` that
        somebody else bound there is taken over; its path is theirs to remove.
        """
        if key in self._doors:
            raise ValueError(f"{key} has a socket already")
        door = _Door(self, workload_id=workload_id or key, kind=Kind(kind))
        self._doors[key] = door
        try:
            await door.listen(path, listener)
        except BaseException:
            del self._doors[key]
            raise

    def register(self, key: str, pid: int, *, started: int | None = None) -> None:
        """Announce the root process of a workload; callers of its tree are served from now on.

        `started` is when it began, in clock ticks since the boot, where somebody else looked before.
        """
        door = self._doors.get(key)
        if door is not None:
            root = birth(pid)
            door.register(root if started is None or root is None or root.started == started else None)

    async def close(self, key: str) -> None:
        """Stop listening and cut the connections that are open. Nothing happens for an unknown key."""
        door = self._doors.pop(key, None)
        if door is not None:
            await door.close()

    async def close_all(self) -> None:
        """Close every socket."""
        await asyncio.gather(*(self.close(key) for key in list(self._doors)))


class _Door:
    """One listening socket with its live connections."""

    def __init__(self, owner: AgentSockets, *, workload_id: str, kind: Kind) -> None:
        self.owner = owner
        self.workload_id = workload_id
        self.kind = kind
        self.state = ServerState()
        self.registered = asyncio.Event()
        self.transports: set[asyncio.Transport] = set()
        self.admitted = 0
        self.turned_away = 0
        self._second, self._lines = 0.0, 0
        self._root: Birth | None = None
        self._server: asyncio.AbstractServer | None = None
        self._path: Path | None = None

    async def listen(self, path: Path, listener: socket.socket | None) -> None:
        if listener is None:
            listener = listening(path)
            self._path = path
        try:
            self._server = await asyncio.get_running_loop().create_unix_server(
                lambda: _Attested(self), sock=listener, backlog=_BACKLOG
            )
        except BaseException:
            listener.close()
            raise

    def register(self, root: Birth | None) -> None:
        self._root = root
        self.registered.set()

    def judge(self, caller: Peer) -> bool | None:
        """Whether this peer may speak; None when nobody can say yet."""
        if self.kind is Kind.ADMIN:
            return caller.uid == os.getuid() and not self._hosted(caller)
        if not self.registered.is_set():
            return None
        return self._root is not None and descends(caller.pid, self._root)

    @staticmethod
    def _hosted(caller: Peer) -> bool:
        """Whether this is a task or an app: they may run as the server's user, but never administer it (T1).

        One that left its parents is no descendant any more, and is known by the launcher's mark.
        """
        server = birth(os.getpid())
        if caller.pid == os.getpid():
            return False
        return server is None or descends(caller.pid, server) or hosted(caller.pid)

    def refused(self, reason: Refusals, caller: Peer) -> None:
        """Count a refusal. Of many in a second only some have a line: whoever knocks fills no log."""
        self.owner.counts[reason] += 1
        REFUSALS[reason.value].inc()
        now = asyncio.get_running_loop().time()
        if now - self._second >= 1.0:
            self._second, self._lines = now, 0
        self._lines += 1
        if self._lines > _MOST_LINES:
            return
        log.warning(
            "connection refused",
            reason=str(reason),
            workload=self.workload_id,
            peer_pid=caller.pid,
            peer_uid=caller.uid,
            **({"more": "not logged"} if self._lines == _MOST_LINES else {}),
        )

    def workload(self, caller: Peer) -> object:
        return self.owner.name(self.kind, self.workload_id, caller.pid)

    async def close(self) -> None:
        if self._server is not None:
            self._server.close()
        for transport in list(self.transports):
            transport.abort()
        for task in list(self.state.tasks):
            task.cancel()
        self.registered.set()
        if self._path is not None:
            with suppress(OSError):
                self._path.unlink(missing_ok=True)


class _Attested(Bounded):
    """A connection that is read only after the kernel's word on its peer was checked."""

    def __init__(self, door: _Door) -> None:
        super().__init__(config=door.owner.config, server_state=door.state, app_state={})
        self._door = door
        self._waiting: asyncio.Task[None] | None = None
        self._accepted = self._turned_away = False
        self._early = bytearray()

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        self.transport = transport
        self._door.transports.add(transport)
        connection = transport.get_extra_info("socket")
        try:
            caller = peer(connection)
        except OSError:
            transport.abort()
            return
        allowed = self._door.judge(caller)
        if allowed is None and len(self._door.transports) > MOST_CONNECTIONS:
            transport.abort()
        elif allowed is None:
            self._waiting = asyncio.get_running_loop().create_task(self._wait(transport, caller))
        else:
            self._decide(transport, caller, allowed, Refusals.STRANGER)

    def connection_lost(self, exc: Exception | None) -> None:
        if self._waiting is not None:
            self._waiting.cancel()
        self._door.transports.discard(self.transport)
        self._door.turned_away -= self._turned_away
        if self._accepted:
            self._door.admitted -= 1
            super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        if self._accepted:
            super().data_received(data)
        elif self._waiting is not None and len(self._early) + len(data) <= _LARGEST_EARLY:
            # uvloop starts reading after `connection_made` whatever that said about pausing
            self._early += data
        else:
            self.transport.close()

    async def _wait(self, transport: asyncio.Transport, caller: Peer) -> None:
        with suppress(TimeoutError):
            async with asyncio.timeout(self._door.owner.patience):
                await self._door.registered.wait()
        self._waiting = None
        if transport.is_closing():
            return
        allowed = self._door.judge(caller)
        self._decide(
            transport, caller, bool(allowed), Refusals.UNREGISTERED if allowed is None else Refusals.STRANGER
        )
        if self._accepted and self._early:
            super().data_received(bytes(self._early))

    def _decide(self, transport: asyncio.Transport, caller: Peer, allowed: bool, reason: Refusals) -> None:
        if allowed and self._door.admitted >= MOST_CONNECTIONS:
            allowed, reason = False, Refusals.CROWDED
        if allowed:
            self.app_state = {"workload": self._door.workload(caller)}
            self._accepted = True
            self._door.admitted += 1
            super().connection_made(transport)
            return
        self._door.refused(reason, caller)
        if self._door.turned_away >= _MOST_REFUSED:
            transport.abort()
            return
        self._turned_away = True
        self._door.turned_away += 1
        # closing with the request unread would reset the connection before the answer is seen
        transport.write(_CROWDED if reason is Refusals.CROWDED else _REFUSED)
        self.loop.call_later(_SECONDS_TO_READ, transport.close)


def listening(path: Path) -> socket.socket:
    """A socket that listens at a path, for its owner alone. Raises OSError; ValueError for a long path."""
    if len(os.fsencode(path)) > _LONGEST_PATH:
        raise ValueError(f"the path of a unix socket has at most {_LONGEST_PATH} bytes")
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_CLOEXEC)
    try:
        path.unlink(missing_ok=True)
        listener.bind(str(path))
        path.chmod(0o600)
        listener.listen(_BACKLOG)
        listener.setblocking(False)
    except BaseException:
        listener.close()
        raise
    return listener


def _guarded(app: App, counts: Counter[str]) -> App:
    """The application behind the check of the header."""

    async def guarded(
        scope: MutableMapping[str, Any],
        receive: Callable[[], Awaitable[Message]],
        send: Callable[[Message], Awaitable[None]],
    ) -> None:
        if [pair for pair in scope["headers"] if pair[0] == _HEADER[0]] == [_HEADER]:
            counts["served"] += 1
            CALLS.inc()
            # only `close` cancels here: the end of a workload cuts its calls, which is no fault to be logged
            with suppress(asyncio.CancelledError):
                await app(scope, receive, send)
            return
        counts[Refusals.HEADER] += 1
        REFUSALS[Refusals.HEADER.value].inc()
        log.warning(
            "request refused",
            reason=Refusals.HEADER.value,
            peer_pid=getattr(scope["state"]["workload"], "pid", 0),
        )
        body = b"This socket answers only the platform's own client."
        await send(
            {
                "type": "http.response.start",
                "status": 403,
                "headers": [
                    (b"content-type", b"text/plain"),
                    (b"content-length", str(len(body)).encode()),
                ],
            }
        )
        await send({"type": "http.response.body", "body": body})

    return guarded
