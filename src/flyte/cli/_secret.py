"""`flyte create|update|get|delete secret`. A value comes from a file, standard input or a prompt alone."""

from __future__ import annotations

import base64
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar
from urllib.parse import quote, urlencode

import rich_click as click

from ._command import Target, call, narrowed, options
from ._output import print_record, print_records

F = TypeVar("F", bound=Callable[..., Any])

_PATH = "/api/v1/secrets"
_PAGE = 1000
_LONGEST = 64 * 1024
_FILE = click.option(
    "--value-file",
    type=click.Path(path_type=Path, exists=True, dir_okay=False),
    help="A file whose content is the value, to the last byte.",
)
_PERSONAL = click.option("--personal", is_flag=True, help="Your own: no work but yours gets it.")


@click.command("secret")
@click.argument("name")
@_FILE
@_PERSONAL
@options
@click.pass_context
def create_secret(
    context: click.Context, /, name: str, value_file: Path | None, personal: bool, **given: Any
) -> None:
    """Keep a secret under NAME: for a domain of a project, a project, or with neither for everyone.

    Name the place with --project and --domain; FLYTE_PROJECT and configuration files do not count here. The
    value is read from --value-file, else from standard input, of which one newline at the end is left out.
    Nothing prints it again: `flyte.Secret("NAME")` in a TaskEnvironment or an app gives it to running code.
    """
    target, scope = _scope(context, given, personal=personal)
    body = {"name": name, "value": _value(value_file), **scope}
    made = call(target, lambda: _ask("POST", _PATH, body))
    _show(target, made, f"Created {name} {_where(made)}.")


@click.command("secret")
@click.argument("name")
@_FILE
@_PERSONAL
@options
@click.pass_context
def update_secret(
    context: click.Context, /, name: str, value_file: Path | None, personal: bool, **given: Any
) -> None:
    """Put another value in place of that of the secret NAME, which nobody gets from then on."""
    target, scope = _scope(context, given, personal=personal)
    value = _value(value_file)
    made = call(target, lambda: _ask("PUT", _address(name, scope), {"value": value}))
    _show(target, made, f"{name} {_where(made)} is at version {made['version']}.")


@click.command("secret")
@click.argument("name", required=False)
@_PERSONAL
@options
@click.pass_context
def get_secret(context: click.Context, /, name: str | None, personal: bool, **given: Any) -> None:
    """Show all about the secret NAME but its value, or list secrets."""
    target, scope = _scope(context, given, personal=personal)
    if name is not None:
        print_record(call(target, lambda: _ask("GET", _address(name, scope))), output=target.output)
        return
    columns = ("name", "level", "project", "domain", "version", "updated_by", "updated_at")
    print_records(call(target, lambda: _listed(scope)), columns=columns, output=target.output)


@click.command("secret")
@click.argument("name")
@_PERSONAL
@options
@click.pass_context
def delete_secret(context: click.Context, /, name: str, personal: bool, **given: Any) -> None:
    """Forget the secret NAME. What runs keeps what it was given."""
    target, scope = _scope(context, given, personal=personal)
    call(target, lambda: _ask("DELETE", _address(name, scope)))
    click.echo(f"Deleted {name}.", err=True)


def _scope(context: click.Context, given: dict[str, Any], *, personal: bool) -> tuple[Target, dict[str, Any]]:
    """The target, and the place that the command line itself names: no default makes a secret wider."""
    target = narrowed(context.obj, given)
    if personal:
        return target, {"personal": True}
    if target.domain and not target.project:
        raise click.UsageError("A domain stands in a project: add --project.")
    return target, {name: value for name in ("project", "domain") if (value := getattr(target, name))}


def _address(name: str, scope: dict[str, Any]) -> str:
    query = urlencode({key: "true" if value is True else value for key, value in scope.items()})
    return f"{_PATH}/{quote(name, safe='')}" + (f"?{query}" if query else "")


def _value(file: Path | None) -> str:
    if file is not None:
        with file.open("rb") as content:
            value = content.read(_LONGEST + 1)
    elif sys.stdin.isatty():
        value = click.prompt("Value", hide_input=True, confirmation_prompt=True, err=True).encode()
    else:
        value = sys.stdin.buffer.read(_LONGEST + 2)
        value = value[:-1] if value.endswith(b"\n") else value
    if not value or len(value) > _LONGEST:
        raise click.UsageError(f"A secret has 1 to {_LONGEST} bytes.")
    return base64.b64encode(value).decode()


async def _ask(method: str, path: str, body: Any = None) -> Any:
    from flyte._init import current_session
    from flyte.errors import RemoteNotFoundError

    try:
        return await current_session().json(method, path, body)
    except RemoteNotFoundError as error:
        # a name says nothing without its place, and no setting adds one
        hint = "Say where it is by --project, with --domain, or --personal; `flyte get secret` lists them."
        raise RemoteNotFoundError(error.message, code=error.code, hint=hint) from error


async def _listed(scope: dict[str, Any]) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = []
    after: int | None = 0
    while after is not None:
        places = {key: value for key, value in scope.items() if key != "personal"}
        page = await _ask("GET", f"{_PATH}?{urlencode({**places, 'after': after, 'limit': _PAGE})}")
        found += page["secrets"]
        after = page["next"]
    return [each for each in found if each["level"] == "personal"] if scope.get("personal") else found


def _show(target: Target, made: dict[str, Any], sentence: str) -> None:
    if target.output == "json":
        print_record(made, output="json")
    else:
        click.echo(sentence, err=True)


def _where(made: dict[str, Any]) -> str:
    match made["level"]:
        case "personal":
            return "for yourself"
        case "domain":
            return f"for {made['project']}/{made['domain']}"
        case "project":
            return f"for the project {made['project']}"
        case _:
            return "for the whole installation"
