"""`tower keys`: API keys and the keys that sign."""

from __future__ import annotations

import json
from urllib.parse import quote, urlencode

import rich_click as click

from tower.cli.administration import DOMAIN, JSON, PROJECT, ROLE, Administration, faults, table


@click.group()
def keys() -> None:
    """API keys."""


@keys.command("create")
@click.argument("name")
@click.option("--user", required=True, help="Whose key it is.")
@ROLE
@PROJECT
@DOMAIN
@click.option("--expires", help="When it ends, from now: 12h, 30d, 4w. Default: never.")
@click.option("--format", "form", type=click.Choice(["twr", "flyte"]), default="twr", show_default=True)
@click.pass_obj
@faults
def create_key(
    tower: Administration,
    *,
    name: str,
    user: str,
    role: str | None,
    project: str,
    domain: str,
    expires: str | None,
    form: str,
) -> None:
    """Make a key and print it, alone and once. Role and scope are its ceiling: it adds no rights."""
    wanted = {
        "name": name,
        "user": user,
        "role": role,
        "project": project,
        "domain": domain,
        "expires_in": expires,
        "format": form,
    }
    print(tower.call("POST", "/keys", wanted)["key"])


@keys.command("list")
@click.option("--user", help="Only the keys of this user.")
@JSON
@click.pass_obj
@faults
def list_keys(tower: Administration, user: str | None, output: str) -> None:
    """List keys. What they are is shown by nobody."""
    found = tower.call("GET", "/keys" if user is None else f"/keys?{urlencode({'user': user})}")["keys"]
    if output == "json":
        print(json.dumps(found, indent=2))
        return
    rows = [
        (
            key["name"],
            key["user"],
            key["id"],
            f"{key['role'] or 'any role'} in {key['project']}/{key['domain']}",
            key["expires_at"] or "never",
            key["last_used_at"] or "never",
        )
        for key in found
    ]
    table(("NAME", "USER", "ID", "CEILING", "EXPIRES", "LAST USED"), rows)


@keys.command("delete")
@click.argument("name")
@click.pass_obj
@faults
def delete_key(tower: Administration, name: str) -> None:
    """End a key. Its next call is refused."""
    tower.call("DELETE", f"/keys/{quote(name, safe='')}")
    print(f"deleted {name}")


@keys.command("rotate-signing")
@click.pass_obj
@faults
def rotate_signing(tower: Administration) -> None:
    """Sign tokens with a new key. What is signed already goes on to hold until it expires."""
    print(f"signing with {tower.call('POST', '/signing-keys/rotate')['kid']}")
