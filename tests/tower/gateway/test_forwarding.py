"""What an app gets and what its caller gets back: bytes, headers, streams."""

from __future__ import annotations

import asyncio

import httpx
import structlog
from tests.tower.gateway.conftest import HOST, Street


def header(answer: httpx.Response, name: str) -> list[str]:
    return [value for key, value in answer.json()["headers"] if key == name]


async def test_the_app_gets_method_path_query_and_body_as_sent(street: Street) -> None:
    async with street.client(street.alice) as client:
        answer = await client.post("/a%20b/c;x=1/?q=%2F&q=2", content=b"\x00body\xff")
    what = answer.json()
    assert answer.status_code == 200
    assert answer.headers["x-app"] == "yes"
    assert (what["method"], what["raw_path"], what["query"]) == ("POST", "/a%20b/c;x=1/", "q=%2F&q=2")
    assert what["path"] == "/a b/c;x=1/"
    assert what["body"].encode("latin-1") == b"\x00body\xff"


async def test_the_app_gets_a_token_of_its_own_instead_of_the_key(street: Street) -> None:
    async with street.client(street.alice) as client:
        answer = await client.get("/", headers={"x-api-key": street.alice})
    (authorization,) = header(answer, "authorization")
    assert street.alice not in answer.text
    assert header(answer, "x-api-key") == []
    claims = street.house.claims(authorization.removeprefix("Bearer "))
    assert (claims.subject, claims.app) == ("alice", "flytesnacks/development/echo")


async def test_the_path_form_strips_its_prefix_and_says_so(street: Street) -> None:
    async with street.client(street.alice, host=f"127.0.0.1:{street.port}") as client:
        answer = await client.get("/apps/flytesnacks/development/echo/x/y?z=1")
    assert answer.json()["raw_path"] == "/x/y"
    assert header(answer, "x-forwarded-prefix") == ["/apps/flytesnacks/development/echo"]
    assert "sandbox" in answer.headers["content-security-policy"]


async def test_the_gateway_alone_writes_identity_and_forwarding_headers(street: Street) -> None:
    forged = {
        "X-Forwarded-For": "9.9.9.9",
        "X-Forwarded-User": "root",
        "x_forwarded_user": "root",
        "X-Auth-Request-Email": "root@example.com",
        "X-Amzn-Oidc-Identity": "root",
        "x-amzn-oidc-data": "root",
        "Forwarded": "for=9.9.9.9",
        "X-Real-IP": "9.9.9.9",
        "X-Forwarded-Prefix": "/evil",
        "X-Forwarded-Host": "evil",
        "X-Forwarded-Proto": "https",
        "X-Request-ID": "mine",
        "X-Flyte-Agent": "1",
        "Remote-User": "root",
        "Connection": "keep-alive, x-listed",
        "X-Listed": "1",
        "Proxy-Authorization": "Basic eA==",
        "TE": "trailers",
        "X-Custom": "kept",
    }
    async with street.client(street.alice) as client:
        answer = await client.get("/", headers=forged)
    headers = {}
    for name, value in answer.json()["headers"]:
        assert name not in headers, f"{name} came twice"
        headers[name] = value
    assert headers.pop("x-custom") == "kept"
    assert headers.pop("x-request-id") == answer.headers["x-request-id"] != "mine"
    assert headers.pop("x-forwarded-for") == "127.0.0.1"
    assert headers.pop("x-forwarded-host") == headers.pop("host") == street.host
    assert headers.pop("x-forwarded-proto") == "http"
    assert headers.pop("authorization").startswith("Bearer ")
    assert set(headers) <= {"accept", "accept-encoding", "user-agent"}


async def test_other_cookies_of_the_host_pass_and_the_platforms_do_not(street: Street) -> None:
    cookie = (await street.browser())["cookie"]
    async with street.client() as client:
        answer = await client.get("/", headers={"cookie": f"theme=dark; {cookie}; TOWER_HOP=x; a=b"})
    assert header(answer, "cookie") == ["theme=dark; a=b"]
    assert header(answer, "authorization")[0].startswith("Bearer ey")
    assert cookie.partition("=")[2] not in answer.text


async def test_an_app_sets_cookies_for_its_own_host_only(street: Street) -> None:
    async with street.client(street.alice) as client:
        answer = await client.get("/cookies")
    names = [cookie.partition("=")[0] for cookie in answer.headers.get_list("set-cookie")]
    assert names == ["theme", "own"]
    assert "x-secret-hop" not in answer.headers
    assert "alt-svc" not in answer.headers
    async with street.client(street.alice, host=f"127.0.0.1:{street.port}") as client:
        shared = await client.get("/apps/flytesnacks/development/echo/cookies")
    assert "set-cookie" not in shared.headers
    assert "clear-site-data" not in shared.headers


async def test_events_come_through_while_the_answer_goes_on(street: Street) -> None:
    async with street.client(street.alice) as client, client.stream("GET", "/events") as answer:
        chunks = answer.aiter_raw()
        assert await anext(chunks) == b"data: first\n\n"
        street.echo.release.set()
        assert await anext(chunks) == b"data: second\n\n"


async def test_who_hangs_up_cancels_the_apps_work(street: Street) -> None:
    with structlog.testing.capture_logs() as logs:
        async with street.client(street.alice) as client, client.stream("GET", "/hang") as answer:
            await anext(answer.aiter_raw())
        await asyncio.wait_for(street.echo.cancelled.wait(), 60)
        await asyncio.wait_for(street.house.processes.idle.wait(), 60)
    assert [line for line in logs if line["log_level"] == "error"] == []


async def test_a_body_streams_up_and_has_a_limit(street: Street) -> None:
    async def chunks(count: int):  # type: ignore[no-untyped-def]
        for _ in range(count):
            yield b"x" * 65536

    async with street.client(street.alice) as client:
        streamed = await client.post("/upload", content=chunks(10))
        known = await client.post("/upload", content=b"x" * 1000)
        declared = await client.post("/upload", content=b"x" * (1024 * 1024 + 1))
        endless = await client.post("/upload", content=chunks(17))
    assert streamed.json() == {"size": 655360, "length": None}
    assert known.json() == {"size": 1000, "length": "1000"}
    assert declared.status_code == endless.status_code == 413


async def test_the_app_may_answer_before_it_read_the_body(street: Street) -> None:
    async with street.client(street.alice) as client:
        answer = await client.post("/early", content=b"x" * 900_000)
        again = await client.get("/after")
    assert (answer.status_code, again.status_code) == (400, 200)


async def test_head_and_compressed_answers_pass_untouched(street: Street) -> None:
    async with street.client(street.alice) as client:
        answer = await client.head("/x")
    assert answer.status_code == 200
    assert int(answer.headers["content-length"]) > 100
    assert answer.content == b""


async def test_an_app_that_is_not_up_is_a_503_with_a_time(street: Street) -> None:
    await street.house.deploy("asleep")
    async with street.client(
        street.alice, host=f"asleep-flytesnacks-development.localhost:{street.port}"
    ) as client:
        answer = await client.get("/")
    assert answer.status_code == 503
    assert answer.headers["retry-after"]
    assert answer.json() == {"detail": "The app is starting. Try again in a moment."}


async def test_a_socket_that_nobody_listens_on_is_a_503(street: Street) -> None:
    await street.house.deploy("gone")
    street.house.processes.sockets["flytesnacks/development/gone"] = street.house.settings.home / "no.sock"
    async with street.client(
        street.alice, host=f"gone-flytesnacks-development.localhost:{street.port}"
    ) as client:
        answer = await client.get("/")
    assert answer.status_code == 503
    assert "no.sock" not in answer.text


async def test_a_process_that_just_ended_is_asked_for_again(street: Street) -> None:
    processes = street.house.processes
    good = processes.sockets["flytesnacks/development/echo"]
    places = iter([street.house.settings.home / "ended.sock", good])

    async def wake(*_: object) -> object:
        return next(places)

    processes.wake = wake  # type: ignore[assignment, method-assign]
    async with street.client(street.alice) as client:
        answer = await client.post("/x", content=b"kept")
    assert (answer.status_code, answer.json()["body"]) == (200, "kept")


async def test_raw_passthrough_forwards_the_original(street: Street) -> None:
    await street.house.deploy("raw", config={"flyte.passthrough": "raw"})
    street.house.processes.sockets["flytesnacks/development/raw"] = street.house.settings.home / "echo.sock"
    host = f"raw-flytesnacks-development.localhost:{street.port}"
    async with street.client(street.alice, host=host) as client:
        answer = await client.get("/")
    assert header(answer, "authorization") == [f"Bearer {street.alice}"]
    assert HOST not in answer.json()["headers"]
