"""Progress for people: on standard error, and only when that is a terminal."""

from __future__ import annotations

import contextlib
import os
import sys
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING

from ._output import cell

if TYPE_CHECKING:
    from flyte._deploy import Progress

_WIDEST = 60

_TITLES = {
    "pack": "Code",
    "upload": "Upload",
    "task": "Tasks",
    "app": "Apps",
    "image": "Image",
    "wait": "Environment and start-up",
}


def shown() -> bool:
    """Whether somebody looks: at a terminal that can draw over what it showed, and not in a CI's log."""
    return sys.stderr.isatty() and not os.environ.get("CI") and os.environ.get("TERM") != "dumb"


@contextlib.contextmanager
def waiting(title: str) -> Iterator[Callable[[str], None]]:
    """A spinner with what is being waited for; call what it gives with each new state."""
    if not shown():
        yield lambda _: None
        return
    from rich.console import Console
    from rich.markup import escape

    with Console(stderr=True).status(title) as status:
        yield lambda state: status.update(escape(f"{title}: {cell(state)[:_WIDEST]}"))


@contextlib.contextmanager
def deploying() -> Iterator[Callable[[Progress], None]]:
    """A bar for each step of a deployment; call what it gives with each report of progress."""
    if not shown():
        yield lambda _: None
        return
    from rich.console import Console
    from rich.markup import escape
    from rich.progress import (
        BarColumn,
        MofNCompleteColumn,
        SpinnerColumn,
        TaskID,
        TextColumn,
        TimeElapsedColumn,
    )
    from rich.progress import Progress as Bars

    columns = (SpinnerColumn(), TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn())
    with Bars(*columns, TimeElapsedColumn(), console=Console(stderr=True), transient=True) as bars:
        known: dict[str, TaskID] = {}

        def show(progress: Progress) -> None:
            title, total = _TITLES[progress.step], progress.total or None
            if total is None:
                title = f"{title}: {cell(progress.name)[:_WIDEST]}"
            if progress.step not in known:
                known[progress.step] = bars.add_task(escape(title), total=total)
            bars.update(known[progress.step], completed=progress.done, total=total, description=escape(title))

        yield show
