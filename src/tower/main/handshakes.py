"""The listener for TLS: whoever does not finish a handshake holds little, and not for long (T45).

Where more handshakes are under way than there is room for, the oldest of the address that began most of them
is cut. One that goes on needs a moment; to begin thousands and finish none keeps nobody out.
"""

from __future__ import annotations

import asyncio
import errno
import socket
import ssl
from collections.abc import Callable
from contextlib import suppress

from tower.identity.attempts import network
from tower.main.comers import Comers

SECONDS = 15.0
"""How long a handshake may take."""

SHUTDOWN_SECONDS = 5.0
"""How long the other side may take to say that it heard of the end."""

_AT_ONCE = 100
_PAUSE_SECONDS = 0.1
_FULL = frozenset({errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM})


class Greeter:
    """Accepts connections, and hands over those whose handshake is done. It accepts from the start."""

    def __init__(
        self,
        listener: socket.socket,
        context: ssl.SSLContext,
        protocol: Callable[[], asyncio.Protocol],
        *,
        most: int,
        seconds: float = SECONDS,
    ) -> None:
        """`listener` does not block; `most` handshakes are under way at once."""
        self._listener = listener
        self._context = context
        self._protocol = protocol
        self._most = most
        self._seconds = seconds
        self._loop = asyncio.get_running_loop()
        self._pending: Comers[socket.socket] = Comers()
        self._tasks: set[asyncio.Task[None]] = set()
        self._pause: asyncio.TimerHandle | None = None
        self._closed = False
        self._listen()

    def close(self) -> None:
        """Accept nothing more, and give up the handshakes under way."""
        if not self._closed:
            self._closed = True
            if self._pause is None:
                self._loop.remove_reader(self._listener)
            else:
                self._pause.cancel()
            for task in self._tasks:
                task.cancel()

    async def wait_closed(self) -> None:
        """Wait until no handshake is under way."""
        await asyncio.gather(*self._tasks, return_exceptions=True)

    def _listen(self) -> None:
        self._pause = None
        self._loop.add_reader(self._listener, self._accept)

    def _accept(self) -> None:
        for _ in range(_AT_ONCE):
            try:
                connection, peer = self._listener.accept()
            except (BlockingIOError, InterruptedError, ConnectionAbortedError):
                return
            except OSError as error:
                if error.errno not in _FULL:
                    raise
                self._make_way()
                self._loop.remove_reader(self._listener)
                self._pause = self._loop.call_later(_PAUSE_SECONDS, self._listen)
                return
            connection.setblocking(False)
            if len(self._pending) >= self._most:
                self._make_way()
            self._pending.add(connection, network(str(peer[0])))
            task = self._loop.create_task(self._greet(connection))
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)

    def _make_way(self) -> None:
        place, number = self._pending.most()
        if number:
            oldest = self._pending.oldest(place)
            self._pending.discard(oldest)
            with suppress(OSError):  # it has gone by itself
                oldest.shutdown(socket.SHUT_RDWR)

    async def _greet(self, connection: socket.socket) -> None:
        try:
            connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            await self._loop.connect_accepted_socket(
                self._protocol,
                connection,
                ssl=self._context,
                ssl_handshake_timeout=self._seconds,
                ssl_shutdown_timeout=SHUTDOWN_SECONDS,
            )
        except (OSError, ssl.SSLError):
            connection.close()  # what the loop took over has no descriptor here any more
        finally:
            self._pending.discard(connection)
