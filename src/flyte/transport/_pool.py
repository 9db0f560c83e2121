"""HTTP connections, kept per event loop and closed with it."""

from __future__ import annotations

import asyncio
import socket as sockets
import ssl
import threading
import weakref
from collections.abc import AsyncGenerator

import httpcore

_UNARY_CONNECTIONS = 100
_STREAM_CONNECTIONS = 1000
_IDLE_CONNECTIONS = 20
_IDLE_SECONDS = 30.0


class Pools:
    """The connections of one session: a pool for calls and one for streams, on each loop that asks.

    Streams are held open for hours; in a pool of their own they never keep a call waiting.
    """

    def __init__(self, *, uds: str | None = None, ca_file: str | None = None) -> None:
        self._uds = uds
        self._ca_file = ca_file
        self._lock = threading.Lock()
        self._tls: ssl.SSLContext | None = None
        self._keepers: weakref.WeakKeyDictionary[asyncio.AbstractEventLoop, dict[str, _Kept]] = (
            weakref.WeakKeyDictionary()
        )

    async def pool(self, kind: str) -> httpcore.AsyncConnectionPool:
        """The pool of the running loop for `kind`, which is `unary` or `stream`."""
        loop = asyncio.get_running_loop()
        with self._lock:
            kept = self._keepers.get(loop, {}).get(kind)
        if kept is not None:
            return kept.pool
        kept = _Kept(self._open(kind))
        # First step of the generator, on this loop: the loop closes it when it ends, and so the connections.
        await kept.start()
        with self._lock:
            for ended in [known for known in self._keepers if known.is_closed()]:
                del self._keepers[ended]
            self._keepers.setdefault(loop, {})[kind] = kept
        return kept.pool

    async def aclose(self) -> None:
        """Close the connections of the running loop."""
        loop = asyncio.get_running_loop()
        with self._lock:
            kinds = self._keepers.pop(loop, {})
        for kept in kinds.values():
            await kept.keeper.aclose()

    def _open(self, kind: str) -> httpcore.AsyncConnectionPool:
        streaming = kind == "stream"
        return httpcore.AsyncConnectionPool(
            ssl_context=self._context(),
            max_connections=_STREAM_CONNECTIONS if streaming else _UNARY_CONNECTIONS,
            max_keepalive_connections=_IDLE_CONNECTIONS,
            keepalive_expiry=_IDLE_SECONDS,
            uds=self._uds,
            socket_options=None if self._uds else [(sockets.SOL_SOCKET, sockets.SO_KEEPALIVE, 1)],
        )

    def _context(self) -> ssl.SSLContext | None:
        if self._uds is not None:
            return None
        if self._tls is None:
            # The system's store, or what SSL_CERT_FILE names; ca_file is trusted besides.
            context = ssl.create_default_context()
            context.minimum_version = ssl.TLSVersion.TLSv1_2
            if self._ca_file is not None:
                context.load_verify_locations(self._ca_file)
            self._tls = context
        return self._tls


class _Kept:
    """A pool, and the async generator whose end closes it."""

    def __init__(self, pool: httpcore.AsyncConnectionPool) -> None:
        self.pool = pool
        self.keeper = _keep(pool)

    async def start(self) -> None:
        await self.keeper.__anext__()


async def _keep(pool: httpcore.AsyncConnectionPool) -> AsyncGenerator[None, None]:
    try:
        yield
    finally:
        await pool.aclose()
