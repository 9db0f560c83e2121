"""Folders that another user than Tower's own must be able to read: where Tower is root, its tasks are not."""

from __future__ import annotations

import os
import stat
from pathlib import Path

_READ = stat.S_IRUSR | stat.S_IRGRP | stat.S_IROTH
_ENTER = stat.S_IXUSR | stat.S_IXGRP | stat.S_IXOTH


def open_up(folder: Path) -> None:
    """Let everybody read what lies in a folder, and start what its owner may; the folders above stay closed.

    The folder itself is opened last and tells that it was done. Raises OSError.
    """
    if folder.stat().st_mode & _READ == _READ:
        return
    for place, folders, names in os.walk(folder, topdown=False):
        for name in folders:
            _allow(os.path.join(place, name), _READ | _ENTER)
        for name in names:
            _allow(os.path.join(place, name), _READ)
    folder.chmod(0o755)


def _allow(path: str, bits: int) -> None:
    mode = os.lstat(path).st_mode
    if stat.S_ISLNK(mode):
        return
    wanted = stat.S_IMODE(mode) | bits | (_ENTER if mode & stat.S_IXUSR else 0)
    wanted &= ~(stat.S_IWGRP | stat.S_IWOTH | stat.S_ISUID | stat.S_ISGID)
    if wanted != stat.S_IMODE(mode):
        os.chmod(path, wanted)
