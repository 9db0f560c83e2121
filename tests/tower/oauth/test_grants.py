"""Refresh, client credentials, devices, exchange; revocation and introspection."""

from __future__ import annotations

import base64
import json
from typing import Any
from urllib.parse import quote_plus

import httpx
import pytest
from tests.identity_world import HOST
from tests.tower.oauth.conftest import ORIGIN, Server

from tower.errors import Exhausted, NotFound, Unauthenticated
from tower.identity.authenticators import MACHINE
from tower.identity.chain import Presented
from tower.identity.principal import Kind

DEVICE_CODE = "urn:ietf:params:oauth:grant-type:device_code"
EXCHANGE = "urn:ietf:params:oauth:grant-type:token-exchange"
ACCESS_TOKEN = "urn:ietf:params:oauth:token-type:access_token"


async def refresh(server: Server, token: str) -> httpx.Response:
    return await server.token("refresh_token", refresh_token=token, client_id="flyte")


async def test_a_refresh_token_is_replaced_by_the_next(server: Server) -> None:
    first = await server.login("alice")
    server.world.clock.time += 700.0
    with pytest.raises(Unauthenticated, match="expired"):
        await server.world.who(bearer=first["access_token"])
    second = (await refresh(server, first["refresh_token"])).json()
    assert second["refresh_token"] != first["refresh_token"]
    assert (await server.world.who(bearer=second["access_token"])).subject == "alice"


async def test_a_lost_answer_may_be_asked_for_again_for_a_moment(server: Server) -> None:
    first = await server.login("alice")
    one = (await refresh(server, first["refresh_token"])).json()
    server.world.clock.time += 5.0
    again = (await refresh(server, first["refresh_token"])).json()
    assert again["refresh_token"] == one["refresh_token"]


@pytest.mark.parametrize("late", [True, False])
async def test_a_second_use_ends_the_login_for_both(server: Server, late: bool) -> None:
    first = await server.login("alice")
    second = (await refresh(server, first["refresh_token"])).json()
    if late:
        server.world.clock.time += 11.0
    else:
        second = (await refresh(server, second["refresh_token"])).json()
    assert (await refresh(server, first["refresh_token"])).json()["error"] == "invalid_grant"
    assert (await refresh(server, second["refresh_token"])).json()["error"] == "invalid_grant"
    with pytest.raises(Unauthenticated):
        await server.world.who(bearer=second["access_token"])
    decisions = [record.decision for record in await server.world.records(event="login.revoke")]
    assert decisions == ["refresh-token-used-twice"]


async def test_an_idle_login_ends_and_so_does_an_old_one(server: Server) -> None:
    idle = await server.login("alice")
    busy = await server.login("alice")
    for _ in range(3):
        server.world.clock.time += 9 * 24 * 3600.0
        answer = await refresh(server, busy["refresh_token"])
        assert answer.status_code == 200
        busy = answer.json()
    assert (await refresh(server, idle["refresh_token"])).json()["error"] == "invalid_grant"
    server.world.clock.time += 4 * 24 * 3600.0
    assert (await refresh(server, busy["refresh_token"])).json()["error"] == "invalid_grant"


async def test_disabling_holds_at_the_next_call_and_refresh(server: Server) -> None:
    tokens = await server.login("alice")
    await server.world.who(bearer=tokens["access_token"])
    await server.world.identities.set_disabled(MACHINE, "alice", disabled=True)
    with pytest.raises(Unauthenticated, match="disabled"):
        await server.world.who(bearer=tokens["access_token"])
    assert (await refresh(server, tokens["refresh_token"])).json()["error"] == "invalid_grant"


async def test_a_password_change_ends_logins(server: Server) -> None:
    tokens = await server.login("alice")
    await server.world.oauth.accounts.set_password(MACHINE, "alice", "a sentence that is easy to keep")
    with pytest.raises(Unauthenticated):
        await server.world.who(bearer=tokens["access_token"])


@pytest.mark.parametrize("which", ["refresh_token", "access_token"])
async def test_logging_out_holds_at_the_next_call(server: Server, which: str) -> None:
    tokens = await server.login("alice")
    other = await server.login("alice")
    await server.world.who(bearer=tokens["access_token"])
    answer = await server.post("/oauth2/revoke", token=tokens[which], client_id="flyte")
    assert answer.status_code == 200
    with pytest.raises(Unauthenticated):
        await server.world.who(bearer=tokens["access_token"])
    assert (await refresh(server, tokens["refresh_token"])).json()["error"] == "invalid_grant"
    assert (await server.world.who(bearer=other["access_token"])).subject == "alice"
    for text in (tokens[which], "trr_unknown", "a.b.c", "x"):
        assert (await server.post("/oauth2/revoke", token=text, client_id="flyte")).status_code == 200
    assert (await server.post("/oauth2/revoke", token="x", client_id="other")).status_code == 401


# Client credentials


async def halves(server: Server, name: str = "robot", **ceiling: Any) -> tuple[str, str]:
    text = await server.world.key(name, "alice", **ceiling)
    _, identity, secret = text.split("_", 2)
    return identity, secret


def basic(client: str, secret: str) -> dict[str, str]:
    return {"authorization": "Basic " + base64.b64encode(f"{client}:{secret}".encode()).decode()}


@pytest.mark.parametrize("how", ["basic", "official", "post"])
async def test_a_program_gets_a_token_for_its_key(server: Server, how: str) -> None:
    client, secret = await halves(server, role="viewer")
    fields = {"grant_type": "client_credentials", "scope": "all", "audience": ""}
    headers: dict[str, str] = {}
    match how:
        case "basic":
            headers = basic(quote_plus(client), quote_plus(secret))
        case "official":  # the secret encoded, the id not
            headers = basic(client, quote_plus(secret))
        case _:
            fields |= {"client_id": client, "client_secret": secret}
    answer = await server.http.post("/oauth2/token", data=fields, headers=headers)
    assert answer.status_code == 200, answer.text
    told = answer.json()
    assert "refresh_token" not in told
    assert answer.headers["cache-control"] == "no-store"
    caller = await server.world.who(bearer=told["access_token"])
    assert (caller.subject, caller.credential.root) == ("alice", client)
    assert [ceiling.role for ceiling in caller.ceilings] == ["viewer"]


async def test_the_token_dies_with_its_key(server: Server) -> None:
    client, secret = await halves(server)
    told = (await server.token("client_credentials", client_id=client, client_secret=secret)).json()
    await server.world.who(bearer=told["access_token"])
    await server.world.api_keys.delete(MACHINE, "robot")
    with pytest.raises(Unauthenticated):
        await server.world.who(bearer=told["access_token"])


async def test_one_token_of_a_program_can_be_revoked_alone_and_only_by_it(server: Server) -> None:
    client, secret = await halves(server)
    mine = {"client_id": client, "client_secret": secret}
    one, two = [(await server.token("client_credentials", **mine)).json()["access_token"] for _ in range(2)]
    await server.post("/oauth2/revoke", token=one, client_id="flyte")
    await server.world.who(bearer=one)
    await server.post("/oauth2/revoke", token=one, **mine)
    with pytest.raises(Unauthenticated):
        await server.world.who(bearer=one)
    await server.world.who(bearer=two)


async def test_t36_every_wrong_client_gets_the_same_answer_and_guessing_is_throttled(server: Server) -> None:
    client, secret = await halves(server)
    await halves(server, "gone")
    gone, its_secret = await halves(server, "gone-2")
    await server.world.api_keys.delete(MACHINE, "gone-2")
    answers = [
        await server.token("client_credentials", client_id=name, client_secret=text)
        for name, text in (
            (client, "x" * 43),
            ("0" * 12, secret),
            (gone, its_secret),
            ("flyte", "x"),
            ("", "x"),
        )
    ]
    assert {(answer.status_code, answer.text) for answer in answers} == {(401, answers[0].text)}
    assert answers[0].json()["error"] == "invalid_client"
    assert answers[0].headers["www-authenticate"].startswith("Basic")
    statuses = [
        (await server.token("client_credentials", client_id=client, client_secret=f"{n:043}")).status_code
        for n in range(60)
    ]
    assert statuses[-1] == 429
    assert statuses.count(401) < 12
    server.world.clock.time += 3600.0
    right = await server.token("client_credentials", client_id=client, client_secret=secret)
    assert right.status_code == 200


async def ask(server: Server, client: str, secret: str, *, source: str) -> httpx.Response:
    """Client credentials shown from an address."""
    transport = httpx.ASGITransport(app=server.world.oauth.door, client=(source, 50000))
    fields = {"grant_type": "client_credentials", "client_id": client, "client_secret": secret}
    async with httpx.AsyncClient(transport=transport, base_url=ORIGIN) as http:
        return await http.post("/oauth2/token", data=fields)


async def test_t36_whoever_fails_makes_no_neighbour_wait(server: Server) -> None:
    """A program with a wrong secret behind the same address; a guesser at the client id elsewhere."""
    broken, _ = await halves(server, "broken")
    client, secret = await halves(server)
    other, its_secret = await halves(server, "other")
    for number in range(30):
        failed = await ask(server, broken, f"{number:043}", source="192.0.2.7")
    assert failed.status_code == 429
    told = failed.json()
    assert told["error"] == "temporarily_unavailable"
    assert 1 <= int(failed.headers["retry-after"]) <= 30
    # the first time that they are shown there, behind the same address
    assert (await ask(server, client, secret, source="192.0.2.7")).status_code == 200
    for number in range(300):
        await ask(server, client, f"{number:043}", source=f"198.51.100.{number % 250}")
    assert (await ask(server, client, "0" * 43, source="203.0.113.1")).status_code == 429
    assert (await ask(server, client, secret, source="203.0.113.1")).status_code == 200, "it held before"
    # as many failures of the address as at any door make what is new there wait, and no one else
    for number in range(300):
        await ask(server, f"{number:012}", "0" * 43, source="192.0.2.7")
    assert (await ask(server, other, its_secret, source="192.0.2.7")).status_code == 429
    assert (await ask(server, client, secret, source="192.0.2.7")).status_code == 200
    assert (await ask(server, other, its_secret, source="203.0.113.9")).status_code == 200


async def test_t36_failures_at_the_token_endpoint_count_at_the_other_doors_and_are_on_record(
    server: Server,
) -> None:
    client, secret = await halves(server)
    for number in range(400):
        await ask(server, f"{number:012}", "0" * 43, source="192.0.2.7")
    guess = (b"authorization", f"Bearer twr_{client}_{'A' * 43}".encode())
    shown = Presented(headers=(guess,), host=HOST, audience="rpc", client="192.0.2.7")
    with pytest.raises(Exhausted) as waiting:
        await server.world.chain.authenticate(shown)
    assert waiting.value.wait > 0
    await server.world.access.settle()
    [entry] = await server.world.records(event="auth.refuse")
    detail = json.loads(entry.detail)
    assert (detail["source"], detail["doors"], detail["count"]) == ("192.0.2.7", ["oauth", "rpc"], 401)
    assert secret not in entry.detail


async def test_a_right_secret_of_a_key_that_has_ended_is_no_guess(server: Server) -> None:
    client, secret = await halves(server)
    other, its_secret = await halves(server, "other")
    await server.world.api_keys.set_disabled(MACHINE, "robot", disabled=True)
    for _ in range(300):
        refused = await ask(server, client, secret, source="192.0.2.7")
    assert refused.status_code in {401, 429}
    assert (await ask(server, other, its_secret, source="192.0.2.7")).status_code == 200


async def test_client_credentials_come_from_one_place(server: Server) -> None:
    client, secret = await halves(server)
    fields = {"grant_type": "client_credentials", "client_id": client, "client_secret": secret}
    twice = await server.http.post("/oauth2/token", data=fields, headers=basic(client, secret))
    assert twice.json()["error"] == "invalid_request"
    other = {"grant_type": "client_credentials", "client_id": "flyte"}
    mixed = await server.http.post("/oauth2/token", data=other, headers=basic(client, secret))
    assert mixed.json()["error"] == "invalid_request"
    for header in ("Bearer x", "Basic x", "Basic " + base64.b64encode(b"nocolon").decode()):
        answer = await server.http.post(
            "/oauth2/token", data={"grant_type": "client_credentials"}, headers={"authorization": header}
        )
        assert answer.status_code == 401
    repeated = await server.http.post(
        "/oauth2/token",
        content="grant_type=client_credentials&grant_type=refresh_token",
        headers={"content-type": "application/x-www-form-urlencoded"},
    )
    assert repeated.json()["error"] == "invalid_request"
    assert (await server.token("password", username="alice", password="x")).json()["error"] == (
        "unsupported_grant_type"
    )
    foreign = await server.token(
        "client_credentials", client_id=client, client_secret=secret, audience="https://other.example"
    )
    assert foreign.json()["error"] == "invalid_target"


# Devices


async def begin(server: Server, **fields: str) -> dict[str, Any]:
    answer = await server.post("/oauth2/device", client_id="flyte", scope="all", **fields)
    assert answer.status_code == 200, answer.text
    return dict(answer.json())


async def poll(server: Server, code: str) -> dict[str, Any]:
    return dict((await server.token(DEVICE_CODE, device_code=code, client_id="flyte")).json())


async def person(server: Server, name: str = "alice") -> Any:
    return await server.world.who(cookie=await server.world.cookie(name), audience="console")


async def test_a_device_waits_for_its_persons_yes(server: Server) -> None:
    device = await begin(server, device_name="laptop of alice")
    assert device["verification_uri"].endswith("/device")
    assert device["user_code"] in device["verification_uri_complete"]
    assert (await poll(server, device["device_code"]))["error"] == "authorization_pending"
    alice = await person(server)
    seen = await server.world.oauth.devices.look(alice, device["user_code"].lower(), place="10.0.0.1")
    assert (seen.device, seen.place) == ("laptop of alice", "127.0.0.1")
    await server.world.oauth.devices.answer(alice, device["user_code"], allow=True, place="10.0.0.1")
    server.world.clock.time += 5.0
    tokens = await poll(server, device["device_code"])
    assert (await server.world.who(bearer=tokens["access_token"])).subject == "alice"
    assert (await poll(server, device["device_code"]))["error"] == "invalid_grant"
    with pytest.raises(NotFound):
        await server.world.oauth.devices.look(alice, device["user_code"], place="10.0.0.1")


async def test_a_no_is_a_no_and_is_recorded(server: Server) -> None:
    device = await begin(server)
    await server.world.oauth.devices.answer(
        await person(server), device["user_code"], allow=False, place="10.0.0.1"
    )
    assert (await poll(server, device["device_code"]))["error"] == "access_denied"
    (record,) = await server.world.records(event="login.allow")
    assert record.outcome == "refused"


async def test_hasty_polling_is_slowed_down_and_late_polling_has_ended(server: Server) -> None:
    device = await begin(server)
    assert (await poll(server, device["device_code"]))["error"] == "authorization_pending"
    assert (await poll(server, device["device_code"]))["error"] == "slow_down"
    server.world.clock.time += 6.0
    assert (await poll(server, device["device_code"]))["error"] == "slow_down"  # ten seconds now
    server.world.clock.time += 16.0
    assert (await poll(server, device["device_code"]))["error"] == "authorization_pending"
    server.world.clock.time += 600.0
    assert (await poll(server, device["device_code"]))["error"] == "expired_token"


async def test_user_codes_cannot_be_guessed(server: Server) -> None:
    alice = await person(server)
    seen: list[type[Exception]] = []
    for _ in range(40):
        try:
            await server.world.oauth.devices.look(alice, "BBBB-BBBB", place="10.0.0.1")
        except (NotFound, Exhausted) as fault:
            seen.append(type(fault))
    assert (seen.count(NotFound), seen.count(Exhausted)) == (10, 30)


# Exchange


async def keeper(server: Server, name: str = "keeper", role: str | None = "admin") -> dict[str, str]:
    """A service identity with this role in the project, as the client of an exchange."""
    where = {"project": "flytesnacks"} if role else {}
    await server.world.identities.add_user(MACHINE, subject=name, kind=Kind.SERVICE, role=role, **where)
    _, client, secret = (await server.world.key(f"{name}-key", name)).split("_", 2)
    return {"client_id": client, "client_secret": secret}


async def test_nobody_gets_a_token_of_an_app_that_they_do_not_stand_for(server: Server) -> None:
    """Not the command line, not the caller with their own key, not a program that may only use the app."""
    key = await server.world.key("k", "alice")
    _, client, secret = key.split("_", 2)
    fields = {
        "subject_token": key,
        "subject_token_type": ACCESS_TOKEN,
        "audience": "flytesnacks/development/hook",
    }
    public = await server.token(EXCHANGE, **fields, client_id="flyte")
    assert (public.status_code, public.json()["error"]) == (401, "invalid_client")
    own = await server.token(EXCHANGE, **fields, client_id=client, client_secret=secret)
    assert own.json()["error"] == "unauthorized_client"
    user = await server.token(EXCHANGE, **fields, **await keeper(server, "user", "contributor"))
    nobody = await server.token(EXCHANGE, **fields, **await keeper(server, "nobody", None))
    elsewhere = await server.token(EXCHANGE, **{**fields, "audience": "a/b/c"}, **await keeper(server))
    for answer in (user, nobody, elsewhere):
        assert answer.json() == own.json()
    refused = [record.subject for record in await server.world.records(event="access.refuse")]
    assert sorted(refused) == ["alice", "keeper", "nobody", "user"]
    assert await server.world.records(event="token.create") == []


async def test_only_who_may_use_the_app_gets_its_token(server: Server) -> None:
    key = await server.world.key("k", "alice")
    fields = {
        "subject_token": key,
        "subject_token_type": ACCESS_TOKEN,
        "audience": "flytesnacks/development/hook",
        **await keeper(server),
    }
    answer = await server.token(EXCHANGE, **fields)
    assert answer.status_code == 200, answer.text
    told = answer.json()
    assert told["issued_token_type"] == ACCESS_TOKEN
    assert 0 < told["expires_in"] <= 300
    caller = await server.world.who(bearer=told["access_token"], secure=True)
    assert (caller.subject, caller.via_app) == ("alice", "flytesnacks/development/hook")
    [record] = await server.world.records(event="token.create")
    assert (record.subject, f'"client":"{fields["client_id"]}"' in record.detail) == ("alice", True)
    # an exchanged token is not exchanged again, and a stranger to the app learns nothing of it
    again = await server.token(EXCHANGE, **{**fields, "subject_token": told["access_token"]})
    assert again.json()["error"] == "invalid_request"
    stranger = await server.world.person("dave")
    refused = await server.token(EXCHANGE, **{**fields, "subject_token": stranger})
    assert refused.json()["error"] == "invalid_target"
    for audience in ("flytesnacks/development", "a/b/c/d", "//"):
        wrong = await server.token(EXCHANGE, **{**fields, "audience": audience})
        assert wrong.json()["error"] == "invalid_target"


async def test_an_app_token_made_from_a_login_dies_with_the_login(server: Server) -> None:
    tokens = await server.login("alice")
    caller = await server.world.who(bearer=tokens["access_token"], audience="gateway")
    app_token = await server.world.grants.exchange(caller, "flytesnacks/development/hook")
    assert (await server.world.who(bearer=app_token, secure=True)).credential.root.startswith("login-")
    await server.post("/oauth2/revoke", token=tokens["refresh_token"], client_id="flyte")
    with pytest.raises(Unauthenticated):
        await server.world.who(bearer=app_token, secure=True)


# Introspection


async def test_introspection_is_for_programs_and_tells_what_holds(server: Server) -> None:
    tokens = await server.login("alice")
    client, secret = await halves(server)
    anonymous = await server.post("/oauth2/introspect", token=tokens["access_token"], client_id="flyte")
    assert anonymous.status_code == 401

    async def ask(token: str) -> dict[str, Any]:
        answer = await server.post("/oauth2/introspect", token=token, client_id=client, client_secret=secret)
        return dict(answer.json())

    told = await ask(tokens["access_token"])
    assert (told["active"], told["sub"], told["client_id"], told["aud"]) == (True, "alice", "flyte", "tower")
    for text in ("nothing", tokens["refresh_token"], f"twr_{client}_{secret}"):
        assert await ask(text) == {"active": False}
    await server.post("/oauth2/revoke", token=tokens["refresh_token"], client_id="flyte")
    assert await ask(tokens["access_token"]) == {"active": False}


async def test_discovery_names_what_is_there(server: Server) -> None:
    one = (await server.http.get("/.well-known/oauth-authorization-server")).json()
    two = (await server.http.get("/.well-known/openid-configuration")).json()
    assert one == two
    mounted = {route.split()[-1] for route in server.world.oauth.door.routes}
    for name, value in one.items():
        if name.endswith(("_endpoint", "_uri")):
            assert value.removeprefix(one["issuer"]) in mounted
    foreign = await server.http.get(
        "/.well-known/oauth-authorization-server", headers={"host": "evil.example"}
    )
    assert foreign.json()["issuer"] == "http://127.0.0.1:8080"


async def test_userinfo_tells_who_the_bearer_is(server: Server) -> None:
    tokens = await server.login("alice")
    answer = await server.http.get(
        "/oauth2/userinfo", headers={"authorization": f"Bearer {tokens['access_token']}"}
    )
    assert answer.json()["sub"] == "alice"
    refused = await server.http.get("/oauth2/userinfo")
    assert refused.status_code == 401
