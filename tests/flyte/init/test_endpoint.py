from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from flyte._config import Endpoint
from flyte.errors import InitializationError

SECURE = [
    "h.example",
    "dns:///h.example",
    "https://h.example",
    "https://h.example/",
    "H.Example",
    " h.example ",
]


@pytest.mark.parametrize("text", SECURE)
def test_every_form_reaches_the_same_place_over_tls(text: str) -> None:
    assert Endpoint.parse(text).url == "https://h.example"


@pytest.mark.parametrize("text", [*SECURE, "http://h.example"])
def test_insecure_means_plain_http(text: str) -> None:
    assert Endpoint.parse(text, insecure=True).url == "http://h.example"


@pytest.mark.parametrize(
    ("text", "url"),
    [
        ("localhost:8080", "https://localhost:8080"),
        ("http://localhost:8080", "http://localhost:8080"),
        ("http://127.0.0.1:8080/", "http://127.0.0.1:8080"),
        ("http://[::1]:8080", "http://[::1]:8080"),
        ("http://127.9.9.9", "http://127.9.9.9"),
        ("dns:///localhost:8080", "https://localhost:8080"),
        ("dns:localhost", None),
        ("dns://h.example:443", "https://h.example:443"),
    ],
)
def test_ports_and_loopback(text: str, url: str | None) -> None:
    if url is None:
        with pytest.raises(InitializationError):
            Endpoint.parse(text)
    else:
        assert Endpoint.parse(text).url == url


@pytest.mark.parametrize(
    "text", ["http://h.example", "http://localhost.evil.example", "http://notlocalhost:80"]
)
def test_plain_http_to_another_machine_names_the_remedy(text: str) -> None:
    with pytest.raises(InitializationError, match="insecure=True"):
        Endpoint.parse(text)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "https://",
        "ftp://h",
        "h/path",
        "h?q",
        "h#f",
        "a b",
        "h:99999",
        "h:x",
        "h:0",
        "u:p@h",
        "https://u@h",
        "h\n.evil",
        "h\\evil",
        "%68ost",
        "ho\u00df",
        "unix:///x",
    ],
)
def test_what_is_no_endpoint_is_refused(text: str) -> None:
    with pytest.raises(InitializationError):
        Endpoint.parse(text)


def test_a_password_in_an_endpoint_is_not_repeated() -> None:
    with pytest.raises(InitializationError) as caught:
        Endpoint.parse("https://user:hunter2@h.example")
    assert "hunter2" not in str(caught.value)


@given(st.text(max_size=40))
def test_any_text_is_an_endpoint_or_a_typed_error(text: str) -> None:
    try:
        endpoint = Endpoint.parse(text, insecure=True)
    except InitializationError:
        return
    assert Endpoint.parse(endpoint.url, insecure=True) == endpoint


@pytest.mark.parametrize(
    ("one", "other", "same"),
    [
        ("http://127.0.0.1:8080", "localhost:8080", True),
        ("http://127.0.0.1:8080", "http://[::1]:8080", True),
        ("https://h.example", "dns:///h.example:443", True),
        ("http://127.0.0.1:8080", "localhost:8081", False),
        ("https://h.example", "https://other.example", False),
        ("https://h.example:8443", "https://h.example", False),
    ],
)
def test_the_same_place_by_another_name(one: str, other: str, same: bool) -> None:
    assert Endpoint.parse(one).same_place(Endpoint.parse(other)) is same
