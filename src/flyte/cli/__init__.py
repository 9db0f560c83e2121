"""The command line `flyte`.

Exit status: 0 done · 1 failure · 2 wrong usage · 3 not authenticated · 4 not allowed · 5 not found ·
6 control plane unavailable · 7 the run did not succeed. Results go to standard output, everything else to
standard error. A command imports what it needs when it is used.
"""

from __future__ import annotations


def main() -> None:
    """The entry point."""
    from ._root import flyte

    flyte(prog_name="flyte")
