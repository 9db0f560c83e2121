"""Connections to the apps' private sockets, a small pool for each."""

from __future__ import annotations

from collections import OrderedDict
from pathlib import Path

from aiohttp import ClientSession, ClientTimeout, DummyCookieJar, UnixConnector

from tower.gateway.shares import MOST

CONNECT_SECONDS = 5.0
IDLE_SECONDS = 2.0
"""Well below the 5 seconds after which uvicorn closes an idle connection: no request meets a closing one."""

_MAX_HEADER = 64 * 1024
_AUTOMATIC = ("Accept", "Accept-Encoding", "Content-Type", "User-Agent")


class Upstreams:
    """One client session per socket; the longest unused are closed when there are too many."""

    def __init__(self, *, capacity: int = 256, connections: int = MOST) -> None:
        self._capacity = capacity
        self._connections = connections
        self._sessions: OrderedDict[Path, ClientSession] = OrderedDict()

    async def session(self, socket: Path) -> ClientSession:
        """The session of this socket. It keeps no cookie, follows no redirect and decodes nothing."""
        found = self._sessions.get(socket)
        if found is not None:
            self._sessions.move_to_end(socket)
            return found
        session = ClientSession(
            connector=UnixConnector(
                path=str(socket), limit=self._connections, keepalive_timeout=IDLE_SECONDS
            ),
            cookie_jar=DummyCookieJar(),
            auto_decompress=False,
            skip_auto_headers=_AUTOMATIC,
            trust_env=False,
            timeout=ClientTimeout(total=None, connect=CONNECT_SECONDS),
            max_line_size=_MAX_HEADER,
            max_field_size=_MAX_HEADER,
        )
        self._sessions[socket] = session
        while len(self._sessions) > self._capacity:
            _, oldest = self._sessions.popitem(last=False)
            await oldest.close()
        return session

    async def forget(self, socket: Path) -> None:
        """Close what is kept for a socket that no longer answers."""
        session = self._sessions.pop(socket, None)
        if session is not None:
            await session.close()

    async def close(self) -> None:
        """Close every connection."""
        while self._sessions:
            _, session = self._sessions.popitem()
            await session.close()
