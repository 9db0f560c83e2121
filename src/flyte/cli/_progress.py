"""Progress for people: on standard error, and only when that is a terminal."""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Callable, Iterator

Stage = Callable[[str], None]
Bytes = Callable[[int], None]


@contextlib.contextmanager
def waiting(title: str) -> Iterator[Stage]:
    """A spinner with what is being waited for; call what it gives with each new state."""
    if not sys.stderr.isatty():
        yield lambda _: None
        return
    from rich.console import Console

    with Console(stderr=True).status(title) as status:
        yield lambda state: status.update(f"{title}: {state}")


@contextlib.contextmanager
def uploading(title: str, total: int) -> Iterator[Bytes]:
    """A bar for `total` bytes; call what it gives with the size of each piece that was sent."""
    if not sys.stderr.isatty():
        yield lambda _: None
        return
    from rich.console import Console
    from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TransferSpeedColumn

    columns = (TextColumn("{task.description}"), BarColumn(), DownloadColumn(), TransferSpeedColumn())
    with Progress(*columns, console=Console(stderr=True), transient=True) as bar:
        task = bar.add_task(title, total=total)
        yield lambda size: bar.advance(task, size)
