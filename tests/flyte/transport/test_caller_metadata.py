from __future__ import annotations

import string

import pytest
from hypothesis import given
from hypothesis import strategies as st

from flyte.errors import MissingCallerError, UnauthenticatedError
from flyte.transport.credentials import check_pairs


def test_b2_b11_names_are_lowered_and_order_is_kept() -> None:
    assert check_pairs((("X-Flyte-Token", "t"), ("Authorization", "Bearer a"))) == (
        ("x-flyte-token", "t"),
        ("authorization", "Bearer a"),
    )


@pytest.mark.parametrize(
    "name",
    [
        "host",
        "content-type",
        "content-length",
        "connect-protocol-version",
        "connect-timeout-ms",
        "x-request-id",
        "te",
        "transfer-encoding",
        "x-flyte-agent",
        "x-forwarded-for",
        "X-Forwarded-Host",
        "accept-encoding",
        "connection",
        "upgrade",
        "user-agent",
        "",
        "x-a b",
        "x-a:b",
        "x-a\r\nb",
        "x-\u00e4",
        ":path",
        "x-tower",
        "proxy-authorization",
    ],
)
def test_w7_names_that_belong_to_the_protocol_are_refused(name: str) -> None:
    with pytest.raises(ValueError, match=r"header"):
        check_pairs(((name, "v"),))


@pytest.mark.parametrize(
    "value", ["a\r\nb", "a\nb", "a\x00b", "a\x7f", "schl\u00fcssel\u20ac", b"bytes", 5, ["x"]]
)
def test_b12_values_that_no_header_may_have_are_refused(value: object) -> None:
    with pytest.raises(ValueError, match="authorization") as caught:
        check_pairs((("authorization", value),))  # type: ignore[arg-type]
    assert "a\r" not in str(caught.value)


@pytest.mark.parametrize("value", [None, "", "   ", "\t"])
def test_b10_no_value_means_no_caller(value: str | None) -> None:
    with pytest.raises(MissingCallerError) as caught:
        check_pairs((("authorization", value),))  # type: ignore[arg-type]
    assert isinstance(caught.value, UnauthenticatedError)


@pytest.mark.parametrize(
    "pairs", [(), ("authorization",), (("a", "b", "c"),), (["authorization", "v"],), ((),)]
)
def test_b3_what_is_not_pairs_is_a_value_error(pairs: object) -> None:
    with pytest.raises(ValueError):  # noqa: PT011
        check_pairs(pairs)  # type: ignore[arg-type]


def test_b11_a_name_given_twice_is_refused() -> None:
    with pytest.raises(ValueError, match="twice"):
        check_pairs((("authorization", "a"), ("Authorization", "b")))


@given(st.dictionaries(st.text(string.ascii_lowercase, min_size=3).map("x-".__add__), st.text(min_size=1)))
def test_what_is_accepted_can_be_sent_and_read_back(pairs: dict[str, str]) -> None:
    try:
        checked = check_pairs(tuple(pairs.items()))
    except (ValueError, MissingCallerError):
        return
    for name, value in checked:
        assert value.encode("latin-1").decode("latin-1") == pairs[name].strip(" \t")
        assert not set(value) & set("\r\n\0")
