"""`flyte get|update|delete trigger`."""

from __future__ import annotations

import rich_click as click

from ._command import Target, remote
from ._output import print_record, print_records


@click.command("trigger")
@click.argument("name", required=False)
@click.argument("task", required=False)
@click.option(
    "--limit", type=click.IntRange(1, 10_000), default=100, show_default=True, help="How many at most."
)
@remote
async def get_trigger(target: Target, name: str | None, task: str | None, limit: int) -> None:
    """Show the trigger NAME of TASK, or list triggers: as whom they run, which version, when, and notices."""
    from flyte.remote import Trigger

    if name is not None:
        if task is None:
            raise click.UsageError("Name the task, too: flyte get trigger NAME TASK.")
        print_record((await Trigger.get.aio(name, task)).to_dict(), output=target.output)
        return
    records = [each.to_dict() async for each in Trigger.listall.aio(limit=limit)]
    columns = ("name", "task", "state", "owner", "schedule", "next_at", "last_at", "notice")
    print_records(
        records,
        columns=columns,
        output=target.output,
        empty="There are no triggers here, or none that you may see.",
    )


@click.command("trigger")
@click.argument("name")
@click.argument("task")
@click.option("--activate/--deactivate", "active", default=None, help="Have it start runs, as you; or not.")
@click.option("--version", help="The version to run from now on, as you; `latest` is the one deployed last.")
@remote
async def update_trigger(
    target: Target, name: str, task: str, active: bool | None, version: str | None
) -> None:
    """Activate or deactivate the trigger NAME of TASK, or move it to another version.

    It runs as who activates it. It keeps its version, whatever was deployed since, unless you name one.
    """
    from flyte.remote import Trigger

    if (active is None and version is None) or (active is False and version is not None):
        raise click.UsageError("Give --activate, --deactivate or --version.")
    trigger = await Trigger.get.aio(name, task)
    if version is not None:
        await trigger.pin.aio("" if version == "latest" else version)
    elif active:
        await trigger.activate.aio()
    else:
        await trigger.deactivate.aio()
    print_record(trigger.to_dict(), output=target.output)


@click.command("trigger")
@click.argument("name")
@click.argument("task")
@remote
async def delete_trigger(target: Target, name: str, task: str) -> None:
    """Delete the trigger NAME of TASK. Runs that it started stay."""
    from flyte.remote import Trigger

    await (await Trigger.get.aio(name, task)).delete.aio()
    click.echo(f"Deleted {name} of {task}.", err=True)
