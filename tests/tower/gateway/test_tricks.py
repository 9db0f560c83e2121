"""Requests made to be read in two ways, as raw bytes: each is refused before any app sees it."""

from __future__ import annotations

import asyncio

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.tower.gateway.conftest import HOST, Street

from tower.errors import Fault, Invalid
from tower.gateway import paths

AMBIGUOUS = [
    "//health",
    "/health//",
    "/./health",
    "/x/../health",
    "/x/..",
    "/%2e%2e/health",
    "/x/%2E./health",
    "/..;/health",
    "/..;a=b/x",
    "/.;x/health",
    "/x%2fhealth",
    "/x%2Fhealth",
    "/x%5chealth",
    "/x\\health",
    "/health%00",
    "/health%0d%0ax: y",
    "/health%7f",
    "/%252fhealth",
    "/%252e%252e/x",
    "/health%",
    "/health%2",
    "/health%zz",
    "/%ff%fe",
    "/health\x7f",
    "/<script>",
    '/"',
    "/{x}",
    "/a|b",
    "/^",
    "/`",
    "*",
    "health",
]


@pytest.mark.parametrize("raw", AMBIGUOUS)
def test_an_ambiguous_path_is_refused(raw: str) -> None:
    with pytest.raises(Invalid):
        paths.read(raw.encode("latin-1"), b"")


@pytest.mark.parametrize(
    ("raw", "path"),
    [
        ("/", "/"),
        ("/health/", "/health/"),
        ("/%68ealth", "/health"),
        ("/a%20b", "/a b"),
        ("/%C3%A9", "/é"),
        ("/a;b=c/d", "/a;b=c/d"),
        ("/100%25", "/100%"),
        ("/...", "/..."),
        ("/.well-known/x", "/.well-known/x"),
        ("/a:b@c", "/a:b@c"),
    ],
)
def test_a_plain_path_is_read_as_the_apps_router_reads_it(raw: str, path: str) -> None:
    target = paths.read(raw.encode(), b"q=1")
    assert (target.path, target.line) == (path, f"{raw}?q=1")


@given(st.binary(max_size=60), st.binary(max_size=20))
def test_whatever_is_let_through_has_one_reading(raw: bytes, query: bytes) -> None:
    try:
        target = paths.read(b"/" + raw, query)
    except Fault:
        return
    segments = target.path.split("/")[1:]
    assert "" not in segments[:-1]
    assert not {".", ".."} & set(segments)
    assert "\\" not in target.path
    assert target.path.count("/") == (b"/" + raw).count(b"/")
    assert target.line.isascii()
    assert all(character.isprintable() or ord(character) > 127 for character in target.path)


async def raw(street: Street, lines: list[str], body: bytes = b"") -> int:
    """Send bytes as they are; the status of the first answer (0: the connection was closed)."""
    reader, writer = await asyncio.open_connection("127.0.0.1", street.port)
    try:
        writer.write("\r\n".join([*lines, "connection: close", "", ""]).encode("latin-1") + body)
        await writer.drain()
        line = await asyncio.wait_for(reader.readline(), 60)
        return int(line.split()[1]) if line else 0
    finally:
        writer.close()


def lines(
    street: Street, *extra: str, first: str = "GET /health HTTP/1.1", host: str | None = None
) -> list[str]:
    return [first, f"host: {host or street.host}", *extra]


async def test_the_plain_request_passes(street: Street) -> None:
    assert await raw(street, lines(street, f"authorization: Bearer {street.alice}")) == 200
    assert len(street.echo.seen) == 1


SMUGGLED = [
    ["content-length: 5", "transfer-encoding: chunked"],
    ["transfer-encoding: chunked", "content-length: 5"],
    ["transfer-encoding: chunked", "transfer-encoding: identity"],
    ["transfer-encoding: identity"],
    ["transfer-encoding: xchunked"],
    ["transfer-encoding: chunked, chunked"],
    ["content-length: 5", "content-length: 6"],
    ["content-length: 5, 5"],
    ["content-length: +5"],
    ["content-length: -1"],
    ["transfer-encoding : chunked"],
    ["transfer_encoding: chunked", "content-length: x"],
    ["x: a\r\n folded"],
    ["x: a\x00b"],
    ["x\x00: a"],
    ["host: other.localhost"],
    ["authorization: Bearer {key}"],
    ["Authorization: Bearer {key}"],
    ["authorization: Bearer other"],
    ["x-api-key: {key}", "x-api-key: {key}"],
    ["cookie: a=b", "cookie: c=d"],
]


async def test_smuggling_and_duplicates_are_refused(street: Street) -> None:
    for extra in SMUGGLED:
        sent = [line.replace("{key}", street.alice) for line in extra]
        request = lines(street, f"authorization: Bearer {street.alice}", *sent, first="POST /health HTTP/1.1")
        assert await raw(street, request, b"0\r\n\r\n") in {0, 400}, extra
        assert street.echo.seen == [], extra


async def test_joined_and_folded_credentials_are_refused(street: Street) -> None:
    for value in (
        f"Bearer {street.alice}, Bearer x",
        f"Bearer {street.alice},",
        "Bearer\r\n " + street.alice,
    ):
        assert await raw(street, lines(street, f"authorization: {value}")) in {0, 400}
    assert street.echo.seen == []


async def test_no_ambiguous_path_reaches_an_app(street: Street) -> None:
    for target in AMBIGUOUS:
        first = f"GET {target} HTTP/1.1"
        status = await raw(street, lines(street, f"authorization: Bearer {street.alice}", first=first))
        assert status in {0, 400}, target
        assert street.echo.seen == [], target


HOSTS = [
    "",
    HOST.upper() + "/x",
    "x@" + HOST,
    HOST + "#x",
    HOST + "?x",
    HOST + ".",
    HOST + ":99999999",
    HOST + ":x",
    HOST + " x",
    "." + HOST,
    "evil.com#." + HOST,
    "a.b." + HOST,
    HOST + ".evil.com",
    "ECHO-flytesnacks-development.localhost.evil",
    "echo_flytesnacks_development.localhost",
    "[::1",
]


async def test_only_the_exact_host_reaches_the_app(street: Street) -> None:
    for host in HOSTS:
        request = lines(street, f"authorization: Bearer {street.alice}", host=host or " ")
        assert await raw(street, request) in {0, 400, 404}, host
        assert street.echo.seen == [], host


async def test_a_host_is_the_same_in_any_case(street: Street) -> None:
    request = lines(street, f"authorization: Bearer {street.alice}", host=street.host.upper())
    assert await raw(street, request) == 200


async def test_a_request_without_a_host_is_refused(street: Street) -> None:
    assert await raw(street, ["GET / HTTP/1.1", f"authorization: Bearer {street.alice}"]) in {0, 400}
    assert await raw(street, ["GET / HTTP/1.0", f"authorization: Bearer {street.alice}"]) in {0, 400}


async def test_too_many_headers_are_refused(street: Street) -> None:
    many = [f"x-{number}: 1" for number in range(200)]
    assert await raw(street, lines(street, *many)) == 429


@given(st.text(alphabet="/.%25eEfF;\\hHealt#?~ ", max_size=24))
def test_no_spelling_but_its_own_reads_as_a_public_path(text: str) -> None:
    """A path that is taken for /health is one that every router takes for /health."""
    try:
        target = paths.read(("/" + text).encode(), b"")
    except Fault:
        return
    if target.path == "/health":
        assert "/" not in text
        assert ";" not in text
