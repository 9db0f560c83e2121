"""Sign-in links, sessions, and the ways around them that do not work."""

from __future__ import annotations

from urllib.parse import parse_qs, urlsplit

import httpx
import pytest
from tests.tower.console.conftest import Town

from tower.identity.authenticators import MACHINE

PAGE = "/v2/domain/development/project/flytesnacks/runs/r1"


def session_of(answer: httpx.Response) -> str:
    (cookie,) = [each for each in answer.headers.get_list("set-cookie") if each.startswith("tower_session=")]
    assert "HttpOnly" in cookie
    assert "SameSite=Lax" in cookie
    assert "Domain" not in cookie
    return cookie.partition(";")[0].partition("=")[2]


async def test_without_a_session_every_page_leads_to_signing_in(town: Town) -> None:
    async with town.client() as client:
        for path in ("/", PAGE, f"{PAGE}/events", f"{PAGE}/logs", "/v2/apps", "/metrics", "/?mine=1"):
            answer = await client.get(path)
            assert answer.status_code == 303
            place = urlsplit(answer.headers["location"])
            assert place.path == "/signin"
            assert parse_qs(place.query)["next"] == [path]
        assert (await client.get("/signin")).status_code == 200
        assert (await client.get("/healthz")).json() == {"status": "ok"}


async def test_a_link_signs_in_once_and_goes_on_to_where_one_wanted(town: Town) -> None:
    code = await town.house.logins.create_link(MACHINE, "alice")
    async with town.client() as client:
        asked = await client.get(PAGE, follow_redirects=True)
        assert "tower users link" in asked.text
        assert (await client.head(f"/signin/{code}")).status_code == 200  # uses up nothing
        opened = await client.get(f"/signin/{code}")
        assert (opened.status_code, opened.headers["location"]) == (303, PAGE)
        client.cookies.clear()
        again = await client.get(f"/signin/{code}")
        assert again.status_code == 401
        assert "set-cookie" not in again.headers or "tower_session=;" in again.headers["set-cookie"]
    async with town.client(session_of(opened)) as client:
        home = await client.get("/")
    assert home.status_code == 200
    assert "alice" in home.text
    assert code not in home.text


async def test_a_link_can_be_pasted_instead(town: Town) -> None:
    code = await town.house.logins.create_link(MACHINE, "alice")
    async with town.client(origin=town.url) as client:
        wrong = await client.post("/signin", data={"code": "x" * 43, "next": PAGE})
        assert wrong.status_code == 401
        assert "does not hold" in wrong.text
        good = await client.post("/signin", data={"code": f"{town.url}/signin/{code}", "next": PAGE})
    assert good.status_code == 200
    assert f'content="0;url={PAGE}"' in good.text
    assert session_of(good)


async def test_a_link_that_another_site_led_to_is_confirmed_first(town: Town) -> None:
    code = await town.house.logins.create_link(MACHINE, "alice")
    async with town.client() as client:
        for site in ("cross-site", "same-site"):
            answer = await client.get(f"/signin/{code}", headers={"sec-fetch-site": site})
            assert answer.status_code == 200
            assert "set-cookie" not in answer.headers
        foreign = await client.post(f"/signin/{code}", headers={"origin": "https://evil.example"})
        assert foreign.status_code == 403
        own = await client.post(f"/signin/{code}", headers={"origin": town.url})
        assert session_of(own)


@pytest.mark.parametrize(
    "following",
    [
        "https://evil.example",
        "//evil.example",
        "/\\evil",
        "javascript:alert(1)",
        "/signin/x",
        "",
        "x",
        "/a\nb",
        "/\t/evil",
    ],
)
async def test_signing_in_leads_to_this_host_only(town: Town, following: str) -> None:
    code = await town.house.logins.create_link(MACHINE, "alice")
    async with town.client() as client:
        await client.get("/signin", params={"next": following})
        answer = await client.get(f"/signin/{code}")
    assert (answer.status_code, answer.headers["location"]) == (303, "/")


async def test_signing_out_ends_the_session_for_good(town: Town) -> None:
    session = await town.session("alice")
    async with town.client(session) as client:
        assert (await client.get("/")).status_code == 200
        for foreign in ({}, {"origin": "https://evil.example"}, {"sec-fetch-site": "cross-site"}):
            assert (await client.post("/signout", headers=foreign)).status_code == 403
        assert (await client.get("/signout")).status_code == 405
        assert (await client.get("/")).status_code == 200
        out = await client.post("/signout", headers={"origin": town.url})
        assert (out.status_code, out.headers["location"]) == (303, "/signin")
    async with town.client(session) as client:
        assert (await client.get("/")).status_code == 303


async def test_a_session_of_another_host_or_of_nobody_leads_to_signing_in(town: Town) -> None:
    other = await town.house.session("alice", "localhost:1")
    for session in (other, "A" * 43, "x"):
        async with town.client(session) as client:
            answer = await client.get("/")
        assert answer.status_code == 303
        assert "Max-Age=0" in answer.headers["set-cookie"]


async def test_signing_in_away_from_this_machine_needs_tls(town: Town) -> None:
    code = await town.house.logins.create_link(MACHINE, "alice")
    async with town.client(host="tower.example.com") as client:
        answer = await client.get(f"/signin/{code}")
    assert answer.status_code == 409
    assert "TLS" in answer.text


async def test_a_disabled_person_is_out_at_once(town: Town) -> None:
    session = await town.session("bob")
    await town.house.identities.set_disabled(MACHINE, "bob", disabled=True)
    async with town.client(session) as client:
        assert (await client.get("/")).status_code == 303


async def test_the_session_is_carried_over_to_an_app_that_the_person_may_use(town: Town) -> None:
    await town.house.deploy("echo")
    host = f"echo-flytesnacks-development.localhost:{town.port}"
    asked = {"host": host, "state": "s1", "next": "/page?x=1"}
    async with town.client(await town.session("alice")) as client:
        answer = await client.get("/apps-login", params=asked)
    assert answer.status_code == 303
    place = urlsplit(answer.headers["location"])
    fields = {name: values[0] for name, values in parse_qs(place.query).items()}
    assert (place.netloc, place.path) == (host, "/.tower/session")
    assert (fields["state"], fields["next"]) == ("s1", "/page?x=1")
    carried = await town.house.logins.sign_in(fields["code"], host=host, handover=True)
    assert carried.row.subject == "alice"


async def test_no_session_is_carried_to_any_other_place(town: Town) -> None:
    await town.house.deploy("echo")
    await town.house.person("mallory", None)
    host = f"echo-flytesnacks-development.localhost:{town.port}"
    places = [
        "evil.example",
        "evil.example#.localhost",
        f"x@{host}",
        f"{host}.evil.example",
        f"echo-flytesnacks-development.localhost:{town.port + 1}",
        "echo-flytesnacks-development.localhost",
        f"nothing-flytesnacks-development.localhost:{town.port}",
        "",
    ]
    async with town.client(await town.session("alice")) as client:
        absent = [await client.get("/apps-login", params={"host": place}) for place in places]
    async with town.client(await town.session("mallory")) as client:
        hidden = await client.get("/apps-login", params={"host": host})
    assert {(each.status_code, each.content) for each in absent} == {(404, hidden.content)}
    async with town.client() as client:
        anonymous = await client.get("/apps-login", params={"host": host})
    assert urlsplit(anonymous.headers["location"]).path == "/signin"
