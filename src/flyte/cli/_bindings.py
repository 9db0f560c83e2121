"""`flyte create|update|get|delete binding`: roles given, over the administration interface."""

from __future__ import annotations

from typing import Any
from urllib.parse import urlencode

import rich_click as click

from ._admin import FILE, THING, ask, enter, path_of, send, with_all
from ._command import Target, call, options, remote
from ._exits import Exit, Failed
from ._output import print_records

_HOLDER = (
    click.option("--user", help="Who has it: a user or service."),
    click.option("--group", help="Who has it: a group."),
    click.option("--role", help="admin, contributor, viewer or one of your own."),
)
_SERVICE = click.option("--service", help="For this service alone, with the role act-as.")
_PLACE = ("role", "project", "domain", "kind", "name")


@click.command("binding")
@with_all(*_HOLDER, *THING, _SERVICE, FILE)
@options
@click.pass_context
def create_binding(context: click.Context, /, **given: Any) -> None:
    """Give a role, in --project and --domain behind `binding` (default: everywhere)."""
    send(context, "POST", "bindings", enter(context, given, scoped=True))


@click.command("binding")
@with_all(
    *_HOLDER,
    click.option("--in-place-of", required=True, metavar="ROLE", help="The role that is taken away."),
    *THING,
    _SERVICE,
)
@options
@click.pass_context
def update_binding(context: click.Context, /, **given: Any) -> None:
    """Give a role in place of another, in exactly the scope of --project and --domain behind `binding`.

    The new one is given before the old one is taken away.
    """
    former = given.pop("in_place_of")
    fields = enter(context, given, scoped=True)
    if former == fields.get("role"):
        raise click.UsageError("--role and --in-place-of name the same role.")
    thing = next(((kind, fields[kind]) for kind in ("task", "app", "service") if kind in fields), ("", ""))
    place = (former, fields.get("project", "*"), fields.get("domain", "*"), *thing)
    whose: dict[str, str] = {key: fields[key] for key in ("user", "group") if key in fields}
    held = call(context.obj, lambda: ask("GET", f"{path_of('bindings')}?{urlencode(whose)}"))["bindings"]
    if place not in {tuple(each[field] for field in _PLACE) for each in held}:
        raise Failed(f"They do not have the role {former} there.", Exit.NOT_FOUND)
    old = {**fields, "role": former}
    send(context, "POST", "bindings", fields)
    call(context.obj, lambda: ask("DELETE", f"{path_of('bindings')}?{urlencode(old)}"))


@click.command("binding")
@click.option("--user", help="Those of a user or service.")
@click.option("--group", help="Those of a group.")
@remote
async def get_binding(target: Target, user: str | None, group: str | None) -> None:
    """List the roles given."""
    asked = {key: value for key, value in (("user", user), ("group", group)) if value is not None}
    found = (await ask("GET", f"{path_of('bindings')}?{urlencode(asked)}"))["bindings"]
    columns = ("user", "group", "role", "project", "domain", "kind", "name")
    print_records(found, columns=columns, output=target.output)


@click.command("binding")
@with_all(*_HOLDER, *THING, _SERVICE)
@options
@click.pass_context
def delete_binding(context: click.Context, /, **given: Any) -> None:
    """Take a role away, in exactly the scope of --project and --domain behind `binding` (default: all)."""
    fields = enter(context, given, scoped=True)
    call(context.obj, lambda: ask("DELETE", f"{path_of('bindings')}?{urlencode(fields)}"))
    click.echo("Deleted.", err=True)
