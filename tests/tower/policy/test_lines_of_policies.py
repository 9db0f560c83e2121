"""A policy that is refused names its line, and the line of what is wrong where that can be told."""

from __future__ import annotations

import pytest

from tower.errors import Invalid
from tower.policy.engine import Engine
from tower.policy.rulebook import Rulebook, Written

START = "forbid (principal, action, resource)\n"
FINE = "// oops in a comment counts for nothing\npermit (principal, action, resource)\nwhen { false };\n"
TWICE = "when { resource.oops }\n"


@pytest.mark.parametrize(
    ("text", "line", "problem"),
    [
        (f"{START}when {{ oops }};", 2, "oops"),
        (f"\n\n// oops\n{START}// oops\nwhen {{ principal oops 1 }};", 6, "oops"),
        (f"{FINE}\n{START}unless {{\n  resource.oops\n}};", 7, "oops"),
        (f"{FINE}{START}unless {{ principal in }};", 4, "unexpected"),
        (f"{FINE}{START}{TWICE}{TWICE};", 4, "oops"),
    ],
)
def test_the_line_of_what_is_wrong(text: str, line: int, problem: str) -> None:
    with pytest.raises(Invalid, match=rf"^The policy p, line {line}: .*{problem}"):
        Engine(Rulebook(policies=(Written("p", text),)))
