"""What the guide to policies shows is true: every policy loads, the cases come out, every action is named."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest

from tower.policy.actions import Action
from tower.policy.cases import Case
from tower.policy.engine import Engine
from tower.policy.rulebook import Rulebook, Written

PAGE = (Path(__file__).parents[3] / "docs" / "guide" / "policies.md").read_text()
POLICIES = re.findall(r"```cedar\n(.*?)```", PAGE, re.DOTALL)


@pytest.mark.parametrize("text", POLICIES)
def test_every_policy_of_the_guide_loads(text: str) -> None:
    Engine(Rulebook((Written("shown", text),)))


def test_the_cases_of_the_guide_come_out() -> None:
    freeze = Engine(Rulebook((Written("freeze", POLICIES[0], domain="production"),)))
    (cases,) = re.findall(r"```json\n(.*?)```", PAGE, re.DOTALL)
    for value in json.loads(cases):
        case = Case.read(value, place="the guide")
        assert case.decide(freeze).allowed is case.allowed


def test_the_guide_names_every_action() -> None:
    assert set(re.findall(r"`([a-z]+:[a-z-]+)`", PAGE)) == {action.value for action in Action}
