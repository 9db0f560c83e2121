"""Progress for people: on standard error, and only when that is a terminal."""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from flyte._deploy import Progress

_TITLES = {
    "pack": "Code",
    "upload": "Upload",
    "task": "Tasks",
    "app": "Apps",
    "wait": "Environment and start-up",
}


@contextlib.contextmanager
def waiting(title: str) -> Iterator[Callable[[str], None]]:
    """A spinner with what is being waited for; call what it gives with each new state."""
    if not sys.stderr.isatty():
        yield lambda _: None
        return
    from rich.console import Console

    with Console(stderr=True).status(title) as status:
        yield lambda state: status.update(f"{title}: {state}")


@contextlib.contextmanager
def deploying() -> Iterator[Callable[[Progress], None]]:
    """A bar for each step of a deployment; call what it gives with each report of progress."""
    if not sys.stderr.isatty():
        yield lambda _: None
        return
    from rich.console import Console
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
            if progress.step not in known:
                known[progress.step] = bars.add_task(_TITLES[progress.step], total=progress.total)
            bars.update(known[progress.step], completed=progress.done, total=progress.total)

        yield show
