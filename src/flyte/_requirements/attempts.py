"""How often an attempt is made, and how long it may take."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import timedelta

from flyte.errors import DeclarationError

MAX_RETRIES = 100
_LONGEST = timedelta(days=366)


@dataclass(frozen=True, slots=True)
class RetryStrategy:
    """`count` more attempts after the first one that failed.

    An attempt that raises `flyte.errors.NonRecoverableError` is the last one, whatever the count.
    """

    count: int = 0

    def __post_init__(self) -> None:
        if isinstance(self.count, bool) or not isinstance(self.count, int):
            raise DeclarationError(f"retries must be a whole number, not {type(self.count).__name__}.")
        if not 0 <= self.count <= MAX_RETRIES:
            raise DeclarationError(f"retries must be between 0 and {MAX_RETRIES}, not {self.count}.")


@dataclass(frozen=True, slots=True)
class Timeout:
    """`max_runtime` limits one attempt, `max_queued_time` the wait before it starts. None is no limit."""

    max_runtime: timedelta | None = None
    max_queued_time: timedelta | None = None

    def __post_init__(self) -> None:
        for name, value in (("max_runtime", self.max_runtime), ("max_queued_time", self.max_queued_time)):
            if value is not None:
                object.__setattr__(self, name, _duration(value, name=name))


def as_retry(value: int | RetryStrategy) -> RetryStrategy:
    """Retries as a strategy; an int is the count."""
    return value if isinstance(value, RetryStrategy) else RetryStrategy(value)


def as_timeout(value: float | timedelta | Timeout | None) -> Timeout:
    """A timeout as a value; a number of seconds or a timedelta is the longest run time of an attempt."""
    if value is None:
        return Timeout()
    return value if isinstance(value, Timeout) else Timeout(max_runtime=_duration(value, name="timeout"))


def _duration(value: object, *, name: str) -> timedelta:
    if isinstance(value, (int, float)) and not isinstance(value, bool):
        try:
            value = timedelta(seconds=value)
        except (OverflowError, ValueError) as fault:
            raise DeclarationError(f"{name} is not a possible number of seconds.") from fault
    if not isinstance(value, timedelta):
        raise DeclarationError(f"{name} must be seconds or a timedelta, not {type(value).__name__}.")
    if not timedelta(0) < value <= _LONGEST:
        raise DeclarationError(f"{name} must be more than zero and at most {_LONGEST.days} days.")
    return value
