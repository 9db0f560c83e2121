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


@pytest.mark.parametrize("hidden", ["", "// \r", "// )\n"])
@pytest.mark.parametrize(
    ("opening", "closing"), [("(", ")"), ("[", "]"), ("{a: ", "}"), ("!(", ")"), ("ip(", ")")]
)
def test_brackets_in_brackets_end_no_server(opening: str, closing: str, hidden: str) -> None:
    """The parser takes its stack for each, and ends the process when that is used up."""
    many = (hidden + opening) * 1500 + "true" + closing * 1500
    with pytest.raises(Invalid, match=r"^The policy p, line 1: more than 200 brackets"):
        Engine(Rulebook(policies=(Written("p", f"permit (principal, action, resource) when {{ {many} }};"),)))


@pytest.mark.parametrize("number", [320, 800])
def test_a_long_has_takes_no_memory(number: int) -> None:
    """The parser takes it by the square of the length: gigabytes for 3,000 names."""
    chain = " // .\n.a" * number
    text = f"permit (principal, action, resource) when {{ context has a{chain} }};"
    with pytest.raises(Invalid, match=r"^The policy p, line 1: more than 300 dots"):
        Engine(Rulebook(policies=(Written("p", text),)))


def test_dots_in_texts_and_comments_are_not_counted() -> None:
    names = ", ".join(f'"a.b.c.{number}"' for number in range(200))
    text = (
        f"permit (principal, action, resource) when {{ [{names}].contains(resource.name) }}; // {'.' * 400}"
    )
    Engine(Rulebook(policies=(Written("p", text),)))


@pytest.mark.parametrize("number", [60, 300, 3900])
@pytest.mark.parametrize("condition", ["true && ", "false || ", "if true then "])
def test_a_policy_that_is_too_deep_says_so(condition: str, number: int) -> None:
    number = min(number, 30_000 // (2 * len(condition)))
    ending = " else false" * number if condition.startswith("if") else ""
    text = f"permit (principal, action, resource) when {{ {condition * number}true{ending} }};"
    with pytest.raises(Invalid, match=r"^The policy p, line 1: too many conditions|longer than"):
        Engine(Rulebook(policies=(Written("p", text, "q", "production", "task", "e.t"),)))


def test_a_policy_with_many_conditions_holds_or_is_refused() -> None:
    condition = "resource.project != resource.domain && "
    held = []
    for number in range(30, 70):
        text = f"permit (principal, action, resource) when {{ {condition * number}true }};"
        try:
            Engine(Rulebook(policies=(Written("p", text, "q", "production"),)))
            held.append(number)
        except Invalid:
            break
    assert held[-1] >= 40
