"""`tower`: start the server, and administer it on the machine itself.

`users` and `keys` go to the running server over `$TOWER_HOME/admin.sock`; when none runs, the same REST
application is driven in process over the same database.

Exit codes: 0 done · 1 failed · 2 wrong usage or input · 3 refused · 4 not found · 5 conflict (it exists
already, or is in a state that does not allow it).
"""

from __future__ import annotations

import asyncio
import contextlib
import functools
import json
import os
import socket
import sys
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import Any, NoReturn, TypeVar
from urllib.parse import quote, unquote, urlencode

import rich_click as click

from tower.errors import Code, Fault, Unavailable
from tower.settings import Settings

SOCKET = "admin.sock"
AGENT_HEADER = "x-flyte-agent"

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

    def call(self, method: str, path: str, body: dict[str, Any] | None = None) -> Any:
        """The JSON of the answer, None when it is empty. Raises Refused or Fault."""
        content = b"" if body is None else json.dumps(body).encode()
        answered = self._over_socket(method, path, content)
        status, answer = answered or self._in_process(method, path, content)
        parsed: Any = json.loads(answer) if answer else None
        if status >= 400:
            error = parsed["error"]
            raise Refused(error["code"], f"{error['message']} {error['hint']}".strip())
        return parsed

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

    def _in_process(self, method: str, path: str, content: bytes) -> tuple[int, bytes]:
        return asyncio.run(_drive(Settings(home=self.home), method, path, content))


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

    async with _composition_root().compose(settings) as composed:
        await composed.rest(scope, receive, send)
    return sent[0]["status"], b"".join(message.get("body", b"") for message in sent[1:])


def _composition_root() -> Any:
    """`tower.main`, loaded only by the commands that need the server's rooms: it is heavy."""
    return import_module("tower.main")


def _fail(message: str, code: int) -> NoReturn:
    print(f"tower: {' '.join(message.split())}", file=sys.stderr)
    raise SystemExit(code)


def _faults(function: F) -> F:
    """One line on standard error and an exit code instead of a traceback."""

    @functools.wraps(function)
    def wrapped(*args: Any, **kwargs: Any) -> None:
        try:
            function(*args, **kwargs)
        except Refused as error:
            _fail(str(error), _EXIT.get(Code(error.code), 1))
        except Fault as fault:
            _fail(f"{fault.public} {fault.cause}", _EXIT.get(fault.code, 1))

    return wrapped  # type: ignore[return-value]


def _home(context: click.Context, _parameter: click.Parameter, value: Path | None) -> Path:
    inherited = context.obj.home if isinstance(context.obj, Administration) else None
    home = (value or inherited or Path.home() / ".tower").expanduser().absolute()
    context.obj = Administration(home)
    return home


_HOME = click.option(
    "--home",
    type=click.Path(path_type=Path, file_okay=False),
    envvar="TOWER_HOME",
    callback=_home,
    expose_value=False,
    help="Where Tower keeps its state. Default ~/.tower.",
)
_JSON = click.option(
    "-o", "output", type=click.Choice(["text", "json"]), default="text", help="Form of the output."
)
_ROLE = click.option(
    "--role", type=click.Choice(["admin", "contributor", "viewer"]), help="The role in the scope."
)
_PROJECT = click.option("--project", default="*", help="The project of the scope. Default: every project.")
_DOMAIN = click.option("--domain", default="*", help="The domain of the scope. Default: every domain.")


@click.group()
@click.version_option(package_name="flyte-tower")
@_HOME
def cli() -> None:
    """Tower: an identity-aware control plane for Flyte tasks and apps."""


@cli.command()
@click.option("--host", default="127.0.0.1", show_default=True, help="The address to listen on.")
@click.option("--port", default=8080, show_default=True, help="The port to listen on; 0 takes a free one.")
@click.option(
    "--tls", is_flag=True, help="Serve HTTPS, with --cert and --key or with an own local authority."
)
@click.option(
    "--cert", type=click.Path(path_type=Path, exists=True, dir_okay=False), help="A certificate (PEM)."
)
@click.option(
    "--key", type=click.Path(path_type=Path, exists=True, dir_okay=False), help="Its private key (PEM)."
)
@_HOME
@click.pass_obj
@_faults
def up(
    tower: Administration, *, host: str, port: int, tls: bool, cert: Path | None, key: Path | None
) -> None:
    """Start everything in one process. Prints `ready URL` once it answers."""
    settings = Settings(home=tower.home, host=host, port=port, tls=tls, tls_cert=cert, tls_key=key)
    settings.validate()
    _composition_root().up(settings)


@cli.group()
def users() -> None:
    """People and service identities, and what they may do."""


@users.command("add")
@click.argument("name")
@_ROLE
@_PROJECT
@_DOMAIN
@click.option("--service", is_flag=True, help="A service identity: for programs, with no person behind it.")
@click.option("--email", default="", help="An address to show.")
@click.pass_obj
@_faults
def add_user(
    tower: Administration,
    *,
    name: str,
    role: str | None,
    project: str,
    domain: str,
    service: bool,
    email: str,
) -> None:
    """Add a person. Without --role they may do nothing yet."""
    if role is None and (project, domain) != ("*", "*"):
        raise click.UsageError("--project and --domain say where a --role holds.")
    body = {"name": name, "service": service, "email": email, "project": project, "domain": domain}
    tower.call("POST", "/users", body if role is None else {**body, "role": role})
    print(f"added {name}")


@users.command("grant")
@click.argument("name")
@click.option("--role", type=click.Choice(["admin", "contributor", "viewer"]), required=True)
@_PROJECT
@_DOMAIN
@click.pass_obj
@_faults
def grant(tower: Administration, name: str, role: str, project: str, domain: str) -> None:
    """Give a role in a scope."""
    tower.call("POST", "/bindings", {"user": name, "role": role, "project": project, "domain": domain})
    print(f"{name} is {role} in {project}/{domain}")


@users.command("revoke")
@click.argument("name")
@click.option("--role", type=click.Choice(["admin", "contributor", "viewer"]), required=True)
@_PROJECT
@_DOMAIN
@click.pass_obj
@_faults
def revoke(tower: Administration, name: str, role: str, project: str, domain: str) -> None:
    """Take a role in exactly this scope away."""
    query = urlencode({"user": name, "role": role, "project": project, "domain": domain})
    tower.call("DELETE", f"/bindings?{query}")
    print(f"{name} is no longer {role} in {project}/{domain}")


@users.command("disable")
@click.argument("name")
@click.pass_obj
@_faults
def disable(tower: Administration, name: str) -> None:
    """Refuse everything of theirs from the next call on."""
    tower.call("POST", f"/users/{quote(name, safe='')}/disable")
    print(f"disabled {name}")


@users.command("enable")
@click.argument("name")
@click.pass_obj
@_faults
def enable(tower: Administration, name: str) -> None:
    """Undo a disable."""
    tower.call("POST", f"/users/{quote(name, safe='')}/enable")
    print(f"enabled {name}")


@users.command("list")
@_JSON
@click.pass_obj
@_faults
def list_users(tower: Administration, output: str) -> None:
    """List people and service identities with their roles."""
    people: list[dict[str, Any]] = []
    after: str | None = ""
    while after is not None:
        page = tower.call("GET", f"/users?{urlencode({'after': after})}")
        people += page["users"]
        after = page["next"]
    roles: dict[str, list[str]] = {}
    for binding in tower.call("GET", "/bindings")["bindings"]:
        roles.setdefault(binding["user"], []).append(
            f"{binding['role']}:{binding['project']}/{binding['domain']}"
        )
    if output == "json":
        print(json.dumps([{**person, "roles": roles.get(person["name"], [])} for person in people], indent=2))
        return
    rows = [
        (
            person["name"],
            person["kind"],
            "disabled" if person["disabled"] else "enabled",
            " ".join(roles.get(person["name"], ["-"])),
        )
        for person in people
    ]
    _table(("NAME", "KIND", "STATE", "ROLES"), rows)


@users.command("link")
@click.argument("name")
@click.pass_obj
@_faults
def link(tower: Administration, name: str) -> None:
    """Print a link that signs this person in, once and soon."""
    print(tower.call("POST", "/links", {"user": name})["url"])


@users.command("password")
@click.argument("name")
@click.option("--stdin", "piped", is_flag=True, help="Read the password from standard input, one line.")
@click.option("--remove", is_flag=True, help="Take the password away instead.")
@click.pass_obj
@_faults
def password(tower: Administration, name: str, *, piped: bool, remove: bool) -> None:
    """Give a person a password to sign in with. Ends their sessions and logins."""
    path = f"/users/{quote(name, safe='')}/password"
    if remove:
        tower.call("DELETE", path)
        print(f"{name} has no password any more")
        return
    secret = sys.stdin.readline().rstrip("\r\n") if piped else None
    if secret is None:
        secret = click.prompt("Password", hide_input=True, confirmation_prompt=True, err=True)
    tower.call("PUT", path, {"password": secret})
    print(f"{name} can sign in with the password")


@cli.group()
def keys() -> None:
    """API keys."""


@keys.command("create")
@click.argument("name")
@click.option("--user", required=True, help="Whose key it is.")
@_ROLE
@_PROJECT
@_DOMAIN
@click.option("--expires", help="When it ends, from now: 12h, 30d, 4w. Default: never.")
@click.option("--format", "form", type=click.Choice(["twr", "flyte"]), default="twr", show_default=True)
@click.pass_obj
@_faults
def create_key(
    tower: Administration,
    *,
    name: str,
    user: str,
    role: str | None,
    project: str,
    domain: str,
    expires: str | None,
    form: str,
) -> None:
    """Make a key and print it, alone and once. Role and scope are its ceiling: it adds no rights."""
    wanted = {
        "name": name,
        "user": user,
        "role": role,
        "project": project,
        "domain": domain,
        "expires_in": expires,
        "format": form,
    }
    print(tower.call("POST", "/keys", wanted)["key"])


@keys.command("list")
@click.option("--user", help="Only the keys of this user.")
@_JSON
@click.pass_obj
@_faults
def list_keys(tower: Administration, user: str | None, output: str) -> None:
    """List keys. What they are is shown by nobody."""
    found = tower.call("GET", "/keys" if user is None else f"/keys?{urlencode({'user': user})}")["keys"]
    if output == "json":
        print(json.dumps(found, indent=2))
        return
    rows = [
        (
            key["name"],
            key["user"],
            key["id"],
            f"{key['role'] or 'any role'} in {key['project']}/{key['domain']}",
            key["expires_at"] or "never",
            key["last_used_at"] or "never",
        )
        for key in found
    ]
    _table(("NAME", "USER", "ID", "CEILING", "EXPIRES", "LAST USED"), rows)


@keys.command("delete")
@click.argument("name")
@click.pass_obj
@_faults
def delete_key(tower: Administration, name: str) -> None:
    """End a key. Its next call is refused."""
    tower.call("DELETE", f"/keys/{quote(name, safe='')}")
    print(f"deleted {name}")


@keys.command("rotate-signing")
@click.pass_obj
@_faults
def rotate_signing(tower: Administration) -> None:
    """Sign tokens with a new key. What is signed already goes on to hold until it expires."""
    print(f"signing with {tower.call('POST', '/signing-keys/rotate')['kid']}")


def _table(header: tuple[str, ...], rows: Sequence[tuple[str, ...]]) -> None:
    widths = [max(len(row[column]) for row in [header, *rows]) for column in range(len(header))]
    for row in [header, *rows]:
        print("  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip())


def main() -> None:
    """The entry point of the distribution."""
    cli()
