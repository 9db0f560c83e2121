"""`tower users`: people and service identities."""

from __future__ import annotations

import json
import sys
from typing import Any
from urllib.parse import quote, urlencode

import rich_click as click

from tower.cli.administration import DOMAIN, JSON, PROJECT, ROLE, Administration, faults, table


@click.group()
def users() -> None:
    """People and service identities, and what they may do."""


@users.command("add")
@click.argument("name")
@ROLE
@PROJECT
@DOMAIN
@click.option("--service", is_flag=True, help="A service identity: for programs, with no person behind it.")
@click.option("--email", default="", help="An address to show.")
@click.pass_obj
@faults
def add_user(
    tower: Administration,
    *,
    name: str,
    role: str | None,
    project: str,
    domain: str,
    service: bool,
    email: str,
) -> None:
    """Add a person. Without --role they may do nothing yet."""
    if role is None and (project, domain) != ("*", "*"):
        raise click.UsageError("--project and --domain say where a --role holds.")
    body = {"name": name, "service": service, "email": email, "project": project, "domain": domain}
    tower.call("POST", "/users", body if role is None else {**body, "role": role})
    print(f"added {name}")


@users.command("grant")
@click.argument("name")
@click.option("--role", required=True, help="The role.")
@PROJECT
@DOMAIN
@click.pass_obj
@faults
def grant(tower: Administration, name: str, role: str, project: str, domain: str) -> None:
    """Give a role in a scope."""
    tower.call("POST", "/bindings", {"user": name, "role": role, "project": project, "domain": domain})
    print(f"{name} is {role} in {project}/{domain}")


@users.command("revoke")
@click.argument("name")
@click.option("--role", required=True, help="The role.")
@PROJECT
@DOMAIN
@click.pass_obj
@faults
def revoke(tower: Administration, name: str, role: str, project: str, domain: str) -> None:
    """Take a role in exactly this scope away."""
    query = urlencode({"user": name, "role": role, "project": project, "domain": domain})
    tower.call("DELETE", f"/bindings?{query}")
    print(f"{name} is no longer {role} in {project}/{domain}")


@users.command("disable")
@click.argument("name")
@click.pass_obj
@faults
def disable(tower: Administration, name: str) -> None:
    """Refuse everything of theirs from the next call on."""
    tower.call("POST", f"/users/{quote(name, safe='')}/disable")
    print(f"disabled {name}")


@users.command("enable")
@click.argument("name")
@click.pass_obj
@faults
def enable(tower: Administration, name: str) -> None:
    """Undo a disable."""
    tower.call("POST", f"/users/{quote(name, safe='')}/enable")
    print(f"enabled {name}")


@users.command("list")
@JSON
@click.pass_obj
@faults
def list_users(tower: Administration, output: str) -> None:
    """List people and service identities with their roles."""
    people: list[dict[str, Any]] = []
    after: str | None = ""
    while after is not None:
        page = tower.call("GET", f"/users?{urlencode({'after': after})}")
        people += page["users"]
        after = page["next"]
    roles: dict[str, list[str]] = {}
    for binding in tower.call("GET", "/bindings")["bindings"]:
        roles.setdefault(binding["user"], []).append(
            f"{binding['role']}:{binding['project']}/{binding['domain']}"
        )
    if output == "json":
        print(json.dumps([{**person, "roles": roles.get(person["name"], [])} for person in people], indent=2))
        return
    rows = [
        (
            person["name"],
            person["kind"],
            "disabled" if person["disabled"] else "enabled",
            " ".join(roles.get(person["name"], ["-"])),
        )
        for person in people
    ]
    table(("NAME", "KIND", "STATE", "ROLES"), rows)


@users.command("link")
@click.argument("name")
@click.pass_obj
@faults
def link(tower: Administration, name: str) -> None:
    """Print a link that signs this person in, once and soon."""
    print(tower.call("POST", "/links", {"user": name})["url"])


@users.command("password")
@click.argument("name")
@click.option("--stdin", "piped", is_flag=True, help="Read the password from standard input, one line.")
@click.option("--remove", is_flag=True, help="Take the password away instead.")
@click.pass_obj
@faults
def password(tower: Administration, name: str, *, piped: bool, remove: bool) -> None:
    """Give a person a password to sign in with. Ends their sessions and logins."""
    path = f"/users/{quote(name, safe='')}/password"
    if remove:
        tower.call("DELETE", path)
        print(f"{name} has no password any more")
        return
    secret = sys.stdin.readline().rstrip("\r\n") if piped else None
    if secret is None:
        secret = click.prompt("Password", hide_input=True, confirmation_prompt=True, err=True)
    tower.call("PUT", path, {"password": secret})
    print(f"{name} can sign in with the password")


@users.command("logout")
@click.argument("name")
@click.pass_obj
@faults
def logout(tower: Administration, name: str) -> None:
    """End a person's sessions and logins everywhere. Their API keys stay."""
    tower.call("POST", f"/users/{quote(name, safe='')}/logout")
    print(f"{name} is signed out everywhere")
