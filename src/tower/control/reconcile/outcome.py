"""What became of an attempt, read from how its process ended and from the files it left."""

from __future__ import annotations

import json
import os
import signal
import stat
from dataclasses import dataclass
from pathlib import Path

from flyteidl2.core import execution_pb2
from flyteidl2.task import common_pb2
from google.protobuf.message import DecodeError

from tower.executors.port import Exit, Limits

OUTPUTS = "outputs.pb"
ERROR = "error.pb"
MAX_OUTPUTS = 64 * 1024 * 1024
_LARGEST_ERROR = 1 << 20
_LONGEST_MESSAGE = 64 * 1024
_NOT_STARTED = {120, 126}
"""Exit codes of the runtime's and of the launcher's own failures."""


@dataclass(frozen=True, slots=True)
class Failure:
    """Why an attempt failed: `user` is the code's own fault, `retry` tells if another attempt may help."""

    message: str
    code: str
    user: bool
    retry: bool = True

    def json(self) -> str:
        """As the columns `error` hold it."""
        return error_json(self.message, kind="user" if self.user else "system", code=self.code)


def error_json(message: str, *, kind: str, code: str) -> str:
    """The text of a column `error`."""
    return json.dumps({"message": message, "kind": kind, "code": code}, ensure_ascii=False)


def read(directory: Path, exit_: Exit, *, limits: Limits) -> bytes | Failure:
    """The outputs, or the failure. The files were written by code that nobody vouches for."""
    try:
        error = _file(directory, ERROR, _LARGEST_ERROR)
        if error is not None:
            return _reported(error)
        ended = _ended(exit_, limits)
        if ended is not None:
            return ended
        outputs = _file(directory, OUTPUTS, MAX_OUTPUTS)
    except _UnreadableError as problem:
        return Failure(str(problem), "BadOutputs", user=True, retry=False)
    if outputs is None:
        return Failure("The process ended without leaving a result.", "NoOutputs", user=True)
    try:
        common_pb2.Outputs.FromString(outputs)
    except DecodeError:
        return Failure("The result that the process left cannot be read.", "BadOutputs", user=True)
    return outputs


class _UnreadableError(Exception):
    """A file that we will not read; the text is for the run's page."""


def _file(directory: Path, name: str, limit: int) -> bytes | None:
    """A regular file of at most `limit` bytes; a link could lead anywhere in Tower's own files."""
    flags = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
    try:
        folder = os.open(directory, flags | os.O_DIRECTORY)
        try:
            descriptor = os.open(name, flags, dir_fd=folder)
        finally:
            os.close(folder)
    except FileNotFoundError:
        return None
    except OSError as error:
        raise _UnreadableError(f"The file {name} that the process left cannot be read.") from error
    facts = os.fstat(descriptor)
    if not stat.S_ISREG(facts.st_mode) or facts.st_nlink > 1:
        os.close(descriptor)
        raise _UnreadableError(f"The {name} that the process left is not a plain file.")
    with os.fdopen(descriptor, "rb") as file:  # of a folder that would fail, and leave the descriptor
        data = file.read(limit + 1)
    if len(data) > limit:
        raise _UnreadableError(f"The {name} that the process left is larger than {limit} bytes.")
    return data


def _reported(data: bytes) -> Failure:
    try:
        error = execution_pb2.ErrorDocument.FromString(data).error
    except DecodeError:
        return Failure("The error that the process left cannot be read.", "BadOutputs", user=True)
    return Failure(
        error.message[:_LONGEST_MESSAGE] or "The task failed without a message.",
        error.code[:128] or "Error",
        user=True,  # whatever it says: it is the user's process that wrote it
        retry=error.kind == execution_pb2.ContainerError.RECOVERABLE,
    )


def _ended(exit_: Exit, limits: Limits) -> Failure | None:
    if exit_ == Exit(0) or (exit_.code == 0 and exit_.signal is None):
        return None
    if exit_.out_of_memory:
        size = f" of {limits.memory // (1 << 20)} MiB" if limits.memory else ""
        return Failure(f"The attempt needed more memory than its limit{size}.", "OutOfMemory", user=True)
    if exit_.signal == signal.SIGKILL:
        return Failure("The process was killed from outside.", "Killed", user=False)
    if exit_.signal is not None:
        return Failure(f"The process was ended by {_signal(exit_.signal)}.", "Signal", user=True)
    if exit_.code in _NOT_STARTED:
        return Failure("The process could not be started.", "NotStarted", user=False)
    return Failure(f"The process ended with exit status {exit_.code}.", "ExitStatus", user=True)


def _signal(number: int) -> str:
    try:
        return signal.Signals(number).name
    except ValueError:
        return f"signal {number}"
