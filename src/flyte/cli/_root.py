"""The command `flyte` itself: its options, and where its commands are."""

from __future__ import annotations

from typing import Any

import rich_click as click

from ._command import Group, narrowed, options
from ._exits import MEANING

_EPILOG = "\n\n".join(["Exit status:", *(f"  {int(status)}  {text}" for status, text in MEANING.items())])


@click.group(
    "flyte",
    cls=Group,
    lazy={
        "deploy": "deploy:deploy",
        "serve": "serve:serve",
        "run": "run:run",
        "get": "get:get",
        "create": "create:create",
        "delete": "delete:delete",
        "abort": "abort:abort",
        "logs": "logs:logs",
        "login": "login:login",
        "logout": "login:logout",
        "whoami": "whoami:whoami",
        "doctor": "doctor:doctor",
        "update": "_admin:update",
        "auth": "_auth:auth",
    },
    epilog=_EPILOG,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
)
@options
@click.version_option(package_name="flyte-tower", prog_name="flyte")
@click.pass_context
def flyte(context: click.Context, /, **given: Any) -> None:
    """Deploy tasks and apps, run them as yourself, and see what became of them.

    The control plane is named by --endpoint, FLYTE_ENDPOINT or ~/.flyte/config.yaml; you are named by the
    key in FLYTE_API_KEY, otherwise by `flyte login`, otherwise by the key that `flyte create api-key
    --default` stored for that control plane. Project and domain are --project and --domain, FLYTE_PROJECT
    and FLYTE_DOMAIN, what the configuration file says, or flytesnacks and development.

    With FLYTE_DEBUG=1 errors show their traceback; NO_COLOR=1 leaves colours out.
    """
    context.obj = narrowed(None, given)
