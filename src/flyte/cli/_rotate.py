"""`flyte update api-key NAME`: rotate it, disable it, enable it."""

from __future__ import annotations

from typing import Any

import rich_click as click

from ._command import Target, remote
from ._output import print_record


@click.command("api-key")
@click.argument("name")
@click.option("--user", help="Whose key, where several people have one of this name. [default: yours]")
@click.option("--rotate", is_flag=True, help="Make a new key under this name and print it, once.")
@click.option("--overlap", metavar="SPAN", help="How long the old one still holds: 0, 1h, 7d. [default: 1h]")
@click.option(
    "--expires", metavar="SPAN", help="When the new one ends. [default: as long as the old one's life]"
)
@click.option("--format", "form", type=click.Choice(["twr", "flyte"]), help="How the new key is written.")
@click.option("--disable/--enable", "disabled", default=None, help="Refuse it from its next call on, or not.")
@remote
async def api_key(
    target: Target, *, name: str, user: str | None, rotate: bool, disabled: bool | None, **how: str | None
) -> None:
    """Rotate, disable or enable the API key NAME.

    With --rotate the new key goes to standard output and replaces the old one in ~/.flyte/keys.json; the old
    one holds until the overlap is over. A disabled key, and all that came from it, is refused until it is
    enabled.
    """
    from flyte._init import current_session

    from ._keystore import Keystore
    from .create import key_path, show_once

    if rotate is (disabled is not None):
        raise click.UsageError("Say one of --rotate, --disable and --enable.")
    session = current_session()
    if disabled is not None:
        changed = await session.json("POST", key_path(name, user, "/disable" if disabled else "/enable"))
        print_record(changed, output=target.output)
        return
    store = Keystore()
    store.check()  # a file that cannot be used is reported before there is a new key
    asked = {"overlap": how["overlap"], "expires_in": how["expires"], "format": how["form"]}
    body = {field: value for field, value in asked.items() if value is not None}
    made: dict[str, Any] = await session.json("POST", key_path(name, user, "/rotate"), body)
    known = store.find(session.endpoint, name=name, user=made["user"])
    show_once(target, made, store=store, is_default=known is not None and known.default)
