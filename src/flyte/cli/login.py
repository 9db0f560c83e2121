"""`flyte login` and `flyte logout`: become yourself on this machine, and stop being it."""

from __future__ import annotations

import asyncio
import os
import sys
from typing import TYPE_CHECKING, Any

import rich_click as click

from ._command import Target, narrowed, options

if TYPE_CHECKING:
    from flyte._config import Settings
    from flyte.transport.login.cache import Entry
    from flyte.transport.login.server import AuthServer


@click.command("login")
@click.option("--device", is_flag=True, help="Show a code to confirm on another machine.")
@click.option("--key", "with_key", is_flag=True, help="Keep an API key, from a prompt or standard input.")
@click.option("--no-browser", is_flag=True, help="Print the address instead of opening it.")
@click.option("--role", help="The most that this login may do: admin, contributor or viewer.")
@options
@click.pass_context
def login(context: click.Context, /, **given: Any) -> None:
    """Sign in to a control plane, in the browser.

    The login is kept in ~/.flyte/logins.json (or $FLYTE_HOME), readable by you alone, one for each control
    plane. Commands, and `flyte.init` with the same endpoint, use it where FLYTE_API_KEY is not set.

    --role, and --project behind `login`, limit what it may do.
    """
    limits = {"role": given.pop("role"), "project": given.get("project"), "domain": given.get("domain")}
    if given["device"] and given["with_key"]:
        raise click.UsageError("--device and --key exclude each other.")
    target = narrowed(context.obj, given)
    settings = _settings(target)
    key = _read_key() if given["with_key"] else None
    entry = asyncio.run(_sign_in(settings, key=key, limits=limits, **_ways(given)))
    _keep(entry, settings)
    click.echo(f"Signed in to {settings.endpoint.url} as {entry.subject}.", err=True)


@click.command("logout")
@options
@click.option("--all", "everywhere", is_flag=True, help="Of every control plane.")
@click.pass_context
def logout(context: click.Context, /, *, everywhere: bool, **given: Any) -> None:
    """End the login here and at the control plane.

    An API key that `flyte login --key` kept is forgotten here and stays valid until it is deleted.
    """
    from flyte._config import Endpoint
    from flyte.transport.login.cache import LoginCache

    target = narrowed(context.obj, given)
    cache = LoginCache()
    if everywhere:
        places = [
            Endpoint.parse(entry.endpoint, insecure=entry.endpoint.startswith("http://"))
            for entry in cache.all()
        ]
    else:
        places = [_settings(target).endpoint]
    ended = [asyncio.run(_log_out(place, target.ca_file)) for place in places]
    if not any(ended):
        click.echo("There was no login.", err=True)


def _ways(given: dict[str, Any]) -> dict[str, bool]:
    return {"device": given["device"], "no_browser": given["no_browser"]}


def _settings(target: Target) -> Settings:
    from flyte import _config

    found = _config.find_file(None)
    return _config.resolve(
        endpoint=target.endpoint,
        insecure=target.insecure,
        ca_file=target.ca_file,
        file=_config.read_file(found) if found is not None else None,
    )


async def _sign_in(
    settings: Settings, *, key: str | None, limits: dict[str, str | None], device: bool, no_browser: bool
) -> Entry:
    from flyte.transport.login import browser
    from flyte.transport.login import device as terminal
    from flyte.transport.login.cache import Entry
    from flyte.transport.login.server import AuthServer

    scope = " ".join(f"{what}:{name}" for what, name in limits.items() if name) or "all"
    server = AuthServer(settings.endpoint, ca_file=settings.ca_file)
    try:
        if key is not None:
            return Entry(settings.endpoint.url, await server.subject(key), key=key)
        if device:
            return await terminal.sign_in(server, scope=scope, device=terminal.this_device(), show=_show_code)
        quiet = no_browser or _remote_shell()
        show = _print_address if quiet else _open
        return await browser.sign_in(server, scope=scope, device=terminal.this_device(), show=show)
    finally:
        await server.aclose()


def _read_key() -> str:
    """From standard input when something is piped in, else from a prompt: never from an argument."""
    from flyte.transport.credentials import ApiKey

    if sys.stdin.isatty():
        text = str(click.prompt("API key", hide_input=True, err=True))
    else:
        text = sys.stdin.readline()
    return ApiKey.parse(text).bearer


def _keep(entry: Entry, settings: Settings) -> None:
    from flyte.transport.login.cache import LoginCache

    cache = LoginCache()
    with cache.locked():
        earlier = cache.find(settings.endpoint)
        cache.put(entry)
    if earlier is not None and earlier.refresh_token:
        asyncio.run(_revoke(earlier, settings.endpoint, settings.ca_file))


async def _log_out(place: Any, ca_file: str | None) -> bool:
    from flyte.transport.login.cache import LoginCache

    cache = LoginCache()
    with cache.locked():
        entry = cache.find(place)
        cache.remove(place)
    if entry is None:
        return False
    if entry.key:
        click.echo(f"Forgot the API key for {place.url}. It stays valid until it is deleted.", err=True)
        return True
    if await _revoke(entry, place, ca_file):
        click.echo(f"Signed out of {place.url}.", err=True)
    else:
        click.echo(
            f"Warning: forgot the login for {place.url}, but the control plane could not be told. "
            "It holds there until it expires; an administrator can end it.",
            err=True,
        )
    return True


async def _revoke(entry: Entry, place: Any, ca_file: str | None) -> bool:
    from flyte.errors import FlyteError
    from flyte.transport.login.server import AuthServer

    server: AuthServer = AuthServer(place, ca_file=ca_file)
    try:
        await server.revoke(entry)
    except FlyteError:
        return False
    finally:
        await server.aclose()
    return True


def _remote_shell() -> bool:
    """Whether a browser opened here would open on another screen than the person's, or not at all."""
    if os.environ.get("SSH_CONNECTION"):
        return True
    graphical = os.environ.get("DISPLAY") or os.environ.get("WAYLAND_DISPLAY") or os.environ.get("BROWSER")
    return sys.platform.startswith("linux") and not graphical


def _open(url: str) -> None:
    from flyte.transport.login.browser import open_browser

    _print_address(url)
    open_browser(url)


def _print_address(url: str) -> None:
    click.echo(f"Open this address in your browser:\n\n  {url}\n", err=True)


def _show_code(page: str, code: str, complete: str) -> None:
    click.echo(f"Open {page} and type the code  {code}\n\nOr open {complete}\n", err=True)
