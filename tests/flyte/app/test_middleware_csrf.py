"""A cookie alone does not make an unsafe request of another page the visitor's (W16, T18)."""

from __future__ import annotations

import pytest
from tests.flyte.app.callers import call, make_app

COOKIE = (b"cookie", b"tower_session=s")
HOST = (b"host", b"app.test")

SAME = [
    [(b"origin", b"http://app.test")],
    [(b"origin", b"http://app.test:80")],
    [(b"origin", b"https://app.test")],  # a proxy in front ended TLS
    [(b"sec-fetch-site", b"same-origin")],
    [(b"sec-fetch-site", b"none")],
    [(b"sec-fetch-site", b"same-origin"), (b"origin", b"http://app.test")],
]
FOREIGN = [
    [],
    [(b"origin", b"null")],
    [(b"origin", b"http://evil.test")],
    [(b"origin", b"http://app.test.evil.test")],
    [(b"origin", b"http://app.test:8080")],
    [(b"origin", b"http://user@app.test")],
    [(b"origin", b"http://app.test/x")],
    [(b"origin", b"ftp://app.test")],
    [(b"origin", b"http://[")],
    [(b"origin", b"http://app.test"), (b"origin", b"http://evil.test")],
    [(b"sec-fetch-site", b"cross-site")],
    [(b"sec-fetch-site", b"same-site")],
    [(b"sec-fetch-site", b"cross-site"), (b"origin", b"http://app.test")],
]


@pytest.mark.parametrize("headers", SAME)
async def test_w16_a_page_of_the_same_origin_may(headers: list[tuple[bytes, bytes]]) -> None:
    sent = await call(make_app(), method="POST", headers=[HOST, COOKIE, *headers])
    assert sent[0]["status"] == 200


@pytest.mark.parametrize("headers", FOREIGN)
async def test_w16_any_other_page_may_not(headers: list[tuple[bytes, bytes]]) -> None:
    app = make_app()
    assert (await call(app, method="POST", headers=[HOST, COOKIE, *headers]))[0]["status"] == 403
    assert (await call(app, method="DELETE", headers=[HOST, COOKIE, *headers]))[0]["status"] == 403
    assert (await call(app, method="GET", headers=[HOST, COOKIE, *headers]))[0]["status"] == 200


async def test_w16_a_plain_page_is_foreign_to_a_tls_app() -> None:
    headers = [HOST, COOKIE, (b"origin", b"http://app.test")]
    assert (await call(make_app(), method="POST", headers=headers, scheme="https"))[0]["status"] == 403


async def test_w16_another_credential_needs_no_origin() -> None:
    headers = [HOST, COOKIE, (b"authorization", b"Bearer alice")]
    assert (await call(make_app(), method="POST", headers=headers))[0]["status"] == 200


async def test_w16_can_be_switched_off() -> None:
    sent = await call(make_app(csrf=False), method="POST", headers=[HOST, COOKIE])
    assert sent[0]["status"] == 200
