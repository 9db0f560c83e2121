"""`flyte whoami`: who the control plane takes you for."""

from __future__ import annotations

import rich_click as click

from ._command import Target, remote
from ._output import print_record


@click.command("whoami")
@remote
async def whoami(target: Target) -> None:
    """Show who the control plane takes you for."""
    from flyte.remote import User

    user = await User.get.aio()
    known = {"subject": user.subject(), "name": user.name(), "email": user.email()}
    print_record({**known, **user.to_dict()}, output=target.output)
