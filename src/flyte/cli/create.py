"""`flyte create api-key`: make a key, show it once, keep it for its owner."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any
from urllib.parse import quote, urlencode

import rich_click as click

from ._command import Group, Target, call, narrowed, options
from ._output import print_json

if TYPE_CHECKING:
    from ._keystore import Keystore


@click.group(
    "create",
    cls=Group,
    lazy={
        "user": "_admin:create_user",
        "service": "_admin:create_service",
        "group": "_admin:create_group",
        "role": "_admin:create_role",
        "binding": "_bindings:create_binding",
        "policy": "_admin:create_policy",
        "secret": "_secret:create_secret",
    },
)
def create() -> None:
    """Make an API key, a secret, a user, service, group, role, binding or policy."""


@create.command("api-key")
@click.argument("called", metavar="[NAME]", required=False)
@click.option("--name", help="What to call it.")
@click.option("--user", help="Whose key; another's needs the right to manage keys. [default: yours]")
@click.option("--role", help="The most that the key may do: admin, contributor or viewer.")
@click.option("--action", "actions", multiple=True, help="An action it may do, as task:run; may be repeated.")
@click.option("--expires", metavar="SPAN", help="How long it holds: 3600, 12h, 30d. [default: for ever]")
@click.option(
    "--format",
    "form",
    type=click.Choice(["twr", "flyte"]),
    default="twr",
    show_default=True,
    help="How the key is written; `flyte` is the form that the official SDK's api_key takes.",
)
@click.option("--default", "is_default", is_flag=True, help="Use it here when FLYTE_API_KEY is not set.")
@options
@click.pass_context
def api_key(context: click.Context, /, **given: Any) -> None:
    """Make an API key under NAME and print it, once.

    The key alone goes to standard output. It is also kept in ~/.flyte/keys.json (or $FLYTE_HOME), readable by
    you alone, so that `flyte get api-key NAME` can print it again on this machine.

    --role, --action, and --project and --domain behind `api-key`, are a ceiling: the key never has more than
    its owner's rights within it.
    """
    names = {name for name in (given.pop("called"), given["name"]) if name}
    if len(names) != 1:
        raise click.UsageError("The name is missing." if not names else "There are two names.")
    (given["name"],) = names
    ceiling = {name: given.get(name) for name in ("project", "domain")}
    target = narrowed(context.obj, given)
    call(target, lambda: _create(target, ceiling=ceiling, **given))


async def _create(
    target: Target,
    *,
    name: str,
    user: str | None,
    role: str | None,
    actions: tuple[str, ...],
    expires: str | None,
    form: str,
    is_default: bool,
    ceiling: dict[str, str | None],
) -> None:
    from flyte._init import current_session

    from ._keystore import Keystore

    session = current_session()
    store = Keystore()
    store.check()  # a file that cannot be used is reported before a key exists
    asked = {"name": name, "user": user, "role": role, "expires_in": expires, "format": form, **ceiling}
    body: dict[str, Any] = {field: value for field, value in asked.items() if value is not None}
    if actions:
        body["actions"] = list(actions)
    made: dict[str, Any] = await session.json("POST", "/api/v1/keys", body)
    show_once(target, made, store=store, is_default=is_default)


def key_path(name: str, user: str | None, verb: str = "") -> str:
    """The address of a key in the administration API; `user` says whose."""
    query = "" if user is None else "?" + urlencode({"user": user})
    return f"/api/v1/keys/{quote(name, safe='')}{verb}{query}"


def show_once(target: Target, made: dict[str, Any], *, store: Keystore, is_default: bool) -> None:
    """Print a key just made and keep it for its owner."""
    from flyte._init import current_session

    from ._keystore import KeystoreError, StoredKey

    if target.output == "json":
        print_json(made)
    else:
        click.echo(made["key"])
    kept = StoredKey(
        endpoint=current_session().endpoint.url,
        name=made["name"],
        id=made["id"],
        user=made["user"],
        key=made["key"],
        default=is_default,
    )
    try:
        store.add(kept)
    except KeystoreError as error:
        click.echo(f"Warning: the key was made but not kept. {error.message} {error.hint}".rstrip(), err=True)
        return
    click.echo(f"Kept in {store.path}. The control plane cannot show it again.", err=True)
