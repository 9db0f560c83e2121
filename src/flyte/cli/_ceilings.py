"""`flyte get|update|delete app-ceiling NAME`: what an app may do for people at most."""

from __future__ import annotations

from urllib.parse import quote

import rich_click as click

from ._command import Target, remote
from ._output import print_json, print_records


@click.command("app-ceiling")
@click.argument("name", metavar="APP")
@remote
async def get_ceiling(target: Target, name: str) -> None:
    """Show the limits of APP: those that it was deployed with and those set by administrators. All hold."""
    from flyte._init import current_session

    answer = await current_session().json("GET", _path(name))
    found = answer["ceilings"]
    if target.output == "json":
        print_json(found)
        return
    lists = ("actions", "projects", "tasks")
    rows = [{**each, **{field: _shown(each.get(field)) for field in lists}} for each in found]
    print_records(rows, columns=("source", *lists, "updated_by", "updated_at"), output="table")


@click.command("app-ceiling")
@click.argument("name", metavar="APP")
@click.option("--action", "actions", multiple=True, help="Only this action, as task:run; may be repeated.")
@click.option("--in-project", "projects", multiple=True, help="Only in this project; may be repeated.")
@click.option(
    "--task", "tasks", multiple=True, help="Only this task, PROJECT/DOMAIN/ENVIRONMENT.FUNCTION; repeatable."
)
@click.option("--no-action", is_flag=True, help="Nothing at all, for anybody.")
@remote
async def update_ceiling(  # noqa: PLR0917 - the options of one command
    target: Target,
    name: str,
    actions: tuple[str, ...],
    projects: tuple[str, ...],
    tasks: tuple[str, ...],
    no_action: bool,
) -> None:
    """Limit what APP may do for people, in place of what an administrator had set. Holds at the next call.

    What is not named is not limited. The limits that the app was deployed with hold besides.
    """
    from flyte._init import current_session

    if no_action and actions:
        raise click.UsageError("--no-action does not go with --action.")
    given = {"actions": actions, "projects": projects, "tasks": tasks}
    limits = {field: list(values) for field, values in given.items() if values}
    if no_action:
        limits["actions"] = []
    if not limits:
        raise click.UsageError(
            f"Say what it may do: --action, --in-project, --task. To lift it: flyte delete app-ceiling {name}"
        )
    await current_session().json("PUT", _path(name), limits)
    click.echo(f"Limited {name}.", err=True)


@click.command("app-ceiling")
@click.argument("name", metavar="APP")
@remote
async def delete_ceiling(target: Target, name: str) -> None:
    """Lift the limits that an administrator set for APP; those that it was deployed with stay."""
    from flyte._init import current_session

    await current_session().json("DELETE", _path(name))
    click.echo(f"Lifted the limits of {name}.", err=True)


def _path(name: str) -> str:
    from flyte._init import current_session

    place = (*current_session().scope(), name)
    return "/api/v1/ceilings/" + "/".join(quote(part, safe="") for part in place)


def _shown(values: list[str] | None) -> str:
    """What is allowed, in a cell: none is not the same as no limit."""
    if values is None:
        return "any"
    return ", ".join(values) or "none"
