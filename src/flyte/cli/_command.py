"""What every command shares: the options that say where and as whom, the session, and how it ends."""

from __future__ import annotations

import asyncio
import os
import sys
import warnings
from collections.abc import Callable, Coroutine
from dataclasses import dataclass, replace
from typing import Any, TypeVar

import rich_click as click
from click.exceptions import Exit

from ._exits import Failed

R = TypeVar("R")
F = TypeVar("F", bound=Callable[..., Any])


DEFAULT_PROJECT = "flytesnacks"
DEFAULT_DOMAIN = "development"


@dataclass(frozen=True, slots=True, kw_only=True)
class Target:
    """Where commands go, and how they print: what the options and the environment say."""

    endpoint: str | None = None
    project: str | None = None
    domain: str | None = None
    insecure: bool = False
    ca_file: str | None = None
    output: str = "table"

    def session(self) -> Any:
        """A session for it, with the key of `FLYTE_API_KEY` or the default key that this machine keeps."""
        from flyte._config import API_KEY, variable
        from flyte._init import open_session

        session = open_session(
            endpoint=self.endpoint,
            insecure=self.insecure,
            project=self.project,
            domain=self.domain,
            ca_file=self.ca_file,
        )
        if session.mode == "anonymous" and variable(API_KEY) is None:
            from ._keystore import Keystore

            stored = Keystore().default(session.endpoint)
            if stored is not None:
                session = open_session(
                    endpoint=session.endpoint.url,
                    api_key=stored.key,
                    insecure=session.endpoint.scheme == "http",
                    project=self.project,
                    domain=self.domain,
                    ca_file=self.ca_file,
                )
        if session.project and session.domain:
            return session
        settings = replace(
            session.settings,
            project=session.project or DEFAULT_PROJECT,
            domain=session.domain or DEFAULT_DOMAIN,
        )
        return type(session)(settings, session.credentials, socket=session.socket)


def options(command: F) -> F:
    """The shared options. They may stand before or behind the name of a command; the nearer one wins."""
    decorators = [
        click.option("--endpoint", metavar="HOST", help="The control plane. Otherwise FLYTE_ENDPOINT."),
        click.option("-p", "--project", help="The project. Otherwise FLYTE_PROJECT."),
        click.option("-d", "--domain", help="The domain. Otherwise FLYTE_DOMAIN."),
        click.option("--insecure", is_flag=True, default=None, help="Plain HTTP instead of TLS."),
        click.option(
            "--ca-file", metavar="PEM", help="Certificate authorities to trust besides the system's."
        ),
        click.option(
            "-o", "--output", type=click.Choice(["table", "json"]), help="How to print. [default: table]"
        ),
    ]
    for decorator in reversed(decorators):
        command = decorator(command)
    return command


NAMES = ("endpoint", "project", "domain", "insecure", "ca_file", "output")


def narrowed(target: Target | None, given: dict[str, Any]) -> Target:
    """The target with what was given replaced; takes the shared options out of `given`."""
    chosen = {name: given.pop(name) for name in NAMES if name in given}
    return replace(target or Target(), **{name: value for name, value in chosen.items() if value is not None})


def remote(command: Callable[..., Coroutine[Any, Any, int | None]]) -> Callable[..., None]:
    """Make a coroutine function the body of a command: it gets the target and runs inside its session.

    The number that it returns is the exit status.
    """

    @click.pass_context
    def body(context: click.Context, /, **given: Any) -> None:
        enter(context, command, given)

    body.__doc__ = command.__doc__
    body.__name__ = command.__name__
    return options(body)


def enter(
    context: click.Context, command: Callable[..., Coroutine[Any, Any, int | None]], given: dict[str, Any]
) -> None:
    """Run the body of a command inside a session, and end with the status that it returns."""
    target = narrowed(context.obj, given)
    status = call(target, lambda: command(target, **given))
    if status:
        context.exit(status)


def call(target: Target, work: Callable[[], Coroutine[Any, Any, R]]) -> R:
    """Run `work` in a session of `target`, on an event loop of its own."""
    from flyte._init import use_session

    session = target.session()

    async def run() -> R:
        try:
            with use_session(session):
                return await work()
        finally:
            await session.aclose()

    return asyncio.run(run())


class Group(click.RichGroup):
    """A group whose commands are imported when they are used, and whose errors are one line."""

    def __init__(self, *args: Any, lazy: dict[str, str] | None = None, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._lazy = lazy or {}

    def list_commands(self, ctx: click.Context) -> list[str]:
        """The names of all commands, in the order of their declaration."""
        return [*self._lazy, *super().list_commands(ctx)]

    def get_command(self, ctx: click.Context, name: str) -> click.Command | None:
        """Import the command of that name."""
        place = self._lazy.get(name)
        if place is None:
            return super().get_command(ctx, name)
        import importlib

        module, _, attribute = place.partition(":")
        found: click.Command = getattr(importlib.import_module(f"flyte.cli.{module}"), attribute)
        return found

    def invoke(self, ctx: click.Context) -> Any:
        """Run the command; an error of the SDK becomes its line and its status, a bug a line of its own."""
        with warnings.catch_warnings():
            warnings.showwarning = _warn
            try:
                return super().invoke(ctx)
            except (click.ClickException, Exit, click.Abort, BrokenPipeError):
                raise  # the last: who reads has read enough, as `head` does; click ends without a word
            except Exception as error:
                if os.environ.get("FLYTE_DEBUG"):
                    raise
                raise Failed.of(error) from None

    def main(self, *args: Any, **kwargs: Any) -> Any:
        """Without the boxes that rich_click draws around errors: a line can be searched for."""
        return click.Group.main(self, *args, **kwargs)


def _warn(message: Warning | str, *_: Any, **__: Any) -> None:
    print(f"Warning: {message}", file=sys.stderr)
