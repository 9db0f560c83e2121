"""The pipe that carries what a process prints: read in the event loop, bounded, never blocking the writer."""

from __future__ import annotations

import asyncio
import os

from tower.executors.port import OnOutput

_CHUNK = 65536
_CHUNKS_PER_TURN = 8
_LARGEST_DRAIN = 64


class Output:
    """Hands chunks to `receive` until `limit` bytes; what follows is read and dropped.

    `writer` is the descriptor for the child; close it with `started` once the child holds it.
    """

    def __init__(self, receive: OnOutput, *, limit: int) -> None:
        self.truncated = False
        self._receive = receive
        self._room = limit
        self._loop = asyncio.get_running_loop()
        self._reader, self.writer = os.pipe2(os.O_CLOEXEC)
        os.set_blocking(self._reader, False)
        self._loop.add_reader(self._reader, self._readable)

    def started(self) -> None:
        """Close our copy of the writing end, so that the child's end is the last one."""
        if self.writer >= 0:
            os.close(self.writer)
            self.writer = -1

    def finish(self) -> None:
        """Read what is left without waiting and close: a process that escaped may hold the pipe for ever."""
        self.started()
        if self._reader < 0:
            return
        for _ in range(_LARGEST_DRAIN):
            if not self._read():
                break
        self._close()

    def _readable(self) -> None:
        for _ in range(_CHUNKS_PER_TURN):
            if not self._read():
                return

    def _read(self) -> bool:
        """Read one chunk; False when there is none now or none any more."""
        if self._reader < 0:
            return False
        try:
            chunk = os.read(self._reader, _CHUNK)
        except BlockingIOError:
            return False
        if not chunk:
            self._close()
            return False
        if self._room >= len(chunk):
            self._room -= len(chunk)
            self._receive(chunk)
            return True
        head, self._room = chunk[: self._room], 0
        self.truncated = True
        if head:
            self._receive(head)
        return True

    def _close(self) -> None:
        if self._reader >= 0:
            self._loop.remove_reader(self._reader)
            os.close(self._reader)
            self._reader = -1


class Tail:
    """Keeps the last bytes of an output, for the message about a process that did not start."""

    def __init__(self, size: int = 4096) -> None:
        self._size = size
        self._kept = b""

    def __call__(self, chunk: bytes) -> None:
        self._kept = (self._kept + chunk)[-self._size :]

    @property
    def text(self) -> str:
        """The kept end as text."""
        return self._kept.decode(errors="replace").strip()
