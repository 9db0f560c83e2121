"""`tower agent`: serve the socket of one attempt on another node."""

from __future__ import annotations

import sys

import rich_click as click


@click.command("agent")
@click.option(
    "--launch-fd",
    type=click.IntRange(0),
    default=0,
    show_default=True,
    help="The descriptor with the launch, a line of JSON; the ticket in it is never an argument.",
)
def agent(launch_fd: int) -> None:
    """Serve the socket of one attempt with a token of minutes, on a node where Tower is not.

    Launched by what starts attempts there: docs/guide/agent.md has the protocol. Exit codes: 0 the attempt
    ended · 1 Tower cannot be reached · 2 no launch · 3 Tower refused the ticket.
    """
    from tower.agent.process import main

    sys.exit(main(launch_fd))
