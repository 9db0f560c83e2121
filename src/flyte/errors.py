"""Every error that this SDK raises on purpose, in one tree.

::

    FlyteError                           code, hint
    ├── InitializationError              the settings do not make a session
    │   ├── NotInitializedError          flyte was used before any init call
    │   └── NotInTaskError               only a running task can do this
    ├── UnauthenticatedError             the server does not know the caller                     (401)
    │   └── MissingCallerError           passthrough without caller metadata; nothing was sent
    ├── PermissionDeniedError            known, but not allowed                                  (403)
    ├── RemoteNotFoundError              absent, or not visible to this caller                   (404)
    │   ├── RemoteTaskNotFoundError
    │   ├── RemoteRunNotFoundError
    │   ├── RemoteAppNotFoundError
    │   └── RemoteSecretNotFoundError    also in a task: a secret that it declared and does not get
    ├── RemoteUsageError                 the request makes no sense to the server                (400)
    │   └── RemoteTaskUsageError         wrong inputs for a task
    ├── AlreadyExistsError               the name or version is taken by something else          (409)
    ├── FailedPreconditionError          right request, wrong moment                             (412)
    ├── ResourceExhaustedError           a limit or a quota was reached                          (429)
    ├── UnavailableError                 the server cannot be reached, or asks to come back      (503)
    │   └── DeadlineExceededError        no answer in time                                       (504)
    ├── CanceledError                    the server ended the call
    ├── ServerError                      the server failed, or answered what nobody can read     (500)
    │   ├── UntrustedServerError         its certificate is not trusted, or it speaks no TLS
    │   └── UnimplementedError           this server does not have that method
    ├── DeclarationError                 a task, environment or app that makes no sense (a TypeError too)
    ├── DeploymentError                  a deployment that cannot go on
    │   └── UploadError                  the code bundle or the inputs could not be stored
    ├── RunError                         a run that did not succeed; has the run's name
    │   ├── RunFailedError
    │   ├── RunAbortedError
    │   └── RunTimedOutError
    └── RuntimeUserError                 raised by task code
        └── NonRecoverableError          raise it in a task: no further attempt is made

Codes are the lower-case names of the Connect protocol where one fits. A message never holds a credential.
"""

from __future__ import annotations

from typing import ClassVar


class FlyteError(Exception):
    """The root of everything raised here.

    :ivar code: a short, stable, machine-readable name of what went wrong.
    :ivar hint: what the reader can do about it; empty where there is nothing to say.
    """

    default_code: ClassVar[str] = "unknown"

    def __init__(self, message: str = "", *, code: str | None = None, hint: str = "") -> None:
        super().__init__(message)
        self.message = message
        self.code = code or self.default_code
        self.hint = hint

    def __str__(self) -> str:
        return f"{self.message}\nHint: {self.hint}" if self.hint else self.message

    def __reduce__(self) -> tuple[object, ...]:
        return _rebuild, (type(self), self.message, self.code, self.hint, self.__dict__)


def _rebuild(
    kind: type[FlyteError], message: str, code: str, hint: str, state: dict[str, object]
) -> FlyteError:
    """Make an error again from its pickled parts, whatever its constructor asks for."""
    error = kind.__new__(kind)
    FlyteError.__init__(error, message, code=code, hint=hint)
    error.__dict__.update(state)
    return error


class InitializationError(FlyteError):
    """The arguments, the environment and the configuration do not make a usable session."""

    default_code = "initialization"


class NotInitializedError(InitializationError):
    """Flyte was used before `flyte.init`, `flyte.init_passthrough` or one of their relatives."""

    default_code = "not_initialized"

    def __init__(
        self,
        message: str = "flyte has not been initialised in this process.",
        *,
        code: str | None = None,
        hint: str = "Call flyte.init(...), flyte.init_passthrough(...) or flyte.init_from_config() first.",
    ) -> None:
        super().__init__(message, code=code, hint=hint)


class NotInTaskError(InitializationError):
    """What was asked for exists only inside of a running task of the platform."""

    default_code = "not_in_task"

    def __init__(
        self,
        message: str = "This works only inside of a running task.",
        *,
        code: str | None = None,
        hint: str = "Call it in a function that the platform runs as a task.",
    ) -> None:
        super().__init__(message, code=code, hint=hint)


class UnauthenticatedError(FlyteError):
    """The control plane does not know who is calling: no credential, or one that is not valid (any more)."""

    default_code = "unauthenticated"


class MissingCallerError(UnauthenticatedError):
    """Passthrough mode, and no caller metadata is in force. Nothing was sent."""

    default_code = "missing_caller"

    def __init__(
        self,
        message: str = "No caller metadata is in force, so there is nobody to make this call as.",
        *,
        code: str | None = None,
        hint: str = (
            "Wrap the call in `with flyte.remote.auth_metadata((name, value), ...)`, "
            "or add FastAPIPassthroughAuthMiddleware and check that this path is not excluded."
        ),
    ) -> None:
        super().__init__(message, code=code, hint=hint)


class PermissionDeniedError(FlyteError):
    """The caller is known and may not do this."""

    default_code = "permission_denied"


class RemoteNotFoundError(FlyteError):
    """What was asked for does not exist, or this caller may not see it. The two look the same on purpose."""

    default_code = "not_found"


class RemoteTaskNotFoundError(RemoteNotFoundError):
    """No such task, or none that this caller may see."""


class RemoteRunNotFoundError(RemoteNotFoundError):
    """No such run, or none that this caller may see."""


class RemoteAppNotFoundError(RemoteNotFoundError):
    """No such app, or none that this caller may see."""


class RemoteSecretNotFoundError(RemoteNotFoundError):
    """No such secret, or none that whom this runs as may use."""


class RemoteUsageError(FlyteError):
    """The request is wrong in itself; repeating it cannot help."""

    default_code = "invalid_argument"


class RemoteTaskUsageError(RemoteUsageError):
    """A task was called in a way that its interface does not allow."""


class AlreadyExistsError(FlyteError):
    """The name or version is taken by something different."""

    default_code = "already_exists"


class FailedPreconditionError(FlyteError):
    """A right request at the wrong moment, such as aborting a run that has ended."""

    default_code = "failed_precondition"


class ResourceExhaustedError(FlyteError):
    """A size limit, a rate limit or a quota was reached."""

    default_code = "resource_exhausted"


class UnavailableError(FlyteError):
    """The control plane could not be reached, or asks to come back later. Safe to try again."""

    default_code = "unavailable"


class DeadlineExceededError(UnavailableError):
    """No answer came in time. The server may have done the work all the same."""

    default_code = "deadline_exceeded"


class CanceledError(FlyteError):
    """The server ended the call. A caller who cancels sees `asyncio.CancelledError` instead."""

    default_code = "canceled"


class ServerError(FlyteError):
    """The control plane failed, or gave an answer that is not of the protocol."""

    default_code = "internal"


class UntrustedServerError(ServerError):
    """Who answers there is not known to be the control plane: no certificate that is trusted, or no TLS."""

    default_code = "certificate"


class UnimplementedError(ServerError):
    """This server does not have the method."""

    default_code = "unimplemented"


class DeclarationError(FlyteError, TypeError):
    """A task, an environment or an app is declared in a way that cannot work."""

    default_code = "declaration"


class DeploymentError(FlyteError):
    """A deployment cannot go on."""

    default_code = "deployment"


class UploadError(DeploymentError):
    """The code bundle or the inputs could not be stored."""

    default_code = "upload"


class RunError(FlyteError):
    """A run that did not succeed.

    :ivar run: the run's name; empty where it is not known.
    """

    default_code = "run"

    def __init__(self, message: str = "", *, run: str = "", code: str | None = None, hint: str = "") -> None:
        super().__init__(message, code=code, hint=hint)
        self.run = run


class RunFailedError(RunError):
    """The last attempt raised, was killed, or could not be started."""

    default_code = "run_failed"


class RunAbortedError(RunError):
    """Somebody aborted the run."""

    default_code = "run_aborted"


class RunTimedOutError(RunError):
    """The run took longer than its task allows."""

    default_code = "run_timed_out"


class RuntimeUserError(FlyteError):
    """Raised by task code, as opposed to the SDK or the platform."""

    default_code = "user"


class NonRecoverableError(RuntimeUserError):
    """Raise it in a task to say that another attempt cannot help: retries are not used."""

    default_code = "non_recoverable"


RuntimeSystemError = ServerError
"""The name under which people who come from the official SDK look for a failure of the platform."""
