"""`tower`: start the server, and administer it on the machine itself."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import rich_click as click
from click.exceptions import Exit

from tower import issuers
from tower.cli.administration import (
    EPILOG,
    HOME,
    Administration,
    composition_root,
    fail,
    faults,
    span,
    without,
)
from tower.cli.agent import agent
from tower.cli.audit import audit
from tower.cli.doctor import doctor
from tower.cli.keys import keys
from tower.cli.policy import policy
from tower.cli.secrets import secrets
from tower.cli.users import users
from tower.cli.webhooks import webhooks
from tower.settings import AS_FITS, ISOLATION, Settings


class _Group(click.RichGroup):
    def main(self, *args: Any, **kwargs: Any) -> Any:
        """Without the boxes that rich_click draws around errors: a line can be searched for."""
        return click.Group.main(self, *args, **kwargs)

    def invoke(self, ctx: click.Context) -> Any:
        """Run the command; a bug in one is a line of its own. The server's is in its log, in full."""
        try:
            return super().invoke(ctx)
        except (click.ClickException, click.Abort, Exit, BrokenPipeError):
            raise
        except Exception as error:
            if ctx.invoked_subcommand == "up" or os.environ.get("TOWER_DEBUG"):
                raise
            what = f"{type(error).__name__}: {error}".rstrip(": ")
            fail(f"It failed unexpectedly: {what}. TOWER_DEBUG=1 shows where.", 1)


@click.group(cls=_Group, epilog=EPILOG, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(package_name="flyte-tower")
@HOME
def cli() -> None:
    """Tower: an identity-aware control plane for Flyte tasks and apps.

    `tower up` starts it. The other commands administer it on the machine itself, also while it runs.
    """


@cli.command()
@click.option("--host", default="127.0.0.1", show_default=True, help="The address to listen on.")
@click.option("--port", default=8080, show_default=True, help="The port to listen on; 0 takes a free one.")
@click.option(
    "--tls", is_flag=True, help="Serve HTTPS, with --cert and --key or with an own local authority."
)
@click.option(
    "--cert", type=click.Path(path_type=Path, exists=True, dir_okay=False), help="A certificate (PEM)."
)
@click.option(
    "--key", type=click.Path(path_type=Path, exists=True, dir_okay=False), help="Its private key (PEM)."
)
@click.option("--public-url", metavar="URL", default="", help="Where people reach it: https://NAME[:PORT].")
@click.option(
    "--apps-domain",
    default=AS_FITS,
    help="Each app has a host below this name. [default: localhost; with TLS apps.localhost]",
)
@click.option(
    "--behind-proxy",
    is_flag=True,
    help="A proxy ends TLS and is all that reaches this port; its x-forwarded-for is believed.",
)
@click.option(
    "--config",
    type=click.Path(path_type=Path, exists=True, dir_okay=False),
    help="Identity providers (TOML). Default: config.toml in the home, if there is one.",
)
@click.option("--max-key-life", metavar="SPAN", help="No new API key lives longer: 90d. Default: no cap.")
@click.option(
    "--drain",
    metavar="SPAN",
    default="20s",
    show_default=True,
    help="How long running tasks may go on after SIGTERM; what is left runs again at the next start.",
)
@click.option(
    "--agent",
    "agents",
    type=click.Choice(["inside", "beside"]),
    default="inside",
    show_default=True,
    help="Who serves the sockets of attempts: this process, or one for each attempt as on another node.",
)
@click.option(
    "--max-grant",
    metavar="SPAN",
    default="7d",
    show_default=True,
    help="How long a run may act for its person after it was asked for.",
)
@click.option(
    "--isolation",
    type=click.Choice(ISOLATION),
    default="preferred",
    show_default=True,
    help="Keep tasks and apps apart. required: refuse to start where the machine cannot.",
)
@click.option(
    "--visible",
    type=click.Path(path_type=Path, exists=True, resolve_path=True),
    multiple=True,
    help="A folder that every task and app may read, besides the system's own. May be repeated.",
)
@click.option(
    "--max-triggers",
    type=click.IntRange(0, 1_000_000),
    default=500,
    show_default=True,
    help="Schedules in each domain of a project; 0 offers none.",
)
@click.option(
    "--shortest-interval",
    metavar="SPAN",
    default="1m",
    show_default=True,
    help="Between two runs that a schedule starts, at least; of schedules that are set from now on.",
)
@click.option(
    "--catch-up",
    metavar="SPAN",
    default="1h",
    show_default=True,
    help="A run that was due while Tower was down is made up for within that time.",
)
@click.option("--audit-retention", metavar="SPAN", help="Prune older audit records: 365d. Default: never.")
@HOME
@click.pass_obj
@faults
def up(
    tower: Administration,
    *,
    host: str,
    port: int,
    tls: bool,
    cert: Path | None,
    key: Path | None,
    public_url: str,
    apps_domain: str,
    behind_proxy: bool,
    config: Path | None,
    max_key_life: str | None,
    drain: str,
    agents: str,
    max_grant: str,
    isolation: str,
    visible: tuple[Path, ...],
    max_triggers: int,
    shortest_interval: str,
    catch_up: str,
    audit_retention: str | None,
) -> None:
    """Start everything in one process. Prints `ready URL` once it answers."""
    settings = Settings(
        home=tower.home,
        host=host,
        port=port,
        tls=tls,
        tls_cert=cert,
        tls_key=key,
        public_url=public_url.rstrip("/").lower(),
        apps_domain=apps_domain.lower(),
        behind_proxy=behind_proxy,
        issuers=issuers.configured(tower.home, config),
        max_key_life=span(max_key_life, "--max-key-life"),
        drain_seconds=span(drain, "--drain") or 0.0,
        agent=agents,
        max_grant=span(max_grant, "--max-grant") or 0.0,
        max_triggers=max_triggers,
        shortest_interval=span(shortest_interval, "--shortest-interval") or 0.0,
        catch_up=span(catch_up, "--catch-up") or 0.0,
        audit_retention=span(audit_retention, "--audit-retention"),
        isolation=isolation,
        visible=visible,
        hidden=() if config is None else (config,),
    )
    settings.validate()
    tower.found()
    with without("pydantic.v1"):  # FastAPI looks whether a model is one of those, and none is
        composition_root().up(settings)


for group in (users, keys, policy, audit, webhooks, secrets, doctor):
    cli.add_command(group)

cli.add_command(agent)


def main() -> None:
    """The entry point of the distribution."""
    if not os.environ.get("FORCE_COLOR"):
        click.rich_click.FORCE_TERMINAL = None  # it takes the log of one vendor's CI for a terminal
    cli(prog_name="tower")
