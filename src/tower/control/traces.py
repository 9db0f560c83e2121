"""Steps that a task of the official SDK records within itself: told back to it while its attempt runs.

They are calls inside one process, not actions: nothing is started for them and nobody's rights are asked.
"""

from __future__ import annotations

from collections import OrderedDict
from dataclasses import dataclass

from tower.errors import Exhausted, Invalid

_MOST = 20_000
_LONGEST = 512


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
        self._size = 0

    def record(self, attempt: str, step: Traced) -> None:
        """Keep a step; those of attempts that were silent the longest go when there are too many of all.

        Raises Invalid and Exhausted.
        """
        if len(step.outputs_uri) > _LONGEST:
            raise Invalid(f"The place of the outputs of a step has more than {_LONGEST} characters.")
        steps = self._kept.setdefault(attempt, {})
        if len(steps) >= self._limit and step.action not in steps:
            raise Exhausted(f"A task records at most {self._limit} steps.")
        self._size += step.action not in steps
        steps[step.action] = step
        self._kept.move_to_end(attempt)
        while self._size > _MOST and len(self._kept) > 1:
            self._size -= len(self._kept.popitem(last=False)[1])

    def of(self, attempt: str) -> tuple[Traced, ...]:
        """What an attempt recorded."""
        return tuple(self._kept.get(attempt, {}).values())
