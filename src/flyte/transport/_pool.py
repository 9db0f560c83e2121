"""HTTP connections, kept per event loop and closed with it, or where nobody has them any more."""

from __future__ import annotations

import asyncio
import contextlib
import socket as sockets
import ssl
import threading
import weakref
from collections.abc import AsyncGenerator, AsyncIterator, Mapping, Sequence
from typing import Literal, Protocol

import httpcore

from flyte.errors import InitializationError
from flyte.transport._local import LocalPool

Kind = Literal["unary", "stream"]

CONNECT_SECONDS = 30.0
_LIMITS: Mapping[str, int] = {"unary": 50, "stream": 1000}
_IDLE_CONNECTIONS = 20
_IDLE_SECONDS = 30.0


class Answer(Protocol):
    """What connections give for a request; `httpcore.Response` is one."""

    @property
    def status(self) -> int:
        """The status of HTTP."""

    @property
    def headers(self) -> Sequence[tuple[bytes, bytes]]:
        """As they came."""

    def aiter_stream(self) -> AsyncIterator[bytes]:
        """The body in pieces, as they come."""


class Pools:
    """The connections of one session: a pool for calls and one for streams, on each loop that asks.

    Streams are held open for hours; in a pool of their own they never keep a call waiting. To the socket of
    the agent (`uds`) both go by a client of their own.
    """

    def __init__(self, *, uds: str | None = None, ca_file: str | None = None) -> None:
        self._local = None if uds is None else LocalPool(uds, limits=_LIMITS)
        self._ca_file = ca_file
        self._lock = threading.Lock()
        self._tls: ssl.SSLContext | None = None
        self._keepers: weakref.WeakKeyDictionary[asyncio.AbstractEventLoop, dict[str, _Kept]] = (
            weakref.WeakKeyDictionary()
        )
        # Dropped unclosed, and found by the collector: what it finds is ended in any order, in any thread. So
        # connections are held apart until then; afterwards their loops close them, as those of any generator.
        weakref.finalize(self, self._keepers.clear).atexit = False

    @contextlib.asynccontextmanager
    async def request(
        self,
        kind: Kind,
        method: str,
        url: str,
        *,
        headers: Sequence[tuple[bytes, bytes]],
        content: bytes | AsyncIterator[bytes],
        read_seconds: float | None,
    ) -> AsyncGenerator[Answer, None]:
        """One request; gives the answer, whose body is read inside the block. Raises httpcore's errors."""
        if self._local is not None:
            async with self._local.request(
                kind,
                method,
                url,
                headers=headers,
                content=content,
                connect_seconds=CONNECT_SECONDS,
                read_seconds=read_seconds,
            ) as local:
                yield local
            return
        kept = await self._kept(kind)
        timeouts = {"connect": CONNECT_SECONDS, "pool": None, "write": read_seconds, "read": read_seconds}
        # The pool's own queue is walked at each request, so waiting happens here.
        async with (
            kept.slots,
            kept.pool.stream(
                method, url, headers=list(headers), content=content, extensions={"timeout": timeouts}
            ) as answer,
        ):
            yield answer

    async def _kept(self, kind: Kind) -> _Kept:
        loop = asyncio.get_running_loop()
        with self._lock:
            kept = self._keepers.get(loop, {}).get(kind)
        if kept is not None:
            return kept
        limit = _LIMITS[kind]
        kept = _Kept(self._open(limit), limit)
        # First step of the generator, on this loop: the loop closes it when it ends, and so the connections.
        await kept.start()
        with self._lock:
            for ended in [known for known in self._keepers if known.is_closed()]:
                del self._keepers[ended]
            self._keepers.setdefault(loop, {})[kind] = kept
        return kept

    async def aclose(self) -> None:
        """Close the connections of the running loop."""
        if self._local is not None:
            await self._local.aclose()
        loop = asyncio.get_running_loop()
        with self._lock:
            kinds = self._keepers.pop(loop, {})
        for kept in kinds.values():
            await kept.keeper.aclose()

    def _open(self, limit: int) -> httpcore.AsyncConnectionPool:
        return httpcore.AsyncConnectionPool(
            ssl_context=self._context(),
            max_connections=limit,
            max_keepalive_connections=_IDLE_CONNECTIONS,
            keepalive_expiry=_IDLE_SECONDS,
            socket_options=[(sockets.SOL_SOCKET, sockets.SO_KEEPALIVE, 1)],
        )

    def _context(self) -> ssl.SSLContext:
        if self._tls is None:
            # The system's store, or what SSL_CERT_FILE names; ca_file is trusted besides.
            context = ssl.create_default_context()
            context.minimum_version = ssl.TLSVersion.TLSv1_2
            if self._ca_file is not None:
                try:
                    context.load_verify_locations(self._ca_file)
                except OSError as error:  # ssl.SSLError among them
                    raise InitializationError(
                        f"{self._ca_file} is not a readable file of certificates (PEM)."
                    ) from error
            self._tls = context
        return self._tls


class _Kept:
    """A pool, and the async generator whose end closes it."""

    def __init__(self, pool: httpcore.AsyncConnectionPool, limit: int) -> None:
        self.pool = pool
        self.slots = asyncio.Semaphore(limit)
        self.keeper = _keep(pool)

    async def start(self) -> None:
        await self.keeper.__anext__()


async def _keep(pool: httpcore.AsyncConnectionPool) -> AsyncGenerator[None, None]:
    try:
        yield
    finally:
        await pool.aclose()
