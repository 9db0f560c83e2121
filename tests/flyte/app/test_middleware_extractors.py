"""Faulty extractors and odd headers let nobody in, and never answer 500 (M25, T20, T21, T28, W7)."""

from __future__ import annotations

import asyncio
import functools
import logging
from typing import Any

import pytest
from starlette.requests import Request
from tests.flyte.app.callers import ALICE, call, get, make_app

from flyte.app.extras import FastAPIPassthroughAuthMiddleware as Middleware

SECRET = "canary-4711"


def raising(request: Request) -> Any:
    raise ValueError(SECRET)


async def raising_later(request: Request) -> Any:
    await asyncio.sleep(0)
    raise ValueError(SECRET)


class Raising:
    def __call__(self, request: Request) -> Any:
        raise ValueError(SECRET)


class Awaited:
    async def __call__(self, request: Request) -> Any:
        return ("x-token", request.headers["x-token"])


async def good_later(request: Request) -> tuple[str, str] | None:
    await asyncio.sleep(0)
    value = request.headers.get("x-token")
    return ("X-Token", value) if value else None


def constant(answer: Any) -> Any:
    return lambda request: answer


async def generator(request: Request) -> Any:
    yield ("authorization", "Bearer x")


FAULTY = {
    "raises": raising,
    "raises later": raising_later,
    "partial": functools.partial(raising),
    "instance": Raising(),
    "bound method": Raising().__call__,
    "async generator": generator,
    "a class": dict,
    "takes no argument": lambda: ("authorization", "x"),
    **{
        f"answers {answer!r}": constant(answer)
        for answer in [
            (),
            ("authorization",),
            ("authorization", "a", "b"),
            ["authorization", "Bearer x"],
            "xy",
            {"authorization": "Bearer x"},
            {"a"},
            True,
            1,
            b"xy",
            ("authorization", None),
            ("authorization", b"Bearer x"),
            (b"authorization", "Bearer x"),
            ("authorization", ""),
            ("authorization", "   "),
            ("authorization", "Bearer"),
            ("authorization", "bearer  "),
            ("", "Bearer x"),
            ("two words", "x"),
            ("x-token", "a\r\nhost: evil"),
            ("x-token", "a\nb"),
            ("x-token", "a\x00b"),
            ("x-token", "ünïcode"),
            ("x-token", "a" * 20_000),
            ("host", "evil.test"),
            ("Content-Type", "text/plain"),
            ("x-request-id", "mine"),
            ("connect-protocol-version", "9"),
            ("x-flyte-agent", "1"),
            ("transfer-encoding", "chunked"),
            ("x-forwarded-user", "root"),
        ]
    },
}


@pytest.mark.parametrize("kind", FAULTY)
async def test_m25_a_faulty_extractor_lets_nobody_in(kind: str, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.DEBUG, "flyte"):
        answer = await get(make_app(header_extractors=[FAULTY[kind]]), "/me", ALICE)
    assert answer.status_code == 401
    assert answer.json() == {"detail": "Authentication credentials required"}
    assert "skipped" in caplog.text
    assert SECRET not in caplog.text


@pytest.mark.parametrize("kind", FAULTY)
async def test_m25_the_next_extractor_is_still_asked(kind: str) -> None:
    app = make_app(header_extractors=[FAULTY[kind], Middleware.extract_authorization_header])
    assert (await get(app, "/me", ALICE)).json()["seen"] == ALICE


@pytest.mark.parametrize(
    "extractor", [good_later, functools.partial(good_later), Awaited()], ids=["function", "partial", "object"]
)
async def test_m25_an_async_extractor_is_awaited(extractor: Any) -> None:
    app = make_app(header_extractors=[extractor])
    assert (await get(app, "/me", {"x-token": "t"})).json()["seen"] == {"x-token": "t"}
    assert (await get(app, "/me")).status_code == 401


async def test_m25_an_extractor_that_is_cancelled_cancels_the_request() -> None:
    entered = asyncio.Event()

    async def slow(request: Request) -> tuple[str, str]:
        entered.set()
        await asyncio.Event().wait()
        return ("authorization", "never")

    task = asyncio.create_task(get(make_app(header_extractors=[slow]), "/me"))
    await entered.wait()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task


async def test_m25_an_extractor_sees_no_body_and_takes_none_from_the_handler() -> None:
    async def reads_body(request: Request) -> tuple[str, str]:
        return ("authorization", (await request.body()).decode())

    app = make_app(header_extractors=[reads_body])
    assert (await get(app, "/me")).status_code == 401


async def test_w07_values_are_forwarded_as_they_came_and_trimmed() -> None:
    raw = [(b"authorization", b"  Basic dTpw \t")]
    sent = await call(make_app(), headers=raw)
    assert sent[1]["body"] == b'{"seen":{"authorization":"Basic dTpw"}}'


@pytest.mark.parametrize("value", [b"", b" ", b"\t", b"Bearer", b"Bearer ", b"Bearer \xe9", b"Bearer a\x01"])
async def test_t28_a_header_without_a_credential_is_none(value: bytes) -> None:
    assert (await call(make_app(), headers=[(b"authorization", value)]))[0]["status"] == 401


async def test_t21_two_authorization_headers_are_refused() -> None:
    two = [(b"authorization", b"Bearer alice"), (b"authorization", b"Bearer bob")]
    for app in (make_app(), make_app(required=False), make_app(header_extractors=[good_later])):
        sent = await call(app, headers=two)
        assert sent[0]["status"] == 400
        assert b"alice" not in sent[1]["body"]
    same = [(b"authorization", b"Bearer alice")] * 2
    assert (await call(make_app(), headers=same))[0]["status"] == 400


async def test_t21_two_custom_headers_are_refused() -> None:
    app = make_app(header_extractors=[Middleware.extract_custom_header("x-api-key")])
    assert (await call(app, headers=[(b"x-api-key", b"a"), (b"x-api-key", b"b")]))[0]["status"] == 400


async def test_t20_two_extractors_that_name_two_callers_are_refused() -> None:
    app = make_app(
        header_extractors=[Middleware.extract_authorization_header, constant(("Authorization", "Bearer bob"))]
    )
    assert (await get(app, "/me", ALICE)).status_code == 400
    assert (await get(app, "/me", {"authorization": "Bearer bob"})).status_code == 200


async def test_split_cookie_headers_are_one() -> None:
    raw = [(b"cookie", b"theme=dark"), (b"cookie", b"tower_session=s")]
    assert (await call(make_app(), headers=raw))[1]["body"] == b'{"seen":{"cookie":"tower_session=s"}}'
