"""The names of sub-tasks: the same for the same call, whatever else happens; another one for any other."""

from __future__ import annotations

import re

from hypothesis import given
from hypothesis import strategies as st

import flyte
from flyte.runtime.children import Children, _local

env = flyte.TaskEnvironment("named-children")


@env.task
async def one(x: int, text: str = "") -> int:
    return x


@env.task
async def two(x: int, text: str = "") -> int:
    return x


def children(action: str = "a0", attempt: int = 1) -> Children:
    return Children("p", "d", "r", action=action, attempt=attempt)


def names(made: Children, calls: list[tuple[int, str]], turn: int = 0) -> list[str]:
    found = []
    for x, text in calls:
        call = _local(one, (), {"x": x, "text": text})
        found.append(made.name(call, made._count(call), turn))
    return found


CALLS = st.lists(st.tuples(st.integers(0, 3), st.text(max_size=3)), max_size=8)


@given(CALLS)
def test_another_attempt_asks_for_the_same_names_and_no_two_calls_share_one(
    calls: list[tuple[int, str]],
) -> None:
    first = names(children(), calls)
    assert first == names(children(attempt=2), calls)
    assert len(set(first)) == len(calls)
    assert all(re.fullmatch(r"[a-z0-9]{24}", name) for name in first)


@given(CALLS)
def test_the_order_of_different_calls_does_not_matter(calls: list[tuple[int, str]]) -> None:
    assert sorted(names(children(), calls)) == sorted(names(children(), calls[::-1]))


def test_everything_that_makes_a_call_another_one_changes_the_name() -> None:
    call = _local(one, (1,), {})
    same = children().name(call, 0, 0)
    assert _local(one, (), {"x": 1, "text": ""}).key == call.key
    others = {
        children("c1").name(call, 0, 0),
        children().name(call, 1, 0),
        children().name(call, 0, 1),
        children().name(_local(two, (1,), {}), 0, 0),
        children().name(_local(one, (2,), {}), 0, 0),
    }
    assert len(others | {same}) == 6
