"""Everything that Tower says no with.

Fault
├── Invalid             the request is malformed; the message names the field
├── Unauthenticated     no credential, or one that does not hold
│   └── Counterfeit     what came is none of ours; its source is made to wait
├── Denied              a known caller who may not do this
├── NotFound            absent, or not viewable by this caller (byte for byte the same)
├── AlreadyExists       the name is taken by something else
├── Precondition        the thing is in a state that does not allow this
│   └── InUse           another process holds it, perhaps only for a moment
├── Exhausted           a limit on size, number or rate is reached
├── Unavailable         try again later
├── Unsupported         this installation does not offer it
└── Broken              a bug or a damaged store; the caller sees a reference id only

A fault has a public `message`, a public `hint` (what to do next) and a private `cause` that only the
log sees. HTTP doors answer with `HTTP_STATUS`; the RPC door has a table of its own.
"""

from __future__ import annotations

from enum import StrEnum
from math import ceil
from typing import ClassVar


class Code(StrEnum):
    """One word per class of fault, in the spelling of the Connect protocol."""

    INVALID_ARGUMENT = "invalid_argument"
    UNAUTHENTICATED = "unauthenticated"
    PERMISSION_DENIED = "permission_denied"
    NOT_FOUND = "not_found"
    ALREADY_EXISTS = "already_exists"
    FAILED_PRECONDITION = "failed_precondition"
    RESOURCE_EXHAUSTED = "resource_exhausted"
    UNAVAILABLE = "unavailable"
    UNIMPLEMENTED = "unimplemented"
    INTERNAL = "internal"


HTTP_STATUS: dict[Code, int] = {
    Code.INVALID_ARGUMENT: 400,
    Code.UNAUTHENTICATED: 401,
    Code.PERMISSION_DENIED: 403,
    Code.NOT_FOUND: 404,
    Code.ALREADY_EXISTS: 409,
    Code.FAILED_PRECONDITION: 409,
    Code.RESOURCE_EXHAUSTED: 429,
    Code.UNAVAILABLE: 503,
    Code.UNIMPLEMENTED: 501,
    Code.INTERNAL: 500,
}
"""What every HTTP door answers with; complete by test."""


class Fault(Exception):
    """The root: a public message, a public hint and a hidden cause."""

    code: ClassVar[Code] = Code.INTERNAL

    def __init__(self, message: str, *, hint: str = "", cause: str = "") -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint
        self.cause = cause

    @property
    def public(self) -> str:
        """The message and the hint, as shown to the caller."""
        return f"{self.message} {self.hint}".strip()


class Invalid(Fault):
    """The request is malformed; the message names the field and what it may hold."""

    code = Code.INVALID_ARGUMENT


class Unauthenticated(Fault):
    """No credential came, or the one that came does not hold."""

    code = Code.UNAUTHENTICATED


class Counterfeit(Unauthenticated):
    """The credential that came is none of ours: mistyped, forged, or a guess. Its source is made to wait."""


class Denied(Fault):
    """A known caller asked for something that policy does not allow."""

    code = Code.PERMISSION_DENIED


class NotFound(Fault):
    """The thing is absent, or this caller may not view it: the two answers are the same bytes."""

    code = Code.NOT_FOUND


class AlreadyExists(Fault):
    """The name is taken by something with other content."""

    code = Code.ALREADY_EXISTS


class Precondition(Fault):
    """The thing exists but its state does not allow this now."""

    code = Code.FAILED_PRECONDITION


class InUse(Precondition):
    """Another process holds what this needs; it may let go of it in a moment."""


class Exhausted(Fault):
    """A limit on size, number or rate is reached; the message names the limit."""

    code = Code.RESOURCE_EXHAUSTED

    def __init__(self, message: str, *, hint: str = "", cause: str = "", wait: float = 0.0) -> None:
        super().__init__(message, hint=hint, cause=cause)
        self.wait = wait
        """Seconds until trying again may help; 0 where waiting alone does not."""


def retry_after(error: BaseException) -> str:
    """The value of the header of that name for an answer (RFC 9110 section 10.2.3); "" for none."""
    wait = error.wait if isinstance(error, Exhausted) else 0.0
    return str(ceil(wait)) if wait > 0 else ""


class Unavailable(Fault):
    """A part that is needed does not answer; trying again later may work."""

    code = Code.UNAVAILABLE


class Unsupported(Fault):
    """This installation does not offer what was asked for; the hint says what does."""

    code = Code.UNIMPLEMENTED


class Broken(Fault):
    """A bug or a damaged store. The caller sees a reference id, the log sees the cause."""

    code = Code.INTERNAL
