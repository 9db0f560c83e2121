"""Removing folders that strangers filled: however deep they are, and whatever they forbid to their owner.

`shutil.rmtree` goes down by recursion with a descriptor for each level, and gives up at what cannot be read.
Here each folder is moved up to where the first one stands before it is looked into. No link is followed, also
when somebody exchanges a folder for one meanwhile.
"""

from __future__ import annotations

import os
import secrets
import stat
from contextlib import suppress
from pathlib import Path

import structlog

_FOLDER = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
_PLACE = os.O_PATH | os.O_NOFOLLOW | os.O_CLOEXEC
_ALL = 0o700

log = structlog.get_logger("tower.reconcile")


def remove(path: Path) -> None:
    """Remove a file or folder with all that is in it. What cannot be removed stays, and is logged."""
    try:
        above = os.open(path.parent, _FOLDER)
    except FileNotFoundError:
        return
    try:
        _remove(above, path.name)
    except FileNotFoundError:
        pass
    except OSError as error:
        log.warning("what a process left cannot be removed", path=str(path), error=str(error))
    finally:
        os.close(above)


def _remove(above: int, name: str) -> None:
    waiting = [name]
    failure: OSError | None = None
    while waiting:
        each = waiting.pop()
        try:
            if not _opened_up(above, each):
                os.unlink(each, dir_fd=above)
                continue
            waiting += _emptied(above, each)
            os.rmdir(each, dir_fd=above)
        except FileNotFoundError:
            continue
        except OSError as error:
            failure = failure or error
    if failure is not None:
        raise failure


def _emptied(above: int, name: str) -> list[str]:
    """Empty a folder: its files are removed, the folders in it stand beside it then, under these names."""
    moved = []
    folder = os.open(name, _FOLDER, dir_fd=above)
    try:
        with os.scandir(folder) as entries:
            for entry in entries:
                if entry.is_dir(follow_symlinks=False) and _opened_up(folder, entry.name):
                    fresh = f".gone-{secrets.token_hex(8)}"
                    os.rename(entry.name, fresh, src_dir_fd=folder, dst_dir_fd=above)
                    moved.append(fresh)
                else:
                    with suppress(FileNotFoundError):
                        os.unlink(entry.name, dir_fd=folder)
    finally:
        os.close(folder)
    return moved


def _opened_up(above: int, name: str) -> bool:
    """Whether this is a folder; its owner may do all with it from now on."""
    place = os.open(name, _PLACE, dir_fd=above)
    try:
        mode = os.fstat(place).st_mode
        if not stat.S_ISDIR(mode):
            return False
        if mode & _ALL != _ALL:
            os.chmod(f"/proc/self/fd/{place}", _ALL)
        return True
    finally:
        os.close(place)
