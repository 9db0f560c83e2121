"""An app process: uvicorn on the unix socket that the gateway forwards to.

`python -m flyte.runtime.serve --module M --app NAME [--bundle DIR]`, with `FLYTE_APP_SOCKET` in the
environment, and in `FLYTE_APP_PEER` the process that alone may connect there. SIGTERM lets open requests end.
The process ends with status 3 when the app's start-up fails.
"""

from __future__ import annotations

import argparse
import importlib.util
import os
import socket
import struct
import sys
from collections.abc import Awaitable, Callable, MutableMapping
from contextlib import suppress
from pathlib import Path
from typing import Any

from flyte.errors import FlyteError
from flyte.runtime import loader, secrets

Scope = MutableMapping[str, Any]
ASGI = Callable[[Scope, Any, Any], Awaitable[None]]

EXIT_STARTUP = 3
EXIT_USAGE = 2
GRACE_SECONDS = 15

_PREFIX = b"x-forwarded-prefix"
_CREDENTIALS = struct.Struct("3i")


class UnderPrefix:
    """Serve an app below the path prefix that the gateway names, as the ASGI specification has `root_path`.

    The gateway drops what callers send in that header and forwards paths without the prefix; both are put
    together again here, so that links and redirections made by the app lead back through the gateway.
    """

    def __init__(self, app: ASGI) -> None:
        self.app = app

    async def __call__(self, scope: Scope, receive: Any, send: Any) -> None:
        if scope["type"] in ("http", "websocket"):
            prefix = next((value for name, value in scope["headers"] if name == _PREFIX), b"").rstrip(b"/")
            if prefix.startswith(b"/"):
                scope = {
                    **scope,
                    "root_path": prefix.decode("latin-1"),
                    "path": prefix.decode("latin-1") + scope["path"],
                    "raw_path": prefix + (scope.get("raw_path") or scope["path"].encode()),
                }
        await self.app(scope, receive, send)


def serve(*, module: str, name: str, bundle: Path | None) -> int:
    """Load an app and serve it until a signal ends it; answers the exit status."""
    path = os.environ.get("FLYTE_APP_SOCKET")
    if not path:
        return _refuse("FLYTE_APP_SOCKET is not set: this is started by Tower.")
    try:
        secrets.enter(os.environ, directory=Path.cwd())
    except FlyteError as error:
        return _refuse(str(error))
    caller = _caller()
    if caller is None:
        return _refuse("FLYTE_APP_PEER is not set: this is started by Tower.")
    loader.enter(bundle)
    app = _asgi(loader.environment(module, name))
    if app is None:
        return _refuse(f"The app {name!r} has no ASGI app to serve.")
    if importlib.util.find_spec("uvicorn") is None:
        return _refuse('The image has no uvicorn. Add it: image.with_pip_packages("fastapi", "uvicorn").')
    import uvicorn

    _reserve(path)
    config = uvicorn.Config(
        UnderPrefix(app),
        uds=path,
        lifespan="auto",
        log_level="info",
        access_log=False,
        # the gateway alone is let in at this socket, and it writes these headers itself
        proxy_headers=True,
        forwarded_allow_ips="*",
        server_header=False,
        timeout_graceful_shutdown=GRACE_SECONDS,
    )
    config.load()
    config.http_protocol_class = only_from(caller, config.http_protocol_class)
    server = uvicorn.Server(config)
    server.run()
    return 0 if server.started else EXIT_STARTUP


def only_from(caller: int, protocol: Any) -> Any:
    """The protocol for connections of one process; others are closed unread.

    The kernel kept who connected. Where nothing but a list of paths keeps processes apart, others can find
    the socket's path. There Tower is this process's parent, so that its number cannot be another's. Elsewhere
    it is out of sight of this process table and has the number 0.
    """

    class Known(protocol):  # type: ignore[misc]
        let_in = False

        def connection_made(self, transport: Any) -> None:
            self.let_in = self._known(transport.get_extra_info("socket"))
            if self.let_in:
                super().connection_made(transport)
            else:
                transport.abort()

        def data_received(self, data: bytes) -> None:
            if self.let_in:
                super().data_received(data)

        def eof_received(self) -> Any:
            return super().eof_received() if self.let_in else None

        def connection_lost(self, exc: Exception | None) -> None:
            if self.let_in:
                super().connection_lost(exc)

        @staticmethod
        def _known(connection: Any) -> bool:
            try:
                kept = connection.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _CREDENTIALS.size)
            except OSError:
                return False
            pid = int(_CREDENTIALS.unpack(kept)[0])
            return pid == caller and caller in (0, os.getppid())

    return Known


def _caller() -> int | None:
    """The process that alone may connect; 0 is one outside of this process table."""
    text = os.environ.get("FLYTE_APP_PEER", "")
    return int(text) if text.isdecimal() else None


def _asgi(environment: Any) -> ASGI | None:
    """What an AppEnvironment serves."""
    app: ASGI | None = environment.asgi()
    return app


def _reserve(path: str) -> None:
    """Leave a socket file that only this user may open: uvicorn keeps the mode of one that is there."""
    with suppress(FileNotFoundError):
        os.unlink(path)
    before = os.umask(0o177)
    try:
        with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as placeholder:
            placeholder.bind(path)
    finally:
        os.umask(before)


def _refuse(reason: str) -> int:
    print(f"flyte.runtime.serve: {reason}", file=sys.stderr, flush=True)  # noqa: T201
    return EXIT_USAGE


def main() -> None:
    """Serve the app that the arguments name."""
    parser = argparse.ArgumentParser(prog="flyte.runtime.serve")
    parser.add_argument("--module", required=True)
    parser.add_argument("--app", required=True)
    parser.add_argument("--bundle", type=Path)
    arguments = parser.parse_args()
    sys.exit(serve(module=arguments.module, name=arguments.app, bundle=arguments.bundle))


if __name__ == "__main__":
    main()
