"""`tower keys`: API keys and the keys that sign."""

from __future__ import annotations

import json
from typing import Any
from urllib.parse import quote, urlencode

import rich_click as click

from tower.cli.administration import DOMAIN, JSON, PROJECT, ROLE, Administration, faults, table

FORMAT = click.option(
    "--format",
    "form",
    type=click.Choice(["twr", "flyte"]),
    default="twr",
    show_default=True,
    help="How it is written; `flyte` is the form that the official SDK's api_key takes.",
)


WHOSE = click.option("--user", help="Whose key, where several people have one of this name.")


@click.group()
def keys() -> None:
    """API keys."""


@keys.command("create")
@click.argument("name")
@click.option("--user", required=True, help="Whose key it is.")
@ROLE
@PROJECT
@DOMAIN
@click.option("--action", "actions", multiple=True, help="An action it may do, as task:run; may be repeated.")
@click.option("--expires", help="When it ends, from now: 12h, 30d, 4w. Default: never.")
@FORMAT
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
    actions: tuple[str, ...],
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
        "actions": list(actions) or None,
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
            _ceiling(key),
            "disabled" if key["disabled"] else "replaced" if key["replaced_by"] else "in use",
            key["expires_at"] or "never",
            key["last_used_at"] or "never",
        )
        for key in found
    ]
    table(("NAME", "USER", "ID", "CEILING", "STATE", "EXPIRES", "LAST USED"), rows)


@keys.command("rotate")
@click.argument("name")
@WHOSE
@click.option(
    "--overlap", default="1h", show_default=True, help="How long the old one still holds: 0, 1h, 7d."
)
@click.option(
    "--expires", help="When the new one ends. Default: it lives as long as the old one was made for."
)
@FORMAT
@click.pass_obj
@faults
def rotate_key(
    tower: Administration, *, name: str, user: str | None, overlap: str, expires: str | None, form: str
) -> None:
    """Make a new key under the same name and print it, alone and once. The old one ends after the overlap."""
    wanted = {"overlap": overlap, "expires_in": expires, "format": form}
    print(tower.call("POST", _path(name, user, "/rotate"), wanted)["key"])


@keys.command("disable")
@click.argument("name")
@WHOSE
@click.pass_obj
@faults
def disable_key(tower: Administration, name: str, user: str | None) -> None:
    """Refuse a key from its next call on, and what was made from it, until it is enabled again."""
    tower.call("POST", _path(name, user, "/disable"))
    print(f"disabled {name}")


@keys.command("enable")
@click.argument("name")
@WHOSE
@click.pass_obj
@faults
def enable_key(tower: Administration, name: str, user: str | None) -> None:
    """Let a key that was disabled hold again."""
    tower.call("POST", _path(name, user, "/enable"))
    print(f"enabled {name}")


def _path(name: str, user: str | None, verb: str = "") -> str:
    return f"/keys/{quote(name, safe='')}{verb}" + ("" if user is None else f"?{urlencode({'user': user})}")


def _ceiling(key: dict[str, Any]) -> str:
    only = f" only {', '.join(key['actions'])}" if key["actions"] else ""
    below = f" below {key['maker']}" if key["maker"] else ""
    return f"{key['role'] or 'any role'} in {key['project']}/{key['domain']}{only}{below}"


@keys.command("delete")
@click.argument("name")
@WHOSE
@click.pass_obj
@faults
def delete_key(tower: Administration, name: str, user: str | None) -> None:
    """End a key. Its next call is refused."""
    tower.call("DELETE", _path(name, user))
    print(f"deleted {name}")


@keys.command("rotate-signing")
@click.pass_obj
@faults
def rotate_signing(tower: Administration) -> None:
    """Sign tokens with a new key. What is signed already goes on to hold until it expires."""
    print(f"signing with {tower.call('POST', '/signing-keys/rotate')['kid']}")
