"""Names from the clock: short, sortable, drawn from an alphabet that is safe in a host name."""

from __future__ import annotations

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tower import clock
from tower.clock import SystemClock, utc


def test_a_name_fits_the_wire_and_a_host_name() -> None:
    name = SystemClock().name("r")
    assert re.fullmatch(r"r[0-9a-z]{19}", name)
    assert len(name) <= 30


def test_names_do_not_repeat() -> None:
    system = SystemClock()
    assert len({system.name("r") for _ in range(10_000)}) == 10_000


@given(st.integers(0, 2**44), st.integers(0, 2**44))
def test_names_sort_by_time(one: int, other: int) -> None:
    with pytest.MonkeyPatch.context() as patch:
        names = []
        for milliseconds in (one, other):
            patch.setattr(clock.time, "time", lambda milliseconds=milliseconds: (milliseconds + 0.5) / 1000)
            names.append(SystemClock().name("r"))
    if one != other:
        assert (names[0] < names[1]) is (one < other)


def test_a_time_becomes_an_aware_datetime() -> None:
    assert utc(0.5).isoformat() == "1970-01-01T00:00:00.500000+00:00"
