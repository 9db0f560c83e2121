"""Who has most connections, and which of them came first, is what counting all of them would say (T45)."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from tower.main.comers import Comers

moves = st.lists(st.tuples(st.booleans(), st.integers(0, 9), st.sampled_from("abcd")), max_size=60)


@given(moves)
def test_it_knows_what_counting_would_say(taken: list[tuple[bool, int, str]]) -> None:
    comers: Comers[int] = Comers()
    here: dict[int, str] = {}
    for comes, each, place in taken:
        if not comes:
            comers.discard(each)
            here.pop(each, None)
        elif each not in here:
            comers.add(each, place)
            here[each] = place
        numbers = {one: list(here.values()).count(one) for one in "abcd"}
        assert len(comers) == len(here)
        assert {one: comers.number(one) for one in "abcd"} == numbers
        found, number = comers.most()
        assert number == max(numbers.values())
        assert numbers.get(found, 0) == number
        if number:
            assert comers.oldest(found) == next(one for one, its in here.items() if its == found)
