"""`flyte create|get|update|delete user|service|group|role|policy`: over the administration interface.

Each takes its fields as options, or from a file: `-f FILE` has a YAML or JSON object of them. What stands in
an option wins.
"""

from __future__ import annotations

from collections.abc import Callable
from copy import copy
from pathlib import Path
from typing import Any, TypeVar
from urllib.parse import quote, urlencode

import rich_click as click

from ._command import Group, Target, call, narrowed, options, remote
from ._output import print_record, print_records

F = TypeVar("F", bound=Callable[..., Any])

API = "/api/v1"
PAGE_LIMIT = 100_000

FILE = click.option(
    "-f",
    "--file",
    type=click.Path(path_type=Path, exists=True, dir_okay=False),
    help="A YAML or JSON object with the fields.",
)
_NAME = click.argument("name", required=False)
_DISPLAY = click.option("--display-name", help="A name to show.")
_EMAIL = click.option("--email", help="An address to show.")
_DESCRIPTION = click.option("--description", help="What it is for.")
_MEMBER = click.option("--member", "members", multiple=True, help="Who is in it; may be repeated.")
_EXTERNAL = click.option("--external", help="What an identity provider calls it: ALIAS:GROUP.")
_ACTION = click.option("--action", "actions", multiple=True, help="An action, as task:run; may be repeated.")
_TEXT = click.option(
    "--text-file",
    type=click.Path(path_type=Path, exists=True, dir_okay=False),
    help="The Cedar policies.",
)
_CEDAR = " A file of Cedar is given by --text-file."
_DRY_RUN = click.option("--dry-run", is_flag=True, default=None, help="Check and try it; change nothing.")
THING = (
    click.option("--task", help="For this task alone."),
    click.option("--app", help="For this app alone."),
)


def with_all(*given: Callable[[F], F]) -> Callable[[F], F]:
    def decorate(function: F) -> F:
        for each in reversed(given):
            function = each(function)
        return function

    return decorate


def _fields(file: Path | None, given: dict[str, Any]) -> dict[str, Any]:
    """What the file says, then what the options say."""
    found: dict[str, Any] = {}
    if file is not None:
        import yaml

        try:
            found = yaml.safe_load(file.read_text())  # type: ignore[no-untyped-call]
        except (yaml.YAMLError, UnicodeDecodeError) as error:
            hint = _CEDAR if "text_file" in given else ""
            raise click.BadParameter(f"{file} is neither YAML nor JSON: {error}.{hint}") from None
        if not isinstance(found, dict):
            raise click.BadParameter(
                f"{file} is no object of fields.{_CEDAR if 'text_file' in given else ''}"
            )
    named = {key: list(value) if isinstance(value, tuple) else value for key, value in given.items()}
    return {**found, **{key: value for key, value in named.items() if value not in (None, [])}}


def _named(fields: dict[str, Any]) -> str:
    name = fields.get("name")
    if not isinstance(name, str) or not name:
        raise click.UsageError("The name is missing.")
    return name


def path_of(noun: str, name: str = "") -> str:
    return f"{API}/{noun}" + (f"/{quote(name, safe='')}" if name else "")


async def ask(method: str, path: str, body: Any = None) -> Any:
    from flyte._init import current_session

    return await current_session().json(method, path, body)


def send(
    context: click.Context, method: str, noun: str, fields: dict[str, Any], *, in_path: bool = False
) -> None:
    """One change from the fields; prints what came of it."""
    target = context.obj
    name = _named(fields) if in_path or noun != "bindings" else ""
    body = {key: value for key, value in fields.items() if not (in_path and key == "name")}
    path = path_of(noun, name if in_path else "")
    made = call(target, lambda: ask(method, path, body))
    if body.get("dry_run"):
        click.echo("It would hold. Nothing was changed: this was a dry run.", err=True)
    if made is not None:
        print_record(made, output=target.output)


def enter(context: click.Context, given: dict[str, Any], *, scoped: bool = False) -> dict[str, Any]:
    """Take the shared options out; project and domain behind the command are fields where `scoped`."""
    scope = {key: given.get(key) for key in ("project", "domain")} if scoped else {}
    context.obj = narrowed(context.obj, given)
    return _fields(given.pop("file", None), {**given, **scope})


def _renamed(command: click.Command, name: str, what: str) -> click.Command:
    found = copy(command)
    found.name, found.help = name, what
    return found


def _policy_fields(fields: dict[str, Any]) -> dict[str, Any]:
    text = fields.pop("text_file", None)
    if text is not None:
        fields["text"] = Path(text).read_text()
    if "text" not in fields:
        raise click.UsageError("The policy is missing: give --text-file, or a text in --file.")
    return fields


# create


@click.command("user")
@with_all(
    _NAME, _DISPLAY, _EMAIL, click.option("--role", help="A first role, in --project and --domain."), FILE
)
@options
@click.pass_context
def create_user(context: click.Context, /, **given: Any) -> None:
    """Add the person NAME."""
    send(context, "POST", "users", enter(context, given, scoped=True))


@click.command("service")
@with_all(_NAME, _DISPLAY, click.option("--role", help="A first role, in --project and --domain."), FILE)
@options
@click.pass_context
def create_service(context: click.Context, /, **given: Any) -> None:
    """Add the service identity NAME: for programs, with no person behind it."""
    send(context, "POST", "users", {**enter(context, given, scoped=True), "service": True})


@click.command("group")
@with_all(_NAME, _MEMBER, _EXTERNAL, _DESCRIPTION, FILE)
@options
@click.pass_context
def create_group(context: click.Context, /, **given: Any) -> None:
    """Make the group NAME."""
    send(context, "POST", "groups", enter(context, given))


@click.command("role")
@with_all(_NAME, _ACTION, _DESCRIPTION, FILE)
@options
@click.pass_context
def create_role(context: click.Context, /, **given: Any) -> None:
    """Make the role NAME as a list of actions."""
    send(context, "POST", "roles", enter(context, given))


@click.command("policy")
@with_all(_NAME, _TEXT, *THING, _DESCRIPTION, _DRY_RUN, FILE)
@options
@click.pass_context
def create_policy(context: click.Context, /, **given: Any) -> None:
    """Write the policy NAME in Cedar, for --project and --domain behind `policy` (default: everywhere).

    It is checked and tried first; what is wrong is said with its line, and nothing changes.
    """
    send(context, "POST", "policies", _policy_fields(enter(context, given, scoped=True)))


# update


@click.group(
    "update",
    cls=Group,
    lazy={
        "secret": "_secret:update_secret",
        "app-ceiling": "_ceilings:update_ceiling",
        "api-key": "_rotate:api_key",
        "trigger": "_triggers:update_trigger",
        "binding": "_bindings:update_binding",
    },
)
def update() -> None:
    """Change API keys, secrets, triggers, limits of apps, or who may do what."""


@update.command("user")
@with_all(
    _NAME,
    _DISPLAY,
    _EMAIL,
    click.option("--disable/--enable", "disabled", default=None, help="Refuse everything of theirs, or not."),
    FILE,
)
@options
@click.pass_context
def update_user(context: click.Context, /, **given: Any) -> None:
    """Change the person NAME."""
    disabled = given.pop("disabled")
    fields = enter(context, given)
    name = _named(fields)
    if len(fields) > 1 or disabled is None:
        send(context, "PATCH", "users", fields, in_path=True)
    if disabled is not None:
        verb = "disable" if disabled else "enable"
        made = call(context.obj, lambda: ask("POST", f"{path_of('users', name)}/{verb}"))
        print_record(made, output=context.obj.output)


update.add_command(_renamed(update_user, "service", "Change the service identity NAME."))


@update.command("group")
@with_all(
    _NAME,
    click.option("--add", multiple=True, help="A new member; may be repeated."),
    click.option("--remove", multiple=True, help="A member no longer; may be repeated."),
    _EXTERNAL,
    _DESCRIPTION,
    FILE,
)
@options
@click.pass_context
def update_group(context: click.Context, /, **given: Any) -> None:
    """Change the group NAME."""
    send(context, "PATCH", "groups", enter(context, given), in_path=True)


@update.command("role")
@with_all(_NAME, _ACTION, _DESCRIPTION, FILE)
@options
@click.pass_context
def update_role(context: click.Context, /, **given: Any) -> None:
    """Replace the actions of the role NAME, for all who have it."""
    send(context, "PUT", "roles", enter(context, given), in_path=True)


@update.command("policy")
@with_all(_NAME, _TEXT, *THING, _DESCRIPTION, _DRY_RUN, FILE)
@options
@click.pass_context
def update_policy(context: click.Context, /, **given: Any) -> None:
    """Rewrite the policy NAME, its scope included."""
    send(context, "PUT", "policies", _policy_fields(enter(context, given, scoped=True)), in_path=True)


# get


async def _show(target: Target, noun: str, name: str | None, columns: tuple[str, ...]) -> None:
    if name is not None:
        print_record(await ask("GET", path_of(noun, name)), output=target.output)
        return
    found = (await ask("GET", path_of(noun)))[noun]
    print_records(found, columns=columns, output=target.output)


async def _people(target: Target, name: str | None, kind: str) -> None:
    if name is not None:
        print_record(await ask("GET", path_of("users", name)), output=target.output)
        return
    found: list[Any] = []
    after: str | None = ""
    while after is not None and len(found) < PAGE_LIMIT:
        page = await ask("GET", f"{path_of('users')}?{urlencode({'after': after})}")
        found += [each for each in page["users"] if each["kind"] == kind]
        after = page["next"]
    columns = ("name", "display_name", "email", "disabled", "created_at")
    print_records(found, columns=columns, output=target.output)


@click.command("user")
@_NAME
@remote
async def get_user(target: Target, name: str | None) -> None:
    """Show the person NAME, or list people."""
    await _people(target, name, "user")


@click.command("service")
@_NAME
@remote
async def get_service(target: Target, name: str | None) -> None:
    """Show the service identity NAME, or list them."""
    await _people(target, name, "service")


@click.command("group")
@_NAME
@remote
async def get_group(target: Target, name: str | None) -> None:
    """Show the group NAME, or list groups."""
    await _show(target, "groups", name, ("name", "members", "external", "description"))


@click.command("role")
@_NAME
@remote
async def get_role(target: Target, name: str | None) -> None:
    """Show the role NAME, or list the roles that administrators made."""
    await _show(target, "roles", name, ("name", "actions", "description"))


@click.command("policy")
@_NAME
@remote
async def get_policy(target: Target, name: str | None) -> None:
    """Show the policy NAME, or list the policies that you may view."""
    await _show(target, "policies", name, ("name", "project", "domain", "task", "app", "updated_by"))


# delete


def _deleter(noun: str, path: str, what: str) -> click.Command:
    @click.command(noun, help=what)
    @click.argument("name")
    @remote
    async def delete(target: Target, name: str) -> None:
        await ask("DELETE", path_of(path, name))
        click.echo(f"Deleted {noun} {name}.", err=True)

    return delete


delete_user = _deleter(
    "user", "users", "End the user NAME for good: without roles and keys, the name stays taken."
)
delete_service = _deleter("service", "users", "End the service identity NAME for good.")
delete_group = _deleter("group", "groups", "Delete the group NAME and what it was given.")
delete_role = _deleter("role", "roles", "Delete the role NAME that nobody has.")
delete_policy = _deleter("policy", "policies", "Delete the policy NAME.")
