"""Faults to codes of the Connect protocol: one table, complete by test."""

from __future__ import annotations

from connectrpc.code import Code as Wire
from connectrpc.errors import ConnectError

from tower.errors import Code, Fault

WIRE: dict[Code, Wire] = {
    Code.INVALID_ARGUMENT: Wire.INVALID_ARGUMENT,
    Code.UNAUTHENTICATED: Wire.UNAUTHENTICATED,
    Code.PERMISSION_DENIED: Wire.PERMISSION_DENIED,
    Code.NOT_FOUND: Wire.NOT_FOUND,
    Code.ALREADY_EXISTS: Wire.ALREADY_EXISTS,
    Code.FAILED_PRECONDITION: Wire.FAILED_PRECONDITION,
    Code.RESOURCE_EXHAUSTED: Wire.RESOURCE_EXHAUSTED,
    Code.UNAVAILABLE: Wire.UNAVAILABLE,
    Code.UNIMPLEMENTED: Wire.UNIMPLEMENTED,
    Code.INTERNAL: Wire.INTERNAL,
}

HTTP: dict[Wire, int] = {
    Wire.CANCELED: 499,
    Wire.UNKNOWN: 500,
    Wire.INVALID_ARGUMENT: 400,
    Wire.DEADLINE_EXCEEDED: 504,
    Wire.NOT_FOUND: 404,
    Wire.ALREADY_EXISTS: 409,
    Wire.PERMISSION_DENIED: 403,
    Wire.RESOURCE_EXHAUSTED: 429,
    Wire.FAILED_PRECONDITION: 400,
    Wire.ABORTED: 409,
    Wire.OUT_OF_RANGE: 400,
    Wire.UNIMPLEMENTED: 501,
    Wire.INTERNAL: 500,
    Wire.UNAVAILABLE: 503,
    Wire.DATA_LOSS: 500,
    Wire.UNAUTHENTICATED: 401,
}
"""The status of a unary answer, from the specification of the Connect protocol."""


def connect_error(fault: Fault, *, reference: str) -> ConnectError:
    """What a caller may see of a fault. Of a bug it is the reference id alone; the log has the rest."""
    if fault.code is Code.INTERNAL:
        return broken(reference)
    return ConnectError(WIRE[fault.code], fault.public)


def broken(reference: str) -> ConnectError:
    """The answer to anything unforeseen."""
    return ConnectError(Wire.INTERNAL, f"Tower failed. Report the reference {reference}.")
