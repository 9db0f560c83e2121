"""Laws of sealing: what was sealed opens as it was, with the same key and context, and in no other way."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tower.errors import Broken
from tower.identity.sealing import SealingKeys

QUIET = settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])


@pytest.fixture
def keys(tmp_path: Path) -> SealingKeys:
    return SealingKeys.load_or_create(tmp_path / "secrets.key")


@QUIET
@given(value=st.binary(max_size=2000), context=st.binary(max_size=200), other=st.binary(max_size=200))
def test_it_opens_in_its_context_alone(keys: SealingKeys, value: bytes, context: bytes, other: bytes) -> None:
    sealed = keys.seal(value, context=context)
    assert keys.open(sealed, context=context) == value
    again = keys.seal(value, context=context)
    assert again.content != sealed.content
    assert again.wrapped != sealed.wrapped
    if other != context:
        with pytest.raises(Broken):
            keys.open(sealed, context=other)


@QUIET
@given(value=st.binary(max_size=200), place=st.integers(0, 10_000), bit=st.integers(0, 7))
def test_a_changed_bit_is_noticed(keys: SealingKeys, value: bytes, place: int, bit: int) -> None:
    sealed = keys.seal(value, context=b"c")
    for part in ("wrapped", "content"):
        data = bytearray(getattr(sealed, part))
        data[place % len(data)] ^= 1 << bit
        with pytest.raises(Broken):
            keys.open(replace(sealed, **{part: bytes(data)}), context=b"c")


@pytest.mark.parametrize("text", ["", "x", "a b c\n", "a !!!\n", "a AAAA\n", "\xff\n"])
def test_a_file_that_is_no_key_is_said_to_be_damaged(tmp_path: Path, text: str) -> None:
    path = tmp_path / "secrets.key"
    path.write_text(text)
    path.chmod(0o600)
    with pytest.raises(Broken, match="damaged"):
        SealingKeys.load_or_create(path)


def test_two_that_start_at_once_have_one_key(tmp_path: Path) -> None:
    path = tmp_path / "secrets.key"
    first, second = SealingKeys.load_or_create(path), SealingKeys.load_or_create(path)
    assert second.open(first.seal(b"value", context=b"c"), context=b"c") == b"value"
