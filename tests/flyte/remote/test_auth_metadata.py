from __future__ import annotations

import pytest

from flyte import remote
from flyte.errors import MissingCallerError, UnauthenticatedError


def test_the_pairs_in_force_can_be_read() -> None:
    assert remote.get_auth_metadata() == ()
    with remote.auth_metadata(("Authorization", " Bearer a "), ("cookie", "s=1")):
        assert remote.get_auth_metadata() == (("authorization", "Bearer a"), ("cookie", "s=1"))
        with remote.auth_metadata(("x-api-key", "k")):
            assert remote.get_auth_metadata() == (("x-api-key", "k"),)
        assert len(remote.get_auth_metadata()) == 2
    assert remote.get_auth_metadata() == ()


def test_b3_no_pairs_is_a_value_error() -> None:
    with pytest.raises(ValueError, match="at least one"):
        remote.auth_metadata()


def test_b10_a_missing_header_is_no_caller_at_once() -> None:
    with pytest.raises(MissingCallerError):
        remote.auth_metadata(("authorization", None))  # type: ignore[arg-type]
    assert issubclass(MissingCallerError, UnauthenticatedError)


def test_the_public_names_are_there() -> None:
    for name in remote.__all__:
        assert getattr(remote, name) is not None
    with pytest.raises(AttributeError):
        _ = remote.Nothing  # type: ignore[attr-defined]
