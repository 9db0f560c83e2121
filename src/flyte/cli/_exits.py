"""Exit statuses that scripts can rely on; an error as one line, or a line and the end of a log."""

from __future__ import annotations

import re
import traceback
from enum import IntEnum
from typing import IO, Any

import rich_click as click

from flyte import errors
from flyte.cli._output import cell


class Exit(IntEnum):
    """The exit statuses of `flyte`."""

    OK = 0
    FAILURE = 1
    USAGE = 2
    UNAUTHENTICATED = 3
    DENIED = 4
    NOT_FOUND = 5
    UNAVAILABLE = 6
    RUN_FAILED = 7


STATUS: dict[type[errors.FlyteError], Exit] = {
    errors.InitializationError: Exit.USAGE,
    errors.DeclarationError: Exit.USAGE,
    errors.RemoteUsageError: Exit.USAGE,
    errors.UnauthenticatedError: Exit.UNAUTHENTICATED,
    errors.PermissionDeniedError: Exit.DENIED,
    errors.RemoteNotFoundError: Exit.NOT_FOUND,
    errors.UnavailableError: Exit.UNAVAILABLE,
    errors.UntrustedServerError: Exit.UNAVAILABLE,
    errors.RunError: Exit.RUN_FAILED,
}
"""The status of each class of error and of those below it; every other one is a failure."""

MEANING: dict[Exit, str] = {
    Exit.OK: "done",
    Exit.FAILURE: "failure",
    Exit.USAGE: "wrong usage: options, inputs, settings, a file that cannot be loaded",
    Exit.UNAUTHENTICATED: "not authenticated",
    Exit.DENIED: "not allowed",
    Exit.NOT_FOUND: "not found",
    Exit.UNAVAILABLE: "the control plane cannot be reached, or its certificate is not trusted",
    Exit.RUN_FAILED: "the run did not succeed",
}
"""What each says; shown by `flyte --help`."""

_ARGUMENT = re.compile(r"\b(endpoint|insecure|ca_file|project|domain)=(?:True|\.\.\.)?(?=[\s,.;)]|$)")
"""How the SDK's words name what is an option here: `endpoint=...`, `insecure=True`, `ca_file=`."""

_REMEDY = {
    Exit.UNAUTHENTICATED: (
        "Sign in with `flyte login`, or set FLYTE_API_KEY to a key of this control plane. "
        "An administrator makes the first one by `tower keys create NAME --user USER`."
    ),
}


class Failed(click.ClickException):
    """An error that is shown as one line, and ends the command with its status.

    `log` is what an app wrote last; its lines are shown below, indented.
    """

    def __init__(self, message: str, status: Exit = Exit.FAILURE, *, log: str = "") -> None:
        super().__init__(cell(" ".join(message.split())))
        self.status = status
        self.log = log

    @property
    def exit_code(self) -> int:  # type: ignore[override]  # a constant of the class above it
        """What the process ends with."""
        return int(self.status)

    @classmethod
    def of(cls, error: Exception) -> Failed:
        """The line and the status for an error of the SDK; for any other, that this is a bug."""
        if not isinstance(error, errors.FlyteError):
            what = f"{type(error).__name__}: {error}".rstrip(": ")
            return cls(f"flyte failed unexpectedly: {what}. FLYTE_DEBUG=1 shows where.")
        status = next((STATUS[kind] for kind in type(error).__mro__ if kind in STATUS), Exit.FAILURE)
        message, log = (error.message or type(error).__name__).rstrip(), ""
        if isinstance(error, errors.DeploymentError):
            message, _, log = message.partition("\n")
        if message[-1] not in ".!?":
            message += "."
        return cls(in_options(f"{message} {_REMEDY.get(status) or error.hint}"), status, log=log)

    @classmethod
    def in_user_code(cls, error: Exception, file: str) -> Failed:
        """The line for an error that a file of the user raised while it was loaded: where, and what."""
        if isinstance(error, SyntaxError):
            return cls(f"{error.filename}:{error.lineno}: {type(error).__name__}: {error.msg}", Exit.USAGE)
        frames = traceback.extract_tb(error.__traceback__)
        place = next((frame for frame in reversed(frames) if frame.filename == file), None)
        where = f"{file}:{place.lineno}" if place else file
        return cls(f"{where}: {type(error).__name__}: {error}", Exit.USAGE)

    def show(self, file: IO[Any] | None = None) -> None:
        """Write the line, and what belongs to it, to standard error."""
        click.echo(f"Error: {self.message}", file=file, err=file is None)
        for line in self.log.splitlines():
            click.echo(f"  {cell(line)}".rstrip(), file=file, err=file is None)


def in_options(text: str) -> str:
    """What the SDK says of its arguments, said of options."""
    return _ARGUMENT.sub(lambda found: f"--{found[1].replace('_', '-')}", text)
