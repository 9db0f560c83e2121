"""The phase of a run: an enumeration whose members equal their names."""

from __future__ import annotations

import enum


class Phase(enum.StrEnum):
    """Where a run or one of its actions stands. `Phase.SUCCEEDED == "SUCCEEDED"` holds."""

    UNSPECIFIED = "UNSPECIFIED"
    QUEUED = "QUEUED"
    WAITING_FOR_RESOURCES = "WAITING_FOR_RESOURCES"
    INITIALIZING = "INITIALIZING"
    RUNNING = "RUNNING"
    SUCCEEDED = "SUCCEEDED"
    FAILED = "FAILED"
    ABORTED = "ABORTED"
    TIMED_OUT = "TIMED_OUT"
    PAUSED = "PAUSED"
    RECOVERED = "RECOVERED"

    @property
    def is_terminal(self) -> bool:
        """Whether nothing happens any more."""
        return self in _TERMINAL

    @property
    def is_good(self) -> bool:
        """Whether the outputs are there."""
        return self in (Phase.SUCCEEDED, Phase.RECOVERED)

    @property
    def number(self) -> int:
        """The value on the wire, common.ActionPhase."""
        return _ORDER.index(self)

    @classmethod
    def of(cls, number: int) -> Phase:
        """The phase for a value on the wire; one that is not known here is UNSPECIFIED."""
        return _ORDER[number] if 0 <= number < len(_ORDER) else cls.UNSPECIFIED


_ORDER = tuple(Phase)
_TERMINAL = frozenset({Phase.SUCCEEDED, Phase.FAILED, Phase.ABORTED, Phase.TIMED_OUT, Phase.RECOVERED})
