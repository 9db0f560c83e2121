"""Laws of the proof that goes with each call of an agent."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.identity_world import FakeClock

from tower.errors import Unauthenticated
from tower.identity.agenttokens import AgentTokens
from tower.identity.signing import SigningKey
from tower.possession import Half, Proof, bytes_of, public_key, text_of

AGENT, TOWER, OTHER = Half.generate(), Half.of(bytes(range(32))), Half.generate()
MINE = AGENT.agree(AGENT.public, TOWER.public)
THEIRS = TOWER.agree(AGENT.public, TOWER.public)

calls = st.fixed_dictionaries(
    {
        "method": st.sampled_from(["GET", "POST", "PUT"]),
        "target": st.binary(max_size=20),
        "token": st.text("ab.", max_size=6),
        "body": st.binary(max_size=20),
    }
)
times = st.tuples(st.integers(0, 2**50), st.integers(0, 2**40))


@given(calls, times)
def test_both_sides_agree_and_nobody_else_does(call: dict[str, Any], when: tuple[int, int]) -> None:
    proof = MINE.prove(at=when[0], number=when[1], **call)
    assert THEIRS.holds(proof, **call)
    assert Proof.read(str(proof)) == proof
    for stranger in (OTHER.agree(OTHER.public, TOWER.public), OTHER.agree(OTHER.public, AGENT.public)):
        assert not stranger.holds(proof, **call)


@given(calls, calls, times, times)
def test_a_proof_is_of_one_call(
    call: dict[str, Any], other: dict[str, Any], when: tuple[int, int], then: tuple[int, int]
) -> None:
    proof = MINE.prove(at=when[0], number=when[1], **call)
    assert THEIRS.holds(proof, **other) is (call == other)
    moved = replace(proof, at=then[0], number=then[1])
    assert THEIRS.holds(moved, **call) is (when == then)


@given(st.binary(max_size=80))
def test_what_travels_has_one_spelling(data: bytes) -> None:
    text = text_of(data)
    assert bytes_of(text) == data
    for other in (text + "=", " " + text, text + "\n"):
        with pytest.raises(ValueError, match="base64url"):
            bytes_of(other)


@given(st.text(max_size=60))
def test_no_text_breaks_the_reading(text: str) -> None:
    for read in (Proof.read, public_key):
        try:
            read(text)
        except ValueError:
            continue


@given(st.lists(st.integers(0, 3000), max_size=200))
def test_a_number_counts_once_and_not_far_behind(numbers: list[int]) -> None:
    """Against the plainest model: what was seen, and nothing that is a window behind the highest."""
    clock = FakeClock()
    tokens = AgentTokens(keys=SigningKey.generate(), secret=bytes(range(32)), clock=clock, issuer="t")
    seen: set[int] = set()
    for number in numbers:
        proof = MINE.prove(method="GET", target=b"/", token="t", at=int(clock.now() * 1000), number=number)
        expected = number not in seen and (not seen or number > max(seen) - 1024)
        try:
            tokens.possessed(AGENT.public, str(proof), method="GET", target=b"/", token="t")
            let_in = True
        except Unauthenticated:
            let_in = False
        assert let_in is expected
        if expected:
            seen.add(number)


def test_nothing_from_before_the_start_counts() -> None:
    clock = FakeClock()
    proof = MINE.prove(method="GET", target=b"/", token="t", at=int(clock.now() * 1000) - 1, number=1)
    tokens = AgentTokens(keys=SigningKey.generate(), secret=bytes(range(32)), clock=clock, issuer="t")
    with pytest.raises(Unauthenticated):
        tokens.possessed(AGENT.public, str(proof), method="GET", target=b"/", token="t")
