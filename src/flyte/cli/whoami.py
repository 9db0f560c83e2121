"""`flyte whoami`: who the control plane takes you for."""

from __future__ import annotations

from typing import Any

import rich_click as click

from ._command import Target, remote
from ._output import print_record


@click.command("whoami")
@remote
async def whoami(target: Target) -> None:
    """Show who the control plane takes you for, by which credential, and what you may do."""
    from flyte._init import current_session
    from flyte.errors import FlyteError
    from flyte.remote import User

    user = await User.get.aio()
    session = current_session()
    known: dict[str, Any] = {"subject": user.subject(), "name": user.name(), "email": user.email()}
    more: dict[str, Any] | None = None
    if session.is_tower:
        try:
            more = await session.json("GET", "/api/v1/whoami")
        except FlyteError:
            more = None  # an older server: what the wire tells has to do
    if not isinstance(more, dict):
        print_record({**known, **user.to_dict(), "endpoint": session.endpoint.url}, output=target.output)
        return
    shown = more.get("credential") or {}
    print_record(
        {
            **known,
            "kind": more.get("kind"),
            "endpoint": session.endpoint.url,
            "credential": shown.get("kind"),
            "credential_id": shown.get("id"),
            "expires_at": shown.get("expires_at"),
            "signed_in_by": session.mode,
            "roles": more.get("roles"),
            "limits": more.get("limits"),
            "acting_through": more.get("actors"),
        },
        output=target.output,
    )
