"""`flyte serve FILE ENV`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import rich_click as click

from ._command import Target, enter, options
from ._output import print_record
from ._progress import deploying
from ._userfile import FILE, load
from .deploy import COPY_STYLE_HELP, COPY_STYLES

if TYPE_CHECKING:
    from flyte._bundle import CopyStyle
    from flyte._deploy import Loaded
    from flyte._environment import Environment


@click.command("serve")
@click.argument("file", type=FILE)
@click.argument("env")
@click.option("--version", help="The version of tasks that it depends on. [default: decided by the code]")
@click.option(
    "--copy-style", type=COPY_STYLES, default="loaded_modules", show_default=True, help=COPY_STYLE_HELP
)
@click.option("--no-wait", is_flag=True, help="Do not wait until it serves.")
@click.option(
    "--timeout", type=click.FloatRange(min=1), default=600, show_default=True, help="Seconds to wait."
)
@options
@click.pass_context
def serve(context: click.Context, /, file: Path, env: str, **given: Any) -> None:
    """Deploy the app ENV in FILE, and wait until it serves.

    ENV is the variable that holds the app's environment, or its name.
    """
    from flyte.app._environment import AppEnvironment

    loaded = load(file)
    environment = loaded.environment(env)
    if not isinstance(environment, AppEnvironment):
        raise click.UsageError(f"{env} is no app; its tasks are deployed by `flyte deploy {file} {env}`.")
    given |= {"loaded": loaded, "environment": environment}
    enter(context, _serve, given)


async def _serve(
    target: Target,
    *,
    loaded: Loaded,
    environment: Environment,
    version: str | None,
    copy_style: CopyStyle,
    no_wait: bool,
    timeout: float,  # noqa: ASYNC109 - passed on
) -> None:
    from flyte._deploy import serve as start

    with deploying() as progress:
        served = await start.aio(
            environment,
            version=version,
            copy_style=copy_style,
            root_dir=loaded.root,
            progress=progress,
            wait=not no_wait,
            timeout=timeout,
        )
    fields = ("name", "status", "url", "page", "project", "domain", "revision")
    print_record({field: getattr(served, field) for field in fields}, output=target.output)
