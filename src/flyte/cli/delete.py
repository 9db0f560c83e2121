"""`flyte delete api-key NAME`."""

from __future__ import annotations

from typing import Any

import rich_click as click

from ._command import Group, Target, remote


@click.group(
    "delete",
    cls=Group,
    lazy={
        "trigger": "_triggers:delete_trigger",
        "user": "_admin:delete_user",
        "service": "_admin:delete_service",
        "group": "_admin:delete_group",
        "role": "_admin:delete_role",
        "binding": "_bindings:delete_binding",
        "policy": "_admin:delete_policy",
        "app-ceiling": "_ceilings:delete_ceiling",
        "secret": "_secret:delete_secret",
        "grant": "_grants:delete_grant",
    },
)
def delete() -> None:
    """Delete an API key, secret, trigger, grant, limits of an app, a user, service, group, role, binding or
    policy.
    """


@delete.command("api-key")
@click.argument("name")
@click.option("--user", help="Whose key, where several people have one of this name. [default: yours]")
@remote
async def api_key(target: Target, name: str, user: str | None) -> None:
    """Delete the API key NAME: its next use is refused, here and at every app."""
    from flyte._init import current_session

    from ._keystore import Keystore
    from .create import key_path

    session = current_session()
    ended: dict[str, Any] = await session.json("DELETE", key_path(name, user))
    Keystore().remove(session.endpoint, name=name, user=ended["user"])
    click.echo(f"Deleted {name}.", err=True)
