"""The socket that everybody connects to, its certificate, and the server that answers there."""

from __future__ import annotations

import asyncio
import signal
import socket
import ssl
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import uvicorn

from tower import tls
from tower.errors import Unavailable
from tower.gateway.shares import LONGEST_MESSAGE
from tower.main import crowd
from tower.main.doors import App
from tower.main.handshakes import Greeter
from tower.settings import Settings

_BACKLOG = 2048
_HANDSHAKES_PART = 8
_FEWEST_HANDSHAKES = 16
_MOST_HANDSHAKES = 4096
_STREAMS_END_SECONDS = 3
"""How long open streams may go on after SIGTERM; clients subscribe again."""


class Server(uvicorn.Server):
    """Says `ready URL` on standard output, alone on its line, once connections are accepted."""

    def __init__(self, config: uvicorn.Config, *, on_stop: Callable[[], None]) -> None:
        super().__init__(config)
        self._on_stop = on_stop

    @contextmanager
    def capture_signals(self) -> Iterator[None]:
        """Begin the drain on SIGTERM and SIGINT; unlike with uvicorn alone, no signal is raised again."""
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, self._stop)
        yield

    def _stop(self) -> None:
        self.should_exit = True
        self._on_stop()

    def _connection(self) -> asyncio.Protocol:
        make: Any = self.config.http_protocol_class
        made: asyncio.Protocol = make(config=self.config, server_state=self.server_state, app_state={})
        return made

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        assert sockets is not None
        if self.config.ssl is None:
            await super().startup(sockets)
        else:
            await super().startup([])
            most = min(max(_FEWEST_HANDSHAKES, crowd.room() // _HANDSHAKES_PART), _MOST_HANDSHAKES)
            servers: list[Any] = [Greeter(sockets[0], self.config.ssl, self._connection, most=most)]
            self.servers = servers
        scheme = "https" if self.config.is_ssl else "http"
        host, port = sockets[0].getsockname()[:2]
        name = {"0.0.0.0": "127.0.0.1", "::": "[::1]", "::1": "[::1]"}.get(host, host)  # noqa: S104
        print(f"ready {scheme}://{name}:{port}", flush=True)  # noqa: T201


def configured(
    app: App, *, certificate: tls.Certificate | None, http: type[asyncio.Protocol]
) -> uvicorn.Config:
    """How `app` is served; `http` is the protocol of connections that are no websockets."""
    return uvicorn.Config(
        app,
        http=http,
        ws="websockets-sansio",
        loop="none",
        lifespan="off",
        log_config=None,
        access_log=False,
        proxy_headers=False,
        server_header=False,
        timeout_keep_alive=75,
        timeout_graceful_shutdown=_STREAMS_END_SECONDS,
        ws_max_size=LONGEST_MESSAGE,
        # some kilobytes would unpack into a message of that length, and many come before any is waited for
        ws_per_message_deflate=False,
        ssl_certfile=None if certificate is None else str(certificate.chain),
        ssl_keyfile=None if certificate is None else str(certificate.key),
        ssl_version=ssl.PROTOCOL_TLS_SERVER,
    )


def bind(settings: Settings) -> socket.socket:
    """The listening socket. Raises Unavailable."""
    try:
        family, kind, protocol, _, address = socket.getaddrinfo(
            settings.host, settings.port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        )[0]
        listener = socket.socket(family, kind, protocol)
    except OSError as error:
        raise Unavailable(f"{settings.host} is no address of this machine.", cause=str(error)) from error
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listener.bind(address)
        listener.listen(_BACKLOG)
    except OSError as error:
        listener.close()
        raise Unavailable(
            f"Port {settings.port} on {settings.host} cannot be used.",
            hint="Choose another with --port; 0 takes any free one.",
            cause=error.strerror or "",
        ) from error
    listener.setblocking(False)
    return listener


def trust(settings: Settings, now: float) -> Path | None:
    """The certificates that hosted clients trust, where Tower's own is of its local authority."""
    shown = certificate_of(settings, now)
    if shown is None or shown.authority is None:
        return None
    return tls.trust(settings.home / "tls", shown.authority)


def certificate_of(settings: Settings, now: float) -> tls.Certificate | None:
    """The given certificate, or one of the local authority; None without TLS."""
    if not settings.tls:
        return None
    if settings.tls_cert is not None and settings.tls_key is not None:
        return tls.Certificate(settings.tls_cert, settings.tls_key, None)
    names = dict.fromkeys(("localhost", "127.0.0.1", "::1", settings.host, f"*.{settings.apps_domain}"))
    names.pop("0.0.0.0", None)  # noqa: S104
    if settings.public_url:
        names[urlsplit(settings.public_url).hostname or ""] = None
    return tls.local(settings.home / "tls", names=tuple(names), now=now)
