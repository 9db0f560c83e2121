"""`flyte deploy FILE ENV`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import rich_click as click

from ._command import Target, enter, options
from ._output import print_json, print_records
from ._progress import deploying
from ._userfile import FILE, load

if TYPE_CHECKING:
    from flyte._bundle import CopyStyle
    from flyte._deploy import Loaded
    from flyte._environment import Environment

COPY_STYLES = click.Choice(["loaded_modules", "all"])
COPY_STYLE_HELP = "Which code goes along: what FILE imports from below its folder, or all of the folder."


@click.command("deploy")
@click.argument("file", type=FILE)
@click.argument("env")
@click.option("--version", help="The version of the tasks. [default: decided by code and declarations]")
@click.option(
    "--copy-style", type=COPY_STYLES, default="loaded_modules", show_default=True, help=COPY_STYLE_HELP
)
@options
@click.pass_context
def deploy(context: click.Context, /, file: Path, env: str, **given: Any) -> None:
    """Register the tasks of the environment ENV in FILE, and what it depends on.

    ENV is the variable that holds the environment, or the environment's name. Deploying the same code and
    declarations again changes nothing.
    """
    loaded = load(file)
    given |= {"loaded": loaded, "environment": loaded.environment(env)}
    enter(context, _deploy, given)


async def _deploy(
    target: Target, *, loaded: Loaded, environment: Environment, version: str | None, copy_style: CopyStyle
) -> None:
    from flyte._deploy import deploy as start

    with deploying() as progress:
        done = await start.aio(
            environment, version=version, copy_style=copy_style, root_dir=loaded.root, progress=progress
        )
    for reason in done.left_out:
        click.echo(f"Left out: {reason}", err=True)
    for trigger in [trigger for each in done.tasks for trigger in each.triggers if trigger.notice]:
        click.echo(f"Trigger {trigger.name} of {trigger.task_name}: {trigger.notice}", err=True)
    if target.output == "json":
        print_json(done.to_dict())
        return
    rows = [{"name": each.name, "version": each.version, "url": each.url} for each in done.tasks]
    rows += [{"name": each.name, "version": "", "url": each.url} for each in done.apps]
    print_records(rows, columns=("name", "version", "url"), output="table")
