"""Steps that a task of the official SDK records within itself: told back to it while its attempt runs.

They are calls inside one process, not actions: nothing is started for them and nobody's rights are asked.
"""

from __future__ import annotations

from collections import OrderedDict
from dataclasses import dataclass

from tower.errors import Exhausted

_ATTEMPTS = 4096


@dataclass(frozen=True, slots=True)
class Traced:
    """A step: its name in the run, how it ended (a phase of the protocol) and where its outputs lie."""

    action: str
    phase: int
    outputs_uri: str


class Traces:
    """What attempts recorded, by their ids."""

    def __init__(self, *, limit: int) -> None:
        """`limit` is how many steps one attempt may record."""
        self._limit = limit
        self._kept: OrderedDict[str, dict[str, Traced]] = OrderedDict()

    def record(self, attempt: str, step: Traced) -> None:
        """Keep a step. Raises Exhausted."""
        steps = self._kept.setdefault(attempt, {})
        if len(steps) >= self._limit and step.action not in steps:
            raise Exhausted(f"A task records at most {self._limit} steps.")
        steps[step.action] = step
        self._kept.move_to_end(attempt)
        while len(self._kept) > _ATTEMPTS:
            self._kept.popitem(last=False)

    def of(self, attempt: str) -> tuple[Traced, ...]:
        """What an attempt recorded."""
        return tuple(self._kept.get(attempt, {}).values())
