"""The authorisation code with PKCE: the way it works, and the attacks of T41 that do not."""

from __future__ import annotations

from typing import Any

import pytest
from tests.identity_world import HOST
from tests.tower.oauth.conftest import BACK, ORIGIN, Proof, Server, told

from tower.errors import Unauthenticated


async def test_a_person_allows_a_command_line_and_it_acts_as_them(server: Server) -> None:
    proof = Proof()
    cookie = await server.world.cookie("alice")
    page = await server.http.get(server.question(proof), headers={"cookie": f"tower_session={cookie}"})
    assert page.status_code == 200
    assert "127.0.0.1:49152" in page.text
    assert "alice" in page.text
    assert "form-action 'self' http://127.0.0.1:49152" in page.headers["content-security-policy"]
    assert page.headers["cache-control"] == "no-store"
    tokens = await server.login("alice")
    assert tokens["token_type"] == "Bearer"
    assert tokens["expires_in"] == 600
    assert "id_token" not in tokens
    caller = await server.world.who(bearer=tokens["access_token"])
    assert (caller.subject, caller.credential.kind) == ("alice", "access_token")
    assert caller.credential.root.startswith("login-")
    assert caller.ceilings == ()


async def test_the_answer_carries_state_and_issuer_and_nothing_else(server: Server) -> None:
    answered = await server.answer("alice", server.question(Proof(), state="x y/é".encode().hex()))
    assert answered.headers["location"].startswith(f"{BACK}?")
    fields = told(answered)
    assert set(fields) == {"code", "state", "iss"}
    assert fields["state"] == "x y/é".encode().hex()
    assert fields["iss"] == ORIGIN


async def test_refusing_tells_the_program_so(server: Server) -> None:
    answered = await server.answer("alice", server.question(Proof()), answer="refuse")
    assert told(answered)["error"] == "access_denied"


async def test_a_browser_without_a_session_signs_in_first_and_comes_back(server: Server) -> None:
    answer = await server.http.get(server.question(Proof()))
    assert answer.status_code == 303
    assert answer.headers["location"].startswith("/login?next=%2Foauth2%2Fauthorize%3F")
    quiet = await server.http.get(server.question(Proof(), prompt="none"))
    assert told(quiet)["error"] == "login_required"


@pytest.mark.parametrize(
    "uri",
    [
        "https://evil.example/callback",
        "http://127.0.0.1.evil.example/callback",
        "http://127.0.0.1:49152@evil.example/callback",
        "http://evil.example#@127.0.0.1/callback",
        "http://127.0.0.1:49152/callback/../other",
        "http://127.0.0.1:49152/other",
        "http://127.0.0.1:49152/callback?x=1",
        "http://127.0.0.1:49152/callback#x",
        "http://127.0.0.1:49152\\@evil.example/callback",
        "http://127.0.0.1:0/callback",
        "http://127.0.0.1:99999/callback",
        "http://127.0.0.1:049152/callback",
        "http://127.0.0.2:49152/callback",
        "http://LOCALHOST:49152/callback",
        "http://127.1:49152/callback",
        "http://[::ffff:127.0.0.1]:49152/callback",
        "https://127.0.0.1:49152/callback",
        "//127.0.0.1:49152/callback",
        "javascript:alert(1)//127.0.0.1/callback",
        "http://127.0.0.1:49152/callback\n",
        "",
    ],
)
async def test_t41_a_foreign_redirect_address_gets_nothing_not_even_an_error(
    server: Server, uri: str
) -> None:
    for answer in (
        await server.http.get(server.question(Proof(), redirect_uri=uri)),
        await server.answer("alice", server.question(Proof(), redirect_uri=uri)),
    ):
        assert answer.status_code == 400
        assert "location" not in answer.headers


@pytest.mark.parametrize("uri", ["http://127.0.0.1:1/callback", "http://[::1]:65535/callback", BACK])
async def test_any_loopback_port_will_do(server: Server, uri: str) -> None:
    answered = await server.answer("alice", server.question(Proof(), redirect_uri=uri))
    assert answered.headers["location"].startswith(f"{uri}?code=")


@pytest.mark.parametrize(
    ("changes", "error"),
    [
        ({"state": None}, "invalid_request"),
        ({"code_challenge": None}, "invalid_request"),
        ({"code_challenge_method": "plain"}, "invalid_request"),
        ({"code_challenge_method": None}, "invalid_request"),
        ({"code_challenge": "short"}, "invalid_request"),
        ({"response_type": "token"}, "unsupported_response_type"),
        ({"response_type": "code id_token"}, "unsupported_response_type"),
        ({"scope": "all everything"}, "invalid_scope"),
        ({"scope": "role:admin role:viewer"}, "invalid_scope"),
        ({"request": "eyJ"}, "request_not_supported"),
    ],
)
async def test_t41_requests_without_their_protections_are_refused(
    server: Server, changes: dict[str, str | None], error: str
) -> None:
    answered = await server.answer("alice", server.question(Proof(), **changes))
    assert told(answered)["error"] == error
    assert "code" not in told(answered)


async def test_t41_the_yes_must_come_from_the_page_itself(server: Server) -> None:
    question = server.question(Proof())
    cookie = await server.world.cookie("alice")
    asked = await server.http.get(question, headers={"cookie": f"tower_session={cookie}"})
    assert asked.headers["referrer-policy"] == "same-origin", "with no-referrer browsers send Origin: null"
    for headers in (
        {"origin": "https://evil.example", "sec-fetch-site": "cross-site"},
        {"origin": "null", "sec-fetch-site": "cross-site"},
        {"origin": ORIGIN, "sec-fetch-site": "same-site"},
    ):
        answered = await server.answer("alice", question, **headers)
        assert answered.status_code == 403
        assert "location" not in answered.headers
    cookie = await server.world.cookie("alice")
    bare = await server.http.post(
        question, data={"answer": "allow"}, headers={"cookie": f"tower_session={cookie}"}
    )
    assert bare.status_code == 403


async def redeem(server: Server, code: str, proof: Proof, **changes: str) -> tuple[int, str]:
    fields = {"code": code, "client_id": "flyte", "redirect_uri": BACK, "code_verifier": proof.verifier}
    answer = await server.token("authorization_code", **{**fields, **changes})
    return answer.status_code, answer.json().get("error", "")


async def test_t41_a_code_is_good_once_and_a_second_use_ends_what_the_first_opened(server: Server) -> None:
    proof = Proof()
    code = await server.code("alice", proof)
    fields = {"code": code, "client_id": "flyte", "redirect_uri": BACK, "code_verifier": proof.verifier}
    first = (await server.token("authorization_code", **fields)).json()
    assert (await server.world.who(bearer=first["access_token"])).subject == "alice"
    assert await redeem(server, code, proof) == (400, "invalid_grant")
    with pytest.raises(Unauthenticated):
        await server.world.who(bearer=first["access_token"])
    refreshed = await server.token("refresh_token", refresh_token=first["refresh_token"], client_id="flyte")
    assert refreshed.json()["error"] == "invalid_grant"
    events = [record.event for record in await server.world.records(subject="alice")]
    assert "login.revoke" in events


async def test_t41_a_stolen_code_is_worth_nothing_without_its_verifier(server: Server) -> None:
    proof = Proof()
    code = await server.code("alice", proof)
    assert await redeem(server, code, Proof()) == (400, "invalid_grant")
    assert await redeem(server, code, proof) == (400, "invalid_grant")  # and is used up


async def test_a_code_is_bound_to_its_redirect_address(server: Server) -> None:
    proof = Proof()
    code = await server.code("alice", proof)
    other = "http://127.0.0.1:49153/callback"
    assert await redeem(server, code, proof, redirect_uri=other) == (400, "invalid_grant")


async def test_a_code_dies_after_a_minute(server: Server) -> None:
    proof = Proof()
    code = await server.code("alice", proof)
    server.world.clock.time += 60.0
    assert await redeem(server, code, proof) == (400, "invalid_grant")


async def test_a_code_dies_with_the_session_that_allowed_it_and_with_its_person(server: Server) -> None:
    from tower.identity.authenticators import MACHINE

    world = server.world
    proof = Proof()
    code = await server.code("alice", proof)
    await world.identities.set_disabled(MACHINE, "alice", disabled=True)
    assert await redeem(server, code, proof) == (400, "invalid_grant")
    await world.identities.set_disabled(MACHINE, "alice", disabled=False)

    cookie = await world.cookie("alice")
    sent = {"origin": ORIGIN, "cookie": f"tower_session={cookie}"}
    answered = await server.http.post(server.question(proof), data={"answer": "allow"}, headers=sent)
    await world.logins.sign_out(await world.who(cookie=cookie, audience="console"))
    assert await redeem(server, told(answered)["code"], proof) == (400, "invalid_grant")


async def test_an_api_key_opens_no_login(server: Server) -> None:
    key = await server.world.key("narrow", "alice", role="viewer")
    sent = {"origin": ORIGIN, "sec-fetch-site": "same-origin", "authorization": f"Bearer {key}"}
    answered = await server.http.post(server.question(Proof()), data={"answer": "allow"}, headers=sent)
    assert answered.status_code == 401
    assert "location" not in answered.headers


async def test_a_narrow_scope_is_a_ceiling(server: Server) -> None:
    tokens = await server.login("alice", scope="role:viewer project:flytesnacks")
    (ceiling,) = (await server.world.who(bearer=tokens["access_token"])).ceilings
    assert (ceiling.role, ceiling.project, ceiling.domain) == ("viewer", "flytesnacks", "*")
    wider = await server.token(
        "refresh_token", refresh_token=tokens["refresh_token"], client_id="flyte", scope="all"
    )
    assert wider.json()["error"] == "invalid_scope"


async def test_openid_gives_an_id_token_that_is_no_credential(server: Server) -> None:
    import json

    from joserfc import jws
    from joserfc.jwk import KeySet

    tokens = await server.login("alice", scope="openid profile", nonce="n-1")
    keys = KeySet.import_key_set((await server.http.get("/oauth2/jwks")).json())
    signed = jws.deserialize_compact(tokens["id_token"], keys, algorithms=["Ed25519"])
    claims = json.loads(signed.payload or b"")
    assert (claims["iss"], claims["aud"], claims["sub"], claims["nonce"]) == (ORIGIN, "flyte", "alice", "n-1")
    with pytest.raises(Unauthenticated):
        await server.world.who(bearer=tokens["id_token"])


async def test_what_a_login_did_is_in_the_audit(server: Server) -> None:
    await server.login("alice")
    records = await server.world.records(subject="alice")
    seen = {record.event: record for record in records}
    assert {"login.allow", "login.create"} <= set(seen)
    assert seen["login.create"].credential_id.startswith("login-")
    assert seen["login.create"].decision == "authorization_code"


async def test_half_an_answer_allows_nothing_and_is_a_call_given_up(server: Server) -> None:
    cookie = await server.world.cookie("alice")
    question = server.question(Proof())
    path, _, query = question.partition("?")
    coming = iter([{"type": "http.request", "body": b"ans", "more_body": True}, {"type": "http.disconnect"}])

    async def receive() -> Any:
        return next(coming)

    async def send(message: Any) -> None:
        pass

    scope = {
        "type": "http",
        "method": "POST",
        "path": path,
        "raw_path": path.encode(),
        "query_string": query.encode(),
        "scheme": "http",
        "client": ("127.0.0.1", 50000),
        "headers": [
            (b"host", HOST.encode()),
            (b"origin", ORIGIN.encode()),
            (b"cookie", f"tower_session={cookie}".encode()),
            (b"content-type", b"application/x-www-form-urlencoded"),
            (b"content-length", b"12"),
        ],
    }
    await server.world.oauth.door(scope, receive, send)
    [entry] = await server.world.records(outcome="cancelled")
    assert (entry.event, entry.subject, entry.action) == ("call.cancel", "alice", "self:view")
    assert entry.detail == '{"bytes":"3","method":"POST /oauth2/authorize"}'
    assert await server.world.records(event="login.allow") == []
