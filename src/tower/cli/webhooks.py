"""`tower webhooks`: third parties that may deliver to an app, by a signature."""

from __future__ import annotations

import json
import sys
from urllib.parse import urlencode

import rich_click as click

from tower.cli.administration import JSON, Administration, faults, table


@click.group()
def webhooks() -> None:
    """Signed webhooks of third parties."""


@webhooks.command("set")
@click.argument("app", metavar="PROJECT/DOMAIN/APP")
@click.argument("path")
@click.option(
    "--scheme",
    type=click.Choice(["github", "slack", "standard", "hmac"]),
    required=True,
    help="How the third party signs.",
)
@click.option("--user", default="", help="Whom a delivery runs as: a service identity.")
@click.option(
    "--sender",
    "senders",
    multiple=True,
    metavar="SENDER=USER",
    help="Whom the deliveries of one sender run as. May be given again.",
)
@click.pass_obj
@faults
def set_webhook(
    tower: Administration, *, app: str, path: str, scheme: str, user: str, senders: tuple[str, ...]
) -> None:
    """Let deliveries in that are signed with the secret on standard input. It is shown to nobody again."""
    project, domain, name = _app(app)
    mapped = dict(each.rpartition("=")[::2] for each in senders)
    if any(not sender for sender in mapped):
        raise click.UsageError("Write --sender SENDER=USER.")
    if sys.stdin.isatty():
        secret = click.prompt("Secret", hide_input=True, err=True)
    else:
        secret = sys.stdin.readline().rstrip("\r\n")
    body = {
        "project": project,
        "domain": domain,
        "app": name,
        "path": path,
        "scheme": scheme,
        "secret": secret,
        "user": user,
        "senders": mapped,
    }
    tower.call("PUT", "/webhooks", body)
    print(f"{app} takes deliveries at {path}")


@webhooks.command("list")
@JSON
@click.pass_obj
@faults
def list_webhooks(tower: Administration, output: str) -> None:
    """List webhooks. What their secrets are is shown by nobody."""
    found = tower.call("GET", "/webhooks")["webhooks"]
    if output == "json":
        print(json.dumps(found, indent=2))
        return
    rows = [
        (
            f"{each['project']}/{each['domain']}/{each['app']}",
            each["path"],
            each["scheme"],
            each["user"] or "-",
            str(len(each["senders"])),
        )
        for each in found
    ]
    table(("APP", "PATH", "SCHEME", "USER", "SENDERS"), rows)


@webhooks.command("delete")
@click.argument("app", metavar="PROJECT/DOMAIN/APP")
@click.argument("path")
@click.pass_obj
@faults
def delete_webhook(tower: Administration, app: str, path: str) -> None:
    """Let no delivery in any more."""
    project, domain, name = _app(app)
    query = urlencode({"project": project, "domain": domain, "app": name, "path": path})
    tower.call("DELETE", f"/webhooks?{query}")
    print(f"{app} takes no deliveries at {path} any more")


def _app(text: str) -> tuple[str, str, str]:
    parts = text.split("/")
    if len(parts) != 3 or not all(parts):
        raise click.UsageError("Name the app as PROJECT/DOMAIN/APP.")
    return parts[0], parts[1], parts[2]
