"""`flyte logs NAME`: what a run or an app wrote."""

from __future__ import annotations

import datetime as dt
from collections.abc import AsyncIterator
from typing import TYPE_CHECKING

import rich_click as click

from ._command import Target, remote
from ._output import written

if TYPE_CHECKING:
    from flyte.remote import LogLine


@click.command("logs")
@click.argument("name")
@click.option("-f", "--follow", is_flag=True, help="Go on until the run has ended.")
@click.option("--attempt", type=click.IntRange(min=1), help="Which attempt. [default: the last]")
@click.option("--app", is_flag=True, help="NAME is an app, not a run.")
@click.option("-t", "--timestamps", is_flag=True, help="Put the time in front of each line, in UTC.")
@remote
async def logs(  # noqa: PLR0917 - the options of one command
    target: Target, name: str, follow: bool, attempt: int | None, app: bool, timestamps: bool
) -> None:
    """Print what the run NAME wrote.

    The exit status tells whether the logs could be read, not how the run ended; `flyte run --wait` does that.
    """
    from flyte.remote import App, Run

    lines: AsyncIterator[LogLine]
    if app:
        lines = (await App.get.aio(name)).logs.aio(follow=follow)
    else:
        lines = (await Run.get.aio(name)).logs.aio(attempt=attempt, follow=follow)
    async for line in lines:
        print_line(line, timestamps=timestamps)


def print_line(line: LogLine, *, timestamps: bool = False, err: bool = False) -> None:
    """One line of a log."""
    when = line.time.astimezone(dt.UTC).strftime("%Y-%m-%dT%H:%M:%S.%f")[:-3] + "Z " if line.time else ""
    click.echo(f"{when if timestamps else ''}{written(line.text, err=err)}", err=err)
