"""Administration on the machine itself, and what every command of it shares.

Requests go to the running server over `$TOWER_HOME/admin.sock`; when none runs, the same REST application is
driven in process over the same database.
"""

from __future__ import annotations

import asyncio
import contextlib
import functools
import json
import os
import re
import socket
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import Any, NoReturn, TypeVar
from urllib.parse import unquote

import rich_click as click

from tower.errors import Code, Fault, InUse, NotFound, Unavailable
from tower.settings import Settings

SOCKET = "admin.sock"
AGENT_HEADER = "x-flyte-agent"
START_SECONDS = 20.0
"""How long a server that holds the database already may take until it listens."""

FOUNDING_SECONDS = 2.0
"""How long a `tower up` that was begun in the same breath may take until its home is there."""

MARKS = ("tower.db.lock", "tower.db")
"""What tells the home of a Tower: a lock from the first moment on; a restored one has a database alone."""

EPILOG = """Exit status:

0  done

1  failure

2  wrong usage, or a setting that cannot be

3  refused

4  not found

5  conflict: it exists already, or is in a state that does not allow it

6  what was checked does not hold: the audit chain, a policy case
"""

_LONGEST_SOCKET_PATH = 107
_EXIT = {
    Code.INVALID_ARGUMENT: 2,
    Code.UNAUTHENTICATED: 3,
    Code.PERMISSION_DENIED: 3,
    Code.NOT_FOUND: 4,
    Code.ALREADY_EXISTS: 5,
    Code.FAILED_PRECONDITION: 5,
}
F = TypeVar("F", bound=Callable[..., None])


class Refused(Exception):
    """The server's answer was no."""

    def __init__(self, code: str, message: str) -> None:
        super().__init__(message)
        self.code = code


@dataclass(frozen=True, slots=True)
class Administration:
    """Requests to `/api/v1` as the operator of this machine."""

    home: Path

    def found(self) -> None:
        """Make the home where there is none. Only `tower up` does: a mistyped one is no new Tower."""
        self.home.mkdir(parents=True, exist_ok=True, mode=0o700)
        (self.home / MARKS[0]).touch(mode=0o600)

    def call(self, method: str, path: str, body: dict[str, Any] | None = None) -> Any:
        """The JSON of the answer, None when it is empty. Raises Refused or Fault."""
        content = b"" if body is None else json.dumps(body).encode()
        status, answer = self._answer(method, path, content)
        parsed: Any = json.loads(answer) if answer else None
        if status >= 400:
            error = parsed["error"]
            # nothing is hidden from the machine's own operator: what is not found is not there
            message = error["message"].replace(", or none that you may view.", ".")
            raise Refused(error["code"], f"{message} {error['hint']}".strip())
        return parsed

    def _answer(self, method: str, path: str, content: bytes) -> tuple[int, bytes]:
        """From the server if one runs, also if it is only starting: `tower up & tower users add …` works."""
        ends_at = time.monotonic() + START_SECONDS
        while True:
            answered = self._over_socket(method, path, content)
            if answered is not None:
                return answered
            self._check_found()
            try:
                return self._in_process(method, path, content)
            except InUse:
                if time.monotonic() >= ends_at:
                    raise

    def _over_socket(self, method: str, path: str, content: bytes) -> tuple[int, bytes] | None:
        """None when no server listens."""
        import httpcore

        headers = [("host", "tower"), ("content-type", "application/json"), (AGENT_HEADER, "1")]
        with _reachable(self.home / SOCKET) as path_of_socket:
            if not _listening(path_of_socket):
                return None
            pool = httpcore.ConnectionPool(uds=path_of_socket)
            try:
                answer = pool.request(
                    method,
                    f"http://tower/api/v1{path}",
                    headers=headers,
                    content=content,
                    extensions={"timeout": {"connect": 5.0, "read": 60.0, "write": 60.0, "pool": 5.0}},
                )
            except (httpcore.NetworkError, httpcore.ProtocolError, httpcore.TimeoutException) as error:
                raise Unavailable("The running Tower did not answer.", cause=repr(error)) from error
            finally:
                pool.close()
        return answer.status, answer.content

    def _check_found(self) -> None:
        """Raise NotFound where no Tower was ever started."""
        ends_at = time.monotonic() + FOUNDING_SECONDS
        while not any((self.home / name).exists() for name in MARKS):
            if time.monotonic() >= ends_at:
                raise NotFound(
                    f"There is no Tower in {self.home}.",
                    hint="`tower up` makes one; name the folder of another with --home or TOWER_HOME.",
                )
            time.sleep(0.05)

    def _in_process(self, method: str, path: str, content: bytes) -> tuple[int, bytes]:
        return asyncio.run(_drive(Settings(home=self.home), method, path, content))


def runs_over(home: Path) -> bool:
    """Whether a server runs over this home."""
    with _reachable(home / SOCKET) as path:
        return _listening(path)


@contextlib.contextmanager
def _reachable(path: Path) -> Iterator[str]:
    """A name of the socket that is short enough for the kernel."""
    if len(os.fsencode(path)) <= _LONGEST_SOCKET_PATH or not path.parent.is_dir():
        yield str(path)
        return
    descriptor = os.open(path.parent, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        yield f"/proc/self/fd/{descriptor}/{path.name}"
    finally:
        os.close(descriptor)


def _listening(path: str) -> bool:
    """Whether a server listens there; a socket file that a killed one left does not count."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
        try:
            probe.connect(path)
        except (FileNotFoundError, ConnectionRefusedError):
            return False
        except OSError as error:
            raise Unavailable("The running Tower cannot be reached.", cause=repr(error)) from error
    return True


async def _drive(settings: Settings, method: str, path: str, content: bytes) -> tuple[int, bytes]:
    """One request to the REST application over the closed house's database."""
    from tower.identity.workload import Workload, WorkloadKind

    target, _, query = f"/api/v1{path}".partition("?")
    scope = {
        "type": "http",
        "asgi": {"version": "3.0"},
        "http_version": "1.1",
        "method": method,
        "scheme": "http",
        "path": unquote(target),
        "raw_path": target.encode(),
        "root_path": "",
        "query_string": query.encode(),
        "headers": [(b"host", b"tower"), (b"content-type", b"application/json")],
        "client": None,
        "server": None,
        "state": {"workload": Workload(WorkloadKind.ADMIN, "admin", os.getpid())},
    }
    sent: list[Any] = []

    async def receive() -> dict[str, Any]:
        return {"type": "http.request", "body": content, "more_body": False}

    async def send(message: Any) -> None:
        sent.append(message)

    async with composition_root().compose(settings) as composed:
        await composed.rest(scope, receive, send)
    return sent[0]["status"], b"".join(message.get("body", b"") for message in sent[1:])


def composition_root() -> Any:
    """`tower.main`, loaded only by the commands that need the server's rooms: it is heavy."""
    with without("rich"):  # structlog's console renderer would load it, and is not used here
        return import_module("tower.main")


@contextlib.contextmanager
def without(name: str) -> Iterator[None]:
    """Do without a module that something tries to load and can do without: megabytes of an idle server."""
    modules: dict[str, Any] = sys.modules
    loaded = modules.setdefault(name, None)  # None makes an import of it fail
    try:
        yield
    finally:
        if loaded is None:
            del modules[name]


def fail(message: str, code: int) -> NoReturn:
    """One line on standard error, and the end."""
    print(f"tower: {' '.join(message.split())}", file=sys.stderr)
    raise SystemExit(code)


def faults(function: F) -> F:
    """One line on standard error and an exit code instead of a traceback."""

    @functools.wraps(function)
    def wrapped(*args: Any, **kwargs: Any) -> None:
        try:
            function(*args, **kwargs)
        except Refused as error:
            fail(str(error), _EXIT.get(Code(error.code), 1))
        except Fault as fault:
            fail(f"{fault.public} {fault.cause}", _EXIT.get(fault.code, 1))

    return wrapped  # type: ignore[return-value]


def _home(context: click.Context, _parameter: click.Parameter, value: Path | None) -> Path:
    inherited = context.obj.home if isinstance(context.obj, Administration) else None
    home = (value or inherited or Path.home() / ".tower").expanduser().absolute()
    context.obj = Administration(home)
    return home


HOME = click.option(
    "--home",
    type=click.Path(path_type=Path, file_okay=False),
    envvar="TOWER_HOME",
    callback=_home,
    expose_value=False,
    help="Where Tower keeps its state. Default ~/.tower.",
)
JSON = click.option(
    "-o", "output", type=click.Choice(["text", "json"]), default="text", help="Form of the output."
)
ROLE = click.option("--role", help="The role in the scope: admin, contributor, viewer or one of your own.")
PROJECT = click.option("--project", default="*", help="The project of the scope. Default: every project.")
DOMAIN = click.option("--domain", default="*", help="The domain of the scope. Default: every domain.")


def span(text: str | None, option: str) -> float | None:
    """A span of time in seconds: a number, or a number with s, m, h, d or w. Raises BadParameter."""
    if text is None:
        return None
    found = re.fullmatch(r"([0-9]{1,9})([smhdw]?)", text)
    if found is None:
        problem = f"{text!r} is no span of time. Write 3600, 12h, 30d or 4w."
        raise click.BadParameter(problem, param_hint=repr(option))
    return float(found[1]) * {"": 1, "s": 1, "m": 60, "h": 3600, "d": 86400, "w": 604800}[found[2]]


def table(header: tuple[str, ...], rows: Sequence[tuple[str, ...]]) -> None:
    """Columns on standard output."""
    widths = [max(len(row[column]) for row in [header, *rows]) for column in range(len(header))]
    for row in [header, *rows]:
        print("  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip())
