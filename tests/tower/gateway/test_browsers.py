"""People with a browser: the login hop, the cookie of one host, and requests that other sites make."""

from __future__ import annotations

from urllib.parse import parse_qs, urlsplit

import pytest
from tests.tower.gateway.conftest import HOST, Street

HTML = {"accept": "text/html,application/xhtml+xml"}
OWN_PAGE = {"sec-fetch-site": "same-origin", "sec-fetch-mode": "cors", "sec-fetch-dest": "empty"}


async def test_a_browser_without_a_session_is_sent_to_sign_in_and_comes_back(street: Street) -> None:
    async with street.client(**HTML) as client:
        away = await client.get("/page?x=1")
        assert away.status_code == 303
        assert street.echo.seen == []
        place = urlsplit(away.headers["location"])
        fields = {name: values[0] for name, values in parse_qs(place.query).items()}
        assert (place.path, fields["host"], fields["next"]) == ("/apps-login", street.host, "/page?x=1")

        console = f"127.0.0.1:{street.port}"
        cookie = ("cookie", f"tower_session={await street.house.session('alice', console)}")
        principal = await street.house.principal(cookie, host=console)
        code = await street.house.logins.create_handover(principal, street.host)
        hop = away.headers["set-cookie"].partition(";")[0]
        back = {"code": code, "state": fields["state"], "next": fields["next"]}
        client.cookies.clear()
        home = await client.get("/.tower/session", params=back, headers={"cookie": hop})
        assert (home.status_code, home.headers["location"]) == (303, "/page?x=1")
        session = home.headers.get_list("set-cookie")[0]
        assert "HttpOnly" in session
        assert "SameSite=Lax" in session
        assert "Domain" not in session

        client.cookies.clear()
        page = await client.get("/page?x=1", headers={"cookie": session.partition(";")[0]})
    assert page.status_code == 200
    token = dict(page.json()["headers"])["authorization"].removeprefix("Bearer ")
    assert street.house.claims(token).subject == "alice"


async def test_a_code_signs_in_only_the_browser_that_began(street: Street) -> None:
    console = f"127.0.0.1:{street.port}"
    cookie = ("cookie", f"tower_session={await street.house.session('alice', console)}")
    principal = await street.house.principal(cookie, host=console)
    code = await street.house.logins.create_handover(principal, street.host)
    async with street.client() as client:
        for hop in ({}, {"cookie": "tower_hop=other"}, {"cookie": "tower_hop="}):
            answer = await client.get("/.tower/session", params={"code": code, "state": "mine"}, headers=hop)
            assert answer.status_code == 403
            assert "set-cookie" not in answer.headers
        empty = await client.get("/.tower/session", params={"code": code, "state": ""})
        assert empty.status_code == 403
        head = await client.head("/.tower/session", params={"code": code, "state": "mine"})
        assert head.status_code == 404
        good = await client.get(
            "/.tower/session", params={"code": code, "state": "mine"}, headers={"cookie": "tower_hop=mine"}
        )
        assert (good.status_code, good.headers["location"]) == (303, "/")
        again = await client.get(
            "/.tower/session", params={"code": code, "state": "mine"}, headers={"cookie": "tower_hop=mine"}
        )
        assert again.status_code == 401
    assert street.echo.seen == []


@pytest.mark.parametrize(
    "following",
    [
        "https://evil.example/",
        "//evil.example",
        "/\\evil.example",
        "/%5cevil",
        "javascript:x",
        "",
        "/x\r\ny",
        "/.tower/x",
    ],
)
async def test_the_way_back_leads_to_this_host_only(street: Street, following: str) -> None:
    console = f"127.0.0.1:{street.port}"
    cookie = ("cookie", f"tower_session={await street.house.session('alice', console)}")
    principal = await street.house.principal(cookie, host=console)
    code = await street.house.logins.create_handover(principal, street.host)
    async with street.client(cookie="tower_hop=s") as client:
        answer = await client.get("/.tower/session", params={"code": code, "state": "s", "next": following})
    assert (answer.status_code, answer.headers["location"]) == (303, "/")


async def test_a_session_of_one_host_is_none_at_another(street: Street) -> None:
    await street.house.deploy("other")
    street.house.processes.sockets["flytesnacks/development/other"] = street.house.settings.home / "echo.sock"
    cookie = await street.browser()
    other = f"other-flytesnacks-development.localhost:{street.port}"
    async with street.client(host=other, **cookie) as client:
        assert (await client.get("/")).status_code == 401
    async with street.client(host=f"127.0.0.1:{street.port}", **cookie) as client:
        assert (await client.get("/apps/flytesnacks/development/echo/")).status_code == 401
    assert street.echo.seen == []


async def test_an_ended_session_is_taken_away_and_does_not_loop(street: Street) -> None:
    async with street.client(**HTML, cookie="tower_session=" + "A" * 43) as client:
        answer = await client.get("/page?x=1")
        refused = await client.get("/page", headers={"x-api-key": "twr_" + "a" * 12 + "_" + "A" * 43})
        posted = await client.post("/page")
    assert answer.status_code == 303
    place = urlsplit(answer.headers["location"])
    assert place.path == "/apps-login"
    assert parse_qs(place.query)["next"] == ["/page?x=1"]
    taken = answer.headers.get_list("set-cookie")[1]
    assert taken.startswith("tower_session=; ")
    assert "Max-Age=0" in taken
    assert (refused.status_code, posted.status_code) == (401, 401)
    assert street.echo.seen == []


@pytest.mark.parametrize(
    "page",
    [
        {},
        {"origin": "https://evil.example"},
        {"origin": "null"},
        {"origin": f"http://{HOST}"},
        {"origin": f"http://{HOST}.evil.example"},
        {"sec-fetch-site": "cross-site"},
        {"sec-fetch-site": "same-site"},
        {"sec-fetch-site": "none"},
        {"sec-fetch-site": "same-origin", "origin": "https://evil.example"},
    ],
    ids=str,
)
async def test_a_foreign_page_changes_nothing_with_the_persons_cookie(
    street: Street, page: dict[str, str]
) -> None:
    cookie = await street.browser()
    async with street.client(**cookie) as client:
        for method in ("POST", "PUT", "PATCH", "DELETE"):
            answer = await client.request(method, "/x", headers=page)
            assert answer.status_code == 403
    assert street.echo.seen == []


async def test_the_apps_own_page_may_change_things(street: Street) -> None:
    cookie = await street.browser()
    async with street.client(**cookie) as client:
        assert (await client.post("/x", headers={"origin": street.origin})).status_code == 200
        assert (await client.post("/x", headers=OWN_PAGE)).status_code == 200
        assert (await client.post("/x", headers={"origin": street.origin, **OWN_PAGE})).status_code == 200


async def test_a_foreign_page_may_link_but_neither_embed_nor_load(street: Street) -> None:
    cookie = await street.browser()
    link = {"sec-fetch-site": "cross-site", "sec-fetch-mode": "navigate", "sec-fetch-dest": "document"}
    async with street.client(**cookie) as client:
        assert (await client.get("/", headers=link)).status_code == 200
        for change in (
            {"sec-fetch-dest": "iframe"},
            {"sec-fetch-mode": "no-cors", "sec-fetch-dest": "image"},
        ):
            for site in ("cross-site", "same-site"):
                answer = await client.get("/", headers={**link, **change, "sec-fetch-site": site})
                assert answer.status_code == 403


async def test_a_key_needs_no_origin(street: Street) -> None:
    async with street.client(street.alice, origin="https://elsewhere.example") as client:
        assert (await client.post("/x")).status_code == 200


async def test_the_path_form_sends_a_browser_to_the_apps_own_host(street: Street) -> None:
    async with street.client(host=f"127.0.0.1:{street.port}", **HTML) as client:
        for name in ("echo", "absent"):
            answer = await client.get(f"/apps/flytesnacks/development/{name}/x?y=1")
            assert answer.status_code == 303
            assert (
                answer.headers["location"]
                == f"http://{name}-flytesnacks-development.localhost:{street.port}/x?y=1"
            )
        bare = await client.get("/apps/flytesnacks/development/echo")
        assert (bare.status_code, bare.headers["location"]) == (308, "/apps/flytesnacks/development/echo/")


async def test_a_browser_behind_a_forwarded_port_stays_at_that_port(street: Street) -> None:
    async with street.client(**HTML) as client:
        host = f"{street.host.partition(':')[0]}:9999"
        away = await client.get("/page", headers={"host": host})
        assert away.headers["location"].startswith("http://127.0.0.1:9999/apps-login?")
        by_path = await client.get(
            f"http://127.0.0.1:{street.port}/apps/flytesnacks/development/none/x",
            headers={"host": "localhost:9999"},
        )
        assert by_path.headers["location"].partition("/x")[0].endswith(".localhost:9999")
