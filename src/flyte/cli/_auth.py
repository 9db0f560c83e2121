"""`flyte auth can-i` and `flyte auth why`: may I, or may they, and which policy says so."""

from __future__ import annotations

from typing import Any

import rich_click as click

from ._command import Group, Target, remote
from ._output import print_json

_AS = click.option("--as", "subject", metavar="USER", help="Somebody else; needs the right to view policies.")


@click.group("auth", cls=Group)
def auth() -> None:
    """Ask what you may do, and why."""


@auth.command("can-i")
@click.argument("action")
@click.argument("resource")
@_AS
@remote
async def can_i(target: Target, action: str, resource: str, subject: str | None) -> int:
    """Say whether you may do ACTION (as task:run) on RESOURCE (as task:PROJECT/DOMAIN/NAME, app:…, org).

    Ends with 0 for yes and 4 for no.
    """
    answer = await _ask(action, resource, subject)
    if target.output == "json":
        print_json(answer)
    else:
        click.echo("yes" if answer["allowed"] else "no")
        click.echo(answer["reason"], err=True)
    return 0 if answer["allowed"] else 4


@auth.command("why")
@click.argument("action")
@click.argument("resource")
@_AS
@remote
async def why(target: Target, action: str, resource: str, subject: str | None) -> None:
    """Explain the decision about ACTION on RESOURCE: the policies, roles and limits that made it."""
    answer = await _ask(action, resource, subject)
    if target.output == "json":
        print_json(answer)
        return
    click.echo(f"{answer['subject']} {answer['action']} {answer['resource']}")
    click.echo(answer["reason"])
    for role in answer["roles"]:
        place = f"{role['project']}/{role['domain']}"
        one = f" for {role['kind']} {role['name']}" if role["kind"] else ""
        through = f" through group {role['group']}" if role["group"] else ""
        mark = "allows" if role["allows"] else "does not allow"
        click.echo(f"  role {role['role']} in {place}{one}{through}: {mark} it")
    for limit in answer["limits"]:
        click.echo(f"  limit of {limit['source']}: {'leaves' if limit['allows'] else 'takes'} it")
    click.echo(f"  policy revision {answer['policy_revision']}")


async def _ask(action: str, resource: str, subject: str | None) -> Any:
    from flyte._init import current_session

    asked = {"action": action, "resource": resource}
    if subject is not None:
        asked["as"] = subject
    return await current_session().json("POST", "/api/v1/authorize", asked, idempotent=True)
