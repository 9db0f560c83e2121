"""The command line `flyte`.

`flyte --help` lists the exit statuses. Results go to standard output, everything else to standard error. A
command imports what it needs when it is used.
"""

from __future__ import annotations


def main() -> None:
    """The entry point."""
    import os

    import rich_click

    if not os.environ.get("FORCE_COLOR"):
        # it takes the log of one vendor's CI for a terminal; what is piped gets no colours here either
        rich_click.rich_click.FORCE_TERMINAL = None
    from ._root import flyte

    flyte(prog_name="flyte")
