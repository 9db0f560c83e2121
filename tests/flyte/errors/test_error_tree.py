from __future__ import annotations

import inspect
import pickle
import re

import pytest

from flyte import errors
from flyte.transport._codes import ERRORS, STATUSES, error_for

CLASSES = [
    each
    for each in vars(errors).values()
    if inspect.isclass(each) and issubclass(each, errors.FlyteError) and each.__module__ == errors.__name__
]
CONNECT_CODES = [
    "canceled",
    "unknown",
    "invalid_argument",
    "deadline_exceeded",
    "not_found",
    "already_exists",
    "permission_denied",
    "resource_exhausted",
    "failed_precondition",
    "aborted",
    "out_of_range",
    "unimplemented",
    "internal",
    "unavailable",
    "data_loss",
    "unauthenticated",
]


def test_the_tree_in_the_docstring_is_the_tree_in_the_code() -> None:
    parents: dict[str, str] = {}
    stack: list[str] = []
    for line in (errors.__doc__ or "").splitlines():
        found = re.match(r"    ([│├└─ ]*)(\w+(?:Error))\b", line)
        if found:
            depth = len(found[1]) // 4
            parents[found[2]] = stack[depth - 1] if depth else "Exception"
            stack[depth:] = [found[2]]
    assert parents == {each.__name__: each.__bases__[0].__name__ for each in CLASSES}


@pytest.mark.parametrize("kind", CLASSES)
def test_every_error_has_message_code_hint_and_survives_pickling(kind: type[errors.FlyteError]) -> None:
    error = kind("what happened", hint="what to do")
    assert error.code
    assert str(error) == "what happened\nHint: what to do"
    again = pickle.loads(pickle.dumps(error))
    assert type(again) is kind
    assert (again.message, again.code, again.hint) == (error.message, error.code, error.hint)


def test_a_run_error_keeps_its_run_through_pickling() -> None:
    error = pickle.loads(pickle.dumps(errors.RunFailedError("it failed", run="r1")))
    assert error.run == "r1"


def test_the_table_of_codes_is_complete() -> None:
    assert sorted(ERRORS) == sorted(CONNECT_CODES)
    assert set(STATUSES.values()) <= set(ERRORS)


@pytest.mark.parametrize("code", CONNECT_CODES)
def test_every_code_becomes_its_error(code: str) -> None:
    error = error_for(code, "said so")
    assert type(error) is ERRORS[code]
    assert error.code == code
    assert error.message == "said so"


@pytest.mark.parametrize("status", [400, 401, 403, 404, 429, 500, 502, 503, 504])
def test_a_code_that_nobody_knows_counts_as_its_status(status: int) -> None:
    assert error_for("NOT_A_CODE", "", status=status).code == STATUSES.get(status, "unknown")


def test_an_error_without_message_says_something() -> None:
    assert error_for("unauthenticated", "").hint
    assert error_for("unavailable", "").message
