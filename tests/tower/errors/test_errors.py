"""Faults: one class for each code, and nothing private in what is public."""

from __future__ import annotations

import pickle

import pytest

from tower import errors
from tower.errors import Code, Fault

FAULTS = [each for each in vars(errors).values() if isinstance(each, type) and issubclass(each, Fault)]


def test_every_code_has_exactly_one_class_below_the_root() -> None:
    assert sorted(each.code for each in FAULTS if each.__base__ is Fault) == sorted(Code)


def test_the_tree_in_the_docstring_names_every_class() -> None:
    assert errors.__doc__ is not None
    for each in FAULTS:
        assert each.__name__ in errors.__doc__
        assert each.__doc__


@pytest.mark.parametrize("fault", FAULTS)
def test_the_cause_is_not_in_what_is_shown(fault: type[Fault]) -> None:
    error = fault("It failed.", hint="Do this.", cause="canary-7f3a")
    assert error.public == "It failed. Do this."
    for text in (str(error), repr(error), error.public):
        assert "canary" not in text


def test_unauthenticated_and_denied_are_strangers() -> None:
    assert not issubclass(errors.Unauthenticated, errors.Denied)
    assert not issubclass(errors.Denied, errors.Unauthenticated)


def test_a_message_without_a_hint_has_no_space_behind_it() -> None:
    assert Fault("It failed.").public == "It failed."
    assert pickle.loads(pickle.dumps(Fault("It failed."))).public == "It failed."
