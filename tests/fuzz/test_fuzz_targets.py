"""Every target of the fuzzer, for a bounded while: its seeds, what comes of changing them, and noise."""

from __future__ import annotations

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from tests.fuzz.targets import TARGETS, seeds

EXAMPLES = 120


@st.composite
def changed(draw: st.DrawFn, known: list[bytes]) -> bytes:
    """A seed with a few bytes replaced, removed, repeated or put in."""
    data = bytearray(draw(st.sampled_from(known)))
    for _ in range(draw(st.integers(1, 4))):
        start = draw(st.integers(0, len(data)))
        end = min(len(data), start + draw(st.integers(0, 8)))
        new = draw(
            st.binary(max_size=8) | st.sampled_from([b"\x00", b"..", b"/", b"%2f", b"\r\n", b"=", b","])
        )
        data[start:end] = new + (bytes(data[start:end]) if draw(st.booleans()) else b"")
    return bytes(data)


@pytest.mark.parametrize("name", TARGETS)
def test_a_parser_accepts_or_refuses_and_nothing_else(name: str) -> None:
    target, known = TARGETS[name], seeds(name)
    for seed in known:
        target(seed)
    noise = st.binary(max_size=600)

    @given(changed(known) | noise if known else noise)
    @settings(max_examples=EXAMPLES, deadline=None, suppress_health_check=list(HealthCheck))
    def check(data: bytes) -> None:
        target(data)

    check()
