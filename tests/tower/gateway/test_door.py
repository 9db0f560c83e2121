"""Who gets in: credentials, refusals, and that nothing anonymous reaches or wakes a protected app."""

from __future__ import annotations

import json

import httpx
from tests.tower.gateway.conftest import Street

from tower.identity.authenticators import MACHINE
from tower.identity.guesses import SOURCE

ID = "flytesnacks/development/echo"
UNKNOWN = "nothing-flytesnacks-development.localhost"


async def test_without_a_credential_nothing_reaches_the_app_nor_wakes_it(street: Street) -> None:
    async with street.client() as client:
        for method in ("GET", "POST", "DELETE", "HEAD", "OPTIONS"):
            answer = await client.request(method, "/")
            assert answer.status_code == 401
            assert answer.headers["www-authenticate"] == "Bearer"
    assert street.echo.seen == []
    assert street.house.processes.woken.total() == 0


async def test_the_host_of_the_form_of_tls_serves_programs_and_sends_browsers_on(
    street: Street,
) -> None:
    """There a site could plant cookies for all apps (T19): it hears of none and sets none that count."""
    async with street.client(host=street.host.replace(".localhost", ".apps.localhost")) as client:
        named = await client.get(
            "/a?b=1", headers={"authorization": f"Bearer {street.alice}", "cookie": "x=1"}
        )
        assert (named.status_code, named.json()["query"]) == (200, "b=1")
        assert "cookie" not in dict(named.json()["headers"])
        session = await street.browser()
        assert (await client.get("/", headers=session)).status_code == 401
        page = await client.get("/a?b=1", headers={"accept": "text/html", **session})
        assert (page.status_code, page.headers["location"]) == (308, f"http://{street.host}/a?b=1")
        nowhere = await client.get("/", headers={"host": f"x.{street.host}", "x-api-key": street.alice})
        assert nowhere.status_code == 404


FALSE = [
    "",
    "Bearer",
    "Basic YWxpY2U6eA==",
    "Bearer twr_000000000000_" + "A" * 43,
    "Bearer eyJhbGciOiJub25lIn0.e30.",
    "Bearer x, Bearer y",
    "garbage",
]


async def test_a_credential_that_does_not_hold_is_refused_everywhere(street: Street) -> None:
    await street.house.deploy("open", requires_auth=False)
    street.house.processes.sockets["flytesnacks/development/open"] = street.house.settings.home / "echo.sock"
    for host in (street.host, f"open-flytesnacks-development.localhost:{street.port}"):
        async with street.client(host=host) as client:
            for value in FALSE:
                answer = await client.get("/", headers={"authorization": value})
                assert answer.status_code in {400, 401}, value
    assert street.echo.seen == []


async def test_every_spelling_of_a_key_is_good(street: Street) -> None:
    async with street.client() as client:
        for name, value in (
            ("authorization", f"Bearer {street.alice}"),
            ("authorization", f"bearer {street.alice}"),
            ("x-api-key", street.alice),
            ("x-flyte-token", street.alice),
        ):
            assert (await client.get("/", headers={name: value})).status_code == 200


async def test_a_deleted_key_is_refused_at_the_next_call(street: Street) -> None:
    key = await street.house.key("alice")
    name = (await street.house.keys.list(MACHINE, subject="alice"))[-1].name
    async with street.client(key) as client:
        assert (await client.get("/")).status_code == 200
        await street.house.keys.delete(MACHINE, name)
        assert (await client.get("/")).status_code == 401


async def test_an_open_app_gets_anonymous_requests_without_any_authorization(street: Street) -> None:
    await street.house.deploy("open", requires_auth=False)
    street.house.processes.sockets["flytesnacks/development/open"] = street.house.settings.home / "echo.sock"
    host = f"open-flytesnacks-development.localhost:{street.port}"
    async with street.client(host=host) as client:
        anonymous = await client.get("/")
        named = await client.get("/", headers={"authorization": f"Bearer {street.alice}"})
    assert "authorization" not in dict(anonymous.json()["headers"])
    token = dict(named.json()["headers"])["authorization"].removeprefix("Bearer ")
    assert street.house.claims(token).subject == "alice"


async def test_public_paths_are_open_and_exact(street: Street) -> None:
    await street.house.deploy("part", config={"flyte.public_paths": ["/health"]})
    street.house.processes.sockets["flytesnacks/development/part"] = street.house.settings.home / "echo.sock"
    host = f"part-flytesnacks-development.localhost:{street.port}"
    async with street.client(host=host) as client:
        assert (await client.get("/health")).status_code == 200
        assert (await client.get("/health?x=1")).status_code == 200
        for path in ("/health/", "/Health", "/health/x", "/healthz", "/health;x", "/"):
            assert (await client.get(path)).status_code == 401
    assert {what["path"] for what in street.echo.seen} == {"/health"}


async def test_absent_and_hidden_apps_answer_with_the_same_bytes(street: Street) -> None:
    mallory = await street.house.person("mallory", None)

    def facts(answer: httpx.Response) -> tuple[object, ...]:
        headers = {name: value for name, value in answer.headers.items() if name != "date"}
        return answer.status_code, headers, answer.content

    async def both(key: str | None, **headers: str) -> tuple[object, object]:
        async with street.client(key, **headers) as client:
            hidden = await client.get("/x")
        async with street.client(key, host=f"{UNKNOWN}:{street.port}", **headers) as client:
            absent = await client.get("/x")
        return facts(hidden), facts(absent)

    hidden, absent = await both(mallory)
    assert hidden == absent
    assert hidden[0] == 404  # type: ignore[index]
    hidden, absent = await both(None)
    assert hidden == absent
    assert hidden[0] == 401  # type: ignore[index]
    async with street.client(mallory, host=f"127.0.0.1:{street.port}") as client:
        by_path = [await client.get(f"/apps/flytesnacks/development/{name}/x") for name in ("echo", "none")]
    assert facts(by_path[0]) == facts(by_path[1])
    assert street.echo.seen == []
    # neither tells by what it costs: each is decided, and its refusal recorded
    refused = await street.house.audit(event="access.refuse", subject="mallory")
    assert [each.resource for each in reversed(refused)] == [
        f"app:{ID}",
        f"app:{UNKNOWN.partition('.')[0]}",
        "app:flytesnacks/development/none",
    ]


async def test_what_is_refused_or_allowed_again_and_again_is_two_records(street: Street) -> None:
    mallory = await street.house.person("mallory", None)
    before = len(await street.house.audit())
    async with street.client(mallory) as client:
        for _ in range(2):
            assert (await client.get("/")).status_code == 404
    async with street.client(street.alice) as client:
        for _ in range(5):
            assert (await client.get("/")).status_code == 200
    assert len(await street.house.audit()) == before + 2
    await street.house.access.settle(everything=True)
    entries = await street.house.audit()
    assert len(entries) == before + 4
    said = {
        (each.subject, each.event, each.outcome, json.loads(each.detail).get("more", 0))
        for each in entries[:4]
    }
    assert said == {
        ("mallory", "access.refuse", "refused", 0),
        ("mallory", "access.refuse", "refused", 1),
        ("alice", "app.use", "allowed", 0),
        ("alice", "app.use", "allowed", 4),
    }
    assert {entry.action for entry in entries[:4]} == {"app:use"}
    assert {entry.resource for entry in entries[:4]} == {f"app:{ID}"}


async def test_a_limited_key_is_refused_and_its_person_not(street: Street) -> None:
    elsewhere = await street.house.key("alice", role="viewer", project="flytesnacks", domain="production")
    async with street.client(elsewhere) as client:
        assert (await client.get("/")).status_code == 404
    async with street.client(street.alice) as client:
        assert (await client.get("/")).status_code == 200


async def test_two_credentials_of_two_people_are_refused_and_audited(street: Street) -> None:
    bob = await street.house.person("bob")
    async with street.client(street.alice) as client:
        answer = await client.get("/", headers={"x-api-key": bob})
        mixed = await client.get("/", headers={**(await street.browser("bob"))})
    assert answer.status_code == mixed.status_code == 401
    assert "two different callers" in answer.json()["detail"].lower()
    assert street.echo.seen == []
    assert [entry.event for entry in await street.house.audit(event="auth.refuse")] == ["auth.refuse"] * 2


async def test_rights_are_asked_for_at_every_call(street: Street) -> None:
    async with street.client(street.alice) as client:
        assert (await client.get("/")).status_code == 200
        await street.house.identities.remove_binding(
            MACHINE, subject="alice", role="viewer", project="flytesnacks", domain="*"
        )
        assert (await client.get("/")).status_code == 404
        await street.house.identities.set_disabled(MACHINE, "alice", disabled=True)
        assert (await client.get("/")).status_code == 401


async def test_an_app_token_opens_no_app(street: Street) -> None:
    async with street.client(street.alice) as client:
        headers = dict((await client.get("/")).json()["headers"])
        answer = await client.get("/", headers={"authorization": headers["authorization"]})
    assert answer.status_code == 401


async def test_failed_keys_are_throttled_and_good_ones_get_through(street: Street) -> None:
    async with street.client(street.alice) as client:
        assert (await client.get("/")).status_code == 200
    statuses = []
    async with street.client() as client:
        for number in range(20 * SOURCE.burst):  # a busy machine is given some back meanwhile
            key = f"twr_{number:012d}_" + "A" * 43
            statuses.append((await client.get("/", headers={"x-api-key": key})).status_code)
            if statuses[-1] == 429:
                break
        assert (await client.get("/")).status_code == 401  # no credential, no count
    assert set(statuses[: SOURCE.burst]) == {401}
    assert statuses[-1] == 429
    async with street.client(street.alice) as client:
        assert (await client.get("/")).status_code == 200


async def test_a_preflight_needs_no_credential_and_grants_nothing(street: Street) -> None:
    asked = {"origin": "https://evil.example", "access-control-request-method": "POST"}
    async with street.client() as client:
        answer = await client.options("/", headers=asked)
    assert answer.status_code == 204
    assert not [name for name in answer.headers if name.startswith("access-control-")]
    assert street.echo.seen == []


async def test_a_preflight_of_an_open_app_is_the_apps_to_answer(street: Street) -> None:
    await street.house.deploy("open", requires_auth=False)
    street.house.processes.sockets["flytesnacks/development/open"] = street.house.settings.home / "echo.sock"
    asked = {"origin": "https://evil.example", "access-control-request-method": "POST"}
    async with street.client(host=f"open-flytesnacks-development.localhost:{street.port}") as client:
        assert (await client.options("/", headers=asked)).json()["method"] == "OPTIONS"
