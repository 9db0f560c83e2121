"""The folders of a job: whose they are, and which template sees those of all attempts of its code."""

from __future__ import annotations

import os
import stat
from pathlib import Path

from tower.errors import Unavailable
from tower.executors.port import AppJob, TaskJob

Key = tuple[Path, Path | None, tuple[Path, ...], tuple[Path, ...]]
"""An interpreter, a bundle, what else is read, and the folders whose entries belong to one attempt each."""


def key_of(job: TaskJob) -> Key:
    """Which template forks it."""
    parents = dict.fromkeys((job.directory.parent, job.agent_socket.parent.parent))
    return job.python, job.bundle, job.needs, tuple(parents)


def entrust(path: Path, user: int | None) -> None:
    """Give a file of Tower's own to who will read it; its folder is a process's already. Raises Fault."""
    if user is None:
        return
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    except FileNotFoundError:
        return
    except OSError as error:
        raise Unavailable("The inputs could not be handed over.", cause=str(error)) from error
    try:
        facts = os.fstat(descriptor)
        if not stat.S_ISREG(facts.st_mode) or facts.st_nlink != 1 or facts.st_uid != os.geteuid():
            raise Unavailable("The inputs could not be handed over.")
        os.fchown(descriptor, user, user)
    finally:
        os.close(descriptor)


def own(job: TaskJob | AppJob) -> tuple[Path, ...]:
    """The folders that are this one's alone: where it works and where its sockets are."""
    return tuple(dict.fromkeys((job.directory, job.agent_socket.parent)))


def hand_over(job: TaskJob | AppJob, user: int | None) -> Path:
    """Give its folders to the user it will be; answers the one for its temporary files."""
    temporary = job.directory / "tmp"
    temporary.mkdir(mode=0o700, exist_ok=True)
    if user is not None:
        for top in own(job):
            for folder, _, names in os.walk(top):
                for path in (folder, *(os.path.join(folder, name) for name in names)):
                    os.chown(path, user, user, follow_symlinks=False)
    return temporary
