"""How a run ended: its outputs, or the error that says why there are none."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Self

from flyte.errors import RunAbortedError, RunError, RunFailedError, RunTimedOutError
from flyte.remote._phase import Phase

BEFORE = frozenset(
    {Phase.UNSPECIFIED, Phase.QUEUED, Phase.WAITING_FOR_RESOURCES, Phase.INITIALIZING, Phase.PAUSED}
)
"""Phases in which no attempt has begun."""


class Outputs(tuple[Any, ...]):  # noqa: SLOT001 - a tuple that has names, too
    """The results in order; `named` has them by name, o0, o1, …"""

    named: Mapping[str, Any]

    def __new__(cls, named: Mapping[str, Any]) -> Self:
        outputs = super().__new__(cls, named.values())
        outputs.named = dict(named)
        return outputs


def failure(run: str, phase: Phase, error: str) -> RunError | None:
    """The error for a run that ended otherwise than well; None for one that succeeded or goes on."""
    detail = f": {error}" if error else "."
    match phase:
        case Phase.FAILED:
            return RunFailedError(f"The run {run} failed{detail}", run=run)
        case Phase.ABORTED:
            return RunAbortedError(f"The run {run} was aborted{detail}", run=run)
        case Phase.TIMED_OUT:
            return RunTimedOutError(f"The run {run} took too long{detail}", run=run)
        case _:
            return None
