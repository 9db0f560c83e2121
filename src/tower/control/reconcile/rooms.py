"""The folders and sockets of running processes: private, with names that nobody can guess, then gone."""

from __future__ import annotations

import asyncio
import errno
import hashlib
import os
import secrets
import stat
import tempfile
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from tower.control.reconcile.removal import remove

_LONGEST_SOCKET = 100
_DOORS = "doors"
_MEMORY = Path("/dev/shm")  # noqa: S108  (a folder of ours in it has a name that nobody knows)


@dataclass(frozen=True, slots=True)
class Room:
    """What one process has to itself: its working folder, with `tmp` in it, and a folder for its sockets."""

    directory: Path
    sockets: Path
    secrets: Path
    """Where the files of its secrets go, if it has any: in memory where the machine has a place for that."""
    door: Path
    """Tower's own way to the socket of an app, which the app cannot lead elsewhere."""

    @property
    def temporary(self) -> Path:
        """Where its temporary files go."""
        return self.directory / "tmp"

    @property
    def agent_socket(self) -> Path:
        """Where it finds Tower."""
        return self.sockets / "agent"

    @property
    def app_socket(self) -> Path:
        """Where an app listens."""
        return self.sockets / "app"


class Rooms:
    """Makes rooms under `home`; sockets elsewhere when a path below `home` is too long for one."""

    def __init__(self, home: Path) -> None:
        """Clear what a former Tower left."""
        self._work = home / "work"
        remove(self._work)
        self._work.mkdir(mode=0o700, parents=True, exist_ok=True)  # what cannot be removed hinders nobody
        self._prefix = f"tower-{hashlib.sha256(os.fsencode(home.resolve())).hexdigest()[:16]}-"
        self._memory = _MEMORY if os.path.ismount(_MEMORY) else self._work
        for left in _MEMORY.glob(f"{self._prefix}*"):
            remove(left)
        self._away: Path | None = None
        self._sockets = home / "run"
        remove(self._sockets)
        if len(os.fsencode(self._sockets / ("x" * 8) / ("x" * 16) / "agent")) <= _LONGEST_SOCKET:
            self._sockets.mkdir(mode=0o700, parents=True, exist_ok=True)
        else:
            self._away = self._sockets = Path(tempfile.mkdtemp(prefix="tower-"))
        (self._sockets / _DOORS).mkdir(mode=0o700, exist_ok=True)
        self._leaving: set[asyncio.Task[None]] = set()

    def make(self, *, beside: str = "") -> Room:
        """A fresh room, among those of the same code: one process forks all that live beside each other.

        Raises OSError, and then leaves nothing.
        """
        room = self.plan(beside=beside)
        self.build(room)
        return room

    def plan(self, *, beside: str = "") -> Room:
        """Where a fresh room would be."""
        name, row = secrets.token_hex(8), hashlib.sha256(beside.encode()).hexdigest()[:8]
        return Room(
            directory=self._work / row / name,
            sockets=self._sockets / row / name,
            secrets=self._memory / f"{self._prefix}{name}",
            door=self._sockets / _DOORS / name,
        )

    @staticmethod
    def build(room: Room) -> None:
        """Make a room as planned. Raises OSError, and then leaves nothing."""
        for folder in (room.directory.parent, room.sockets.parent):
            folder.mkdir(mode=0o700, exist_ok=True)
            folder.chmod(0o711)  # passed through by who is not Tower's own user
        made: list[Path] = []
        try:
            for folder in (room.directory, room.temporary, room.sockets):
                folder.mkdir(mode=0o700)
                made.append(folder)
        except OSError:
            for folder in reversed(made):
                with suppress(OSError):
                    folder.rmdir()
            raise

    @staticmethod
    def put(room: Room, name: str, data: bytes) -> None:
        """A new file in a room, in which a process may be already: what that put there is not followed."""
        flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
        with os.fdopen(os.open(room.directory / name, flags, 0o600), "wb") as file:
            file.write(data)

    def remove(self, room: Room) -> None:
        """Remove a room in the background."""
        task = asyncio.get_running_loop().create_task(asyncio.to_thread(_remove, room))
        self._leaving.add(task)
        task.add_done_callback(self._leaving.discard)

    async def close(self) -> None:
        """Wait for what is being removed."""
        await asyncio.gather(*self._leaving)
        if self._away is not None:
            await asyncio.to_thread(remove, self._away)


def pin(room: Room) -> Path:
    """Tower's own name for the socket that an app has now. Raises OSError when there is none.

    The folder of the socket is the app's: what it put there since, a link to a socket of Tower's say, is not
    followed.
    """
    room.door.unlink(missing_ok=True)
    os.link(room.app_socket, room.door, follow_symlinks=False)
    if not stat.S_ISSOCK(room.door.lstat().st_mode):
        room.door.unlink()
        raise OSError(errno.ENOTSOCK, "the app's socket is none")
    return room.door


def _remove(room: Room) -> None:
    room.door.unlink(missing_ok=True)
    remove(room.directory)
    remove(room.sockets)
    remove(room.secrets)
