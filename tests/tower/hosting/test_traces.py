"""Steps of tasks are remembered within bounds, whatever tasks record."""

from __future__ import annotations

import pytest

from tower.control import traces
from tower.control.traces import Traced, Traces
from tower.errors import Exhausted, Invalid


def step(name: str, uri: str = "/o") -> Traced:
    return Traced(name, 5, uri)


def test_the_newest_word_on_a_step_counts() -> None:
    kept = Traces(limit=2)
    kept.record("a", step("one"))
    kept.record("a", step("one", "/other"))
    kept.record("a", step("two"))
    assert kept.of("a") == (step("one", "/other"), step("two"))
    assert kept.of("b") == ()
    with pytest.raises(Exhausted):
        kept.record("a", step("three"))
    with pytest.raises(Invalid):
        kept.record("b", step("one", "x" * 1000))


def test_silent_attempts_go_first(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(traces, "_MOST", 3)
    kept = Traces(limit=10)
    for attempt in ("a", "b", "a", "c"):
        kept.record(attempt, step(f"{attempt}{len(kept.of(attempt))}"))
    assert [len(kept.of(attempt)) for attempt in "abc"] == [2, 0, 1]
    for number in range(5):
        kept.record("c", step(f"more{number}"))
    assert [len(kept.of(attempt)) for attempt in "abc"] == [0, 0, 6]
