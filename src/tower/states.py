"""The state machines of runs, attempts and apps, as tables. Pure: no time, no store.

The numbers of `Phase` are those of `flyteidl2.common.ActionPhase`, those of `AppStatus` of
`flyteidl2.app.Status.DeploymentStatus`, those of `Desired` of `flyteidl2.app.Spec.DesiredState`.
"""

from __future__ import annotations

from enum import IntEnum


class Phase(IntEnum):
    """Where an action (a run is its root action) or one of its attempts stands."""

    QUEUED = 1
    WAITING_FOR_RESOURCES = 2
    INITIALIZING = 3
    RUNNING = 4
    SUCCEEDED = 5
    FAILED = 6
    ABORTED = 7
    TIMED_OUT = 8

    @property
    def terminal(self) -> bool:
        """Whether nothing can follow."""
        return not MOVES[self]


MOVES: dict[Phase, frozenset[Phase]] = {
    Phase.QUEUED: frozenset(
        {
            Phase.WAITING_FOR_RESOURCES,
            Phase.INITIALIZING,
            Phase.RUNNING,
            Phase.FAILED,
            Phase.ABORTED,
            Phase.TIMED_OUT,
        }
    ),
    Phase.WAITING_FOR_RESOURCES: frozenset(
        {Phase.INITIALIZING, Phase.RUNNING, Phase.FAILED, Phase.ABORTED, Phase.TIMED_OUT}
    ),
    # back to QUEUED: the attempt ended and a retry is due
    Phase.INITIALIZING: frozenset(
        {Phase.RUNNING, Phase.QUEUED, Phase.FAILED, Phase.ABORTED, Phase.TIMED_OUT}
    ),
    Phase.RUNNING: frozenset({Phase.QUEUED, Phase.SUCCEEDED, Phase.FAILED, Phase.ABORTED, Phase.TIMED_OUT}),
    Phase.SUCCEEDED: frozenset(),
    Phase.FAILED: frozenset(),
    Phase.ABORTED: frozenset(),
    Phase.TIMED_OUT: frozenset(),
}
"""From each phase of an action, the phases it may move to."""


class AppStatus(IntEnum):
    """Where an app stands."""

    UNASSIGNED = 1
    ASSIGNED = 2
    PENDING = 3
    STOPPED = 4
    STARTED = 5
    FAILED = 6
    ACTIVE = 7
    SCALING_UP = 8
    SCALING_DOWN = 9
    DEPLOYING = 10


class Desired(IntEnum):
    """What an app's owner wants of it: ACTIVE scales to zero when idle, STARTED stays up."""

    STOPPED = 1
    STARTED = 2
    ACTIVE = 3


def may_move(source: Phase, target: Phase) -> bool:
    """Whether an action may go from one phase to the other."""
    return target in MOVES[source]
