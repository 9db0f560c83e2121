"""`flyte get grant` and `flyte delete grant RUN`: how long runs may act for their person."""

from __future__ import annotations

from typing import Any
from urllib.parse import quote, urlencode

import rich_click as click

from ._command import Target, remote
from ._output import print_record, print_records

_PATH = "/api/v1/grants"
_COLUMNS = ("run", "user", "task", "app", "phase", "expires_at", "ended")


@click.command("grant")
@click.option("--user", help="Those of one person; for others than yourself as an administrator.")
@remote
async def get_grant(target: Target, user: str | None) -> None:
    """List the grants of runs that have not ended: your own, or everybody's as an administrator.

    Under its grant a run goes on acting for its person after they signed out.
    """
    from flyte._init import current_session

    asked = {} if user is None else {"user": user}
    found: list[Any] = []
    after: str | None = ""
    while after is not None:
        page = await current_session().json("GET", f"{_PATH}?{urlencode({**asked, 'after': after})}")
        found += page["grants"]
        after = page["next"]
    print_records(found, columns=_COLUMNS, output=target.output)


@click.command("grant")
@click.argument("run")
@remote
async def delete_grant(target: Target, run: str) -> None:
    """Revoke the grant of RUN: it, and all that it asked for, acts for nobody from its next call on.

    RUN is a name in the project and domain in force, or PROJECT/DOMAIN/NAME. `flyte abort run` ends the run.
    """
    from flyte._init import current_session

    session = current_session()
    place = run.split("/")
    if len(place) == 1:
        place = [session.project or "", session.domain or "", run]
    if len(place) != 3 or not all(place):
        raise click.BadParameter("Name the run, with --project and --domain or as PROJECT/DOMAIN/NAME.")
    where = "/".join(quote(part, safe="") for part in place)
    record = await session.json("DELETE", f"{_PATH}/{where}")
    if target.output == "json":
        print_record(record, output="json")
    click.echo(f"Revoked the grant of {place[2]}.", err=True)
