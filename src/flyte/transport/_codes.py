"""Which error a code of the Connect protocol becomes, and which code a bare HTTP status stands for."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from flyte.errors import (
    AlreadyExistsError,
    CanceledError,
    DeadlineExceededError,
    FailedPreconditionError,
    FlyteError,
    PermissionDeniedError,
    RemoteNotFoundError,
    RemoteUsageError,
    ResourceExhaustedError,
    ServerError,
    UnauthenticatedError,
    UnavailableError,
    UnimplementedError,
)

ERRORS: Final[Mapping[str, type[FlyteError]]] = {
    "canceled": CanceledError,
    "unknown": ServerError,
    "invalid_argument": RemoteUsageError,
    "deadline_exceeded": DeadlineExceededError,
    "not_found": RemoteNotFoundError,
    "already_exists": AlreadyExistsError,
    "permission_denied": PermissionDeniedError,
    "resource_exhausted": ResourceExhaustedError,
    "failed_precondition": FailedPreconditionError,
    "aborted": FailedPreconditionError,
    "out_of_range": RemoteUsageError,
    "unimplemented": UnimplementedError,
    "internal": ServerError,
    "unavailable": UnavailableError,
    "data_loss": ServerError,
    "unauthenticated": UnauthenticatedError,
}
"""All codes of the protocol: https://connectrpc.com/docs/protocol/#error-codes"""

STATUSES: Final[Mapping[int, str]] = {
    400: "internal",
    401: "unauthenticated",
    403: "permission_denied",
    404: "unimplemented",
    429: "unavailable",
    502: "unavailable",
    503: "unavailable",
    504: "unavailable",
}
"""Codes for answers without an error document: https://connectrpc.com/docs/protocol/#http-to-error-code"""

_HINTS: Final[Mapping[str, str]] = {
    "unauthenticated": "Check that the credential is whole, not expired, and made by this control plane.",
    "permission_denied": "Ask an administrator of the project for a role that allows this.",
    "unimplemented": "Check that the endpoint is a Flyte control plane and not older than this SDK.",
}


def error_for(code: str, message: str, *, status: int = 200) -> FlyteError:
    """The error for a code; a code nobody knows counts as what the HTTP status stands for.

    A server that explains itself is left to do so; the hint is for those that give no message.
    """
    known = code if code in ERRORS else STATUSES.get(status, "unknown")
    if message:
        return ERRORS[known](message, code=known)
    said = f"The control plane answered: {known.replace('_', ' ')}."
    return ERRORS[known](said, code=known, hint=_HINTS.get(known, ""))
