"""`flyte abort run NAME`."""

from __future__ import annotations

import rich_click as click

from ._command import Group, Target, remote


@click.group("abort", cls=Group)
def abort() -> None:
    """End a run."""


@abort.command("run")
@click.argument("name")
@click.option("--reason", default="", help="Why; the run page and the audit trail show it.")
@remote
async def run(target: Target, name: str, reason: str) -> None:
    """End the run NAME."""
    from flyte.remote import Run

    await (await Run.get.aio(name)).abort.aio(reason)
    click.echo(f"The end of {name} was asked for.", err=True)
