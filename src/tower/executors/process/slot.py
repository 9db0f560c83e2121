"""A child of a template that waits for its attempt, in the folders and control groups that will be its own.

It is nobody's: it has no identity, no secret and no output, and runs no code of a user. Tower knows its
process before it gives it an attempt, once, over a socket of its own: first the process is announced, then
it hears what it is. One that is not given any ends with its template, or when it is dropped.
"""

from __future__ import annotations

import array
import os
import select
import signal
import socket
from collections.abc import Callable
from contextlib import suppress

from tower.errors import Unavailable
from tower.executors.port import TaskJob
from tower.executors.process.cgroups import Group
from tower.executors.process.work import Work


class Slot:
    """One such child. Whoever watches its process calls `running`, `exited` or `refused`."""

    pid = 0

    def __init__(
        self,
        job: TaskJob,
        *,
        user: int | None,
        group: Group | None,
        left: Callable[[Slot, int], None],
        gone: Callable[[], None],
    ) -> None:
        """`left` is called with the wait status when it ended without an attempt; `gone`, too."""
        self.job = job
        self.user = user
        self.group = group
        self.claimed = False
        self.given = False
        self._left = left
        self._gone = gone
        self._work: Work | None = None
        self._over = False
        self._descriptor = -1
        self._channel, self.theirs = socket.socketpair(
            socket.AF_UNIX, socket.SOCK_SEQPACKET | socket.SOCK_CLOEXEC
        )
        self._channel.setblocking(False)

    def running(self, pid: int, descriptor: int) -> None:
        """It exists, by the kernel's word; `descriptor` names the process for good."""
        self.pid, self._descriptor = pid, descriptor
        if self._channel.fileno() < 0:
            self._kill()  # nobody wants it any more

    @property
    def waits(self) -> bool:
        """Whether it is there, and not given away."""
        return self.pid > 0 and not self.given and not self._over and self._lives()

    def claim(self) -> bool:
        """Whether it waits: then it and its template are kept until it gets its attempt, or is dropped."""
        if not self.waits:
            return False
        self.claimed = True
        return True

    def serves(self, job: TaskJob) -> bool:
        """Whether this attempt is of the kind that it waits for."""
        own = self.job
        same = (job.python, job.bundle, job.module, job.limits, job.needs, job.agent_socket) == (
            *(own.python, own.bundle, own.module, own.limits, own.needs, own.agent_socket),
        )
        return same and not job.alone and own.env.items() <= job.env.items()

    def give(self, work: Work, packet: bytes, said: int) -> None:
        """Make it the attempt: announce its process, then tell it. Raises Unavailable when it has ended."""
        self.claimed, self.given, self._work = True, True, work
        rights = [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", (work.output.writer, said)))]
        try:
            work.announce(self.pid)
            # its number was nobody else's until here: a process that has not been reaped keeps it
            if not self._lives():
                raise OSError("it ended before it was told")
            self._channel.sendmsg([packet], rights)
        except BaseException as error:
            self._kill()
            if not isinstance(error, OSError):
                raise
            raise Unavailable(
                "The process that waited for the attempt has ended.", cause=str(error)
            ) from error
        finally:
            work.output.started()
            self._channel.close()
            self._close()

    def drop(self) -> None:
        """Let it end: there will be no attempt for it."""
        if not self.given:
            self._channel.close()
            self._kill()

    def refused(self) -> None:
        """There will be no process."""
        self.exited(0)

    def exited(self, status: int) -> None:
        """The process ended, or its template did."""
        if self._over:
            return
        self._over = True
        self._channel.close()
        self._close()
        if self._work is not None:
            self._work.exited(status)
        else:
            self._left(self, status)
            self._gone()

    def _lives(self) -> bool:
        if self._descriptor < 0:
            return False
        poll = select.poll()  # `select.select` takes no number above 1,023, and a busy server has those
        poll.register(self._descriptor, select.POLLIN)
        return not poll.poll(0)

    def _kill(self) -> None:
        if self._descriptor >= 0:
            with suppress(ProcessLookupError):
                signal.pidfd_send_signal(self._descriptor, signal.SIGKILL)

    def _close(self) -> None:
        if self._descriptor >= 0:
            os.close(self._descriptor)
            self._descriptor = -1
