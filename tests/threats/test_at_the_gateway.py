"""The threats of the public door, one test each: T11, T15, T18 to T21, T26, T27, T43, T45, T49."""

from __future__ import annotations

import random
from collections import Counter

import httpx
import pytest
from tests.tower.gateway.conftest import Street, street
from tests.tower.gateway.test_tricks import lines, raw
from tests.tower.gateway.test_websockets import dial
from websockets.exceptions import InvalidStatus

from tower.identity.guesses import SOURCE

__all__ = ["street"]


async def test_t11_proxy_headers_name_nobody(street: Street) -> None:
    names = (
        "X-Forwarded-User",
        "x-auth-request-user",
        "X-Amzn-Oidc-Identity",
        "Remote-User",
        "X_Forwarded_User",
    )
    async with street.client() as client:
        for name in names:
            assert (await client.get("/", headers={name: "alice"})).status_code == 401
    assert street.echo.seen == []


async def test_t15_an_app_cannot_harvest_credentials(street: Street) -> None:
    await street.house.deploy("other")
    street.house.processes.sockets["flytesnacks/development/other"] = street.house.settings.home / "echo.sock"
    async with street.client(street.alice) as client:
        seen = (await client.get("/", headers={"x-api-key": street.alice})).json()
    token = dict(seen["headers"])["authorization"]
    assert street.alice not in str(seen)
    other = f"other-flytesnacks-development.localhost:{street.port}"
    async with street.client(host=other) as client:
        assert (await client.get("/", headers={"authorization": token})).status_code == 401


async def test_t18_a_foreign_page_posts_nothing(street: Street) -> None:
    async with street.client(**await street.browser()) as client:
        form = {"content-type": "application/x-www-form-urlencoded", "origin": "https://evil.example"}
        assert (await client.post("/", content=b"a=1", headers=form)).status_code == 403
        sibling = {"origin": f"http://other-flytesnacks-development.localhost:{street.port}"}
        assert (await client.post("/", headers=sibling)).status_code == 403
    assert street.echo.seen == []


async def test_t19_a_sibling_plants_no_session(street: Street) -> None:
    good = (await street.browser())["cookie"]
    async with street.client(street.alice) as client:
        cookies = (await client.get("/cookies")).headers.get_list("set-cookie")
    assert not [cookie for cookie in cookies if "tower_" in cookie or "localhost; " in cookie]
    async with street.client(cookie=f"{good}; tower_session={'A' * 43}") as client:
        assert (await client.get("/")).status_code == 401


async def test_t19_over_tls_a_sibling_signs_nobody_in_as_somebody_else(street: Street) -> None:
    """Login CSRF: the attacker's own code and state, planted for all siblings.

    Over TLS the cookies are `__Host-` ones. Over plain HTTP there are no such cookies, so that this attack
    works on loopback; SECURITY.md says so.
    """
    console = f"127.0.0.1:{street.port}"
    attacker = ("cookie", f"tower_session={await street.house.session('alice', console)}")
    principal = await street.house.principal(attacker, host=console)
    transport = httpx.ASGITransport(street.house.gateway(), client=("192.0.2.7", 1))

    async def finish(cookies: str) -> httpx.Response:
        code = await street.house.logins.create_handover(principal, street.host)
        back = {"code": code, "state": "the-attackers-state", "next": "/"}
        headers = {"host": street.host, "cookie": cookies}
        async with httpx.AsyncClient(transport=transport, base_url=f"https://{street.host}") as client:
            return await client.get("/.tower/session", params=back, headers=headers)

    for planted in ("tower_hop=the-attackers-state", "tower_hop=x; tower_hop=the-attackers-state"):
        answer = await finish(planted)
        assert answer.status_code == 403, answer.text
        assert "set-cookie" not in answer.headers
    own = await finish("__Host-tower_hop=the-attackers-state")
    assert own.status_code == 303
    [session, hop] = own.headers.get_list("set-cookie")
    for cookie in (session, hop):
        assert cookie.startswith("__Host-tower_")
        assert "Secure" in cookie
        assert "Path=/;" in cookie
        assert "domain" not in cookie.lower()
    # and a session that was planted under the plain name is not looked at
    value = session.partition("=")[2].partition(";")[0]
    async with httpx.AsyncClient(transport=transport, base_url=f"https://{street.host}") as client:
        headers = {"host": street.host, "cookie": f"tower_session={value}"}
        assert (await client.get("/", headers=headers)).status_code == 401


async def test_t20_two_people_in_one_request_are_refused(street: Street) -> None:
    bob = await street.house.person("bob")
    async with street.client(street.alice, **await street.browser("bob")) as client:
        assert (await client.get("/")).status_code == 401
    async with street.client(street.alice) as client:
        assert (await client.get("/", headers={"x-flyte-token": bob})).status_code == 401
    assert len(await street.house.audit(event="auth.refuse")) == 2


async def test_t21_no_request_is_read_in_two_ways(street: Street) -> None:
    bob = await street.house.person("bob")
    for extra in (
        [f"authorization: Bearer {bob}"],
        ["content-length: 4", "transfer-encoding: chunked"],
        ["x-a: b\r\n authorization: Bearer x"],
    ):
        sent = lines(street, f"authorization: Bearer {street.alice}", *extra, first="POST / HTTP/1.1")
        assert await raw(street, sent, b"0\r\n\r\n") in {0, 400}
    assert street.echo.seen == []


async def test_t26_a_websocket_needs_a_credential(street: Street) -> None:
    with pytest.raises(InvalidStatus):
        async with dial(street):
            pass
    assert street.echo.sockets == []


async def test_t27_a_thousand_spellings_of_a_public_path_open_no_other(street: Street) -> None:
    await street.house.deploy("part", config={"flyte.public_paths": ["/health"]})
    street.house.processes.sockets["flytesnacks/development/part"] = street.house.settings.home / "echo.sock"
    host = f"part-flytesnacks-development.localhost:{street.port}"
    chance = random.Random(27)
    pieces = [
        "health",
        "secret",
        "/",
        "//",
        "/./",
        "/../",
        "%2f",
        "%2e",
        "%2e%2e",
        "\\",
        "%5c",
        ";x",
        "%00",
        "%",
    ]
    pieces += ["%68", "?", "#", "%23", "%3f", "%252f", "..;", ".", "\t", "é"]
    statuses: Counter[int] = Counter()
    for _ in range(1000):
        target = "/" + "".join(chance.choice(pieces) for _ in range(chance.randint(1, 5)))
        statuses[await raw(street, lines(street, first=f"GET {target} HTTP/1.1", host=host))] += 1
    assert set(statuses) <= {0, 200, 400, 401}
    assert {what["path"] for what in street.echo.seen} <= {"/health"}


async def test_t43_hidden_and_absent_apps_are_the_same(street: Street) -> None:
    mallory = await street.house.person("mallory", None)
    answers = []
    for label in ("echo", "absent"):
        host = f"{label}-flytesnacks-development.localhost:{street.port}"
        async with street.client(mallory, host=host) as client:
            answers.append(await client.get("/x"))
    assert answers[0].status_code == answers[1].status_code == 404
    assert answers[0].content == answers[1].content
    assert sorted(answers[0].headers) == sorted(answers[1].headers)


async def test_t45_a_flood_of_bad_keys_wakes_nothing_and_spares_the_others(street: Street) -> None:
    async with street.client(street.alice) as good, street.client() as bad:
        assert (await good.get("/")).status_code == 200
        woken = street.house.processes.woken.total()

        async def guess(number: int) -> int:
            key = f"twr_{number:012d}_" + "A" * 43
            return (await bad.get("/", headers={"authorization": f"Bearer {key}"})).status_code

        began = street.house.rooms.clock.now()
        statuses = Counter([await guess(number) for number in range(SOURCE.burst + 100)])
        assert set(statuses) <= {401, 429}
        # a burst, and some more for each second that the flood took on this machine
        took = street.house.rooms.clock.now() - began
        assert statuses[401] <= SOURCE.burst + 1 + SOURCE.per_second * took
        assert street.house.processes.woken.total() == woken
        assert (await good.get("/")).status_code == 200


async def test_t49_a_foreign_origin_gets_no_leave(street: Street) -> None:
    asked = {"origin": "https://evil.example", "access-control-request-method": "GET"}
    async with street.client() as client:
        answer: httpx.Response = await client.options("/", headers=asked)
    assert not [name for name in answer.headers if name.startswith("access-control-")]
    assert street.echo.seen == []
