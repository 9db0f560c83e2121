"""T12 and T13 for access tokens: malformed, forged, expired, of another kind, at every door."""

from __future__ import annotations

import base64
import hmac
import json
from typing import Any

import pytest
from joserfc import jws
from joserfc.jwk import OKPKey
from tests.identity_world import World, app_socket
from tests.tower.oauth.conftest import Server

from tower.errors import Unauthenticated
from tower.identity.chain import Audience
from tower.identity.keyring import RETIRE_SECONDS, KeyRing

DOORS: tuple[Audience, ...] = ("rpc", "rest", "gateway", "console")


def part(value: Any) -> str:
    return base64.urlsafe_b64encode(json.dumps(value).encode()).rstrip(b"=").decode()


def opened(token: str) -> tuple[dict[str, Any], dict[str, Any], str]:
    header, payload, signature = token.split(".")
    read = [json.loads(base64.urlsafe_b64decode(each + "===")) for each in (header, payload)]
    return read[0], read[1], signature


def signed(world: World, header: dict[str, Any], payload: dict[str, Any]) -> str:
    """A token signed by Tower's own key, whatever it says."""
    key = world.ring.current.key
    # joserfc refuses headers that it does not know, so the signature is made below it
    text = f"{part(header)}.{part(payload)}"
    signature = key.get_op_key("sign").sign(text.encode())
    return f"{text}.{base64.urlsafe_b64encode(signature).rstrip(b'=').decode()}"


async def refused(world: World, token: str) -> None:
    for door in DOORS:
        with pytest.raises(Unauthenticated):
            await world.who(bearer=token, audience=door, secure=True)


async def test_an_access_token_names_its_person_at_every_door(server: Server) -> None:
    token = (await server.login("alice"))["access_token"]
    for door in DOORS:
        assert (await server.world.who(bearer=token, audience=door)).subject == "alice"


async def test_t12_headers_that_are_not_ours_to_the_letter(server: Server) -> None:
    world = server.world
    header, payload, signature = opened((await server.login("alice"))["access_token"])
    text = signed(world, header, payload)
    assert (await world.who(bearer=text)).subject == "alice"  # the forger below is able
    other = OKPKey.generate_key("Ed25519")
    changes: list[dict[str, Any]] = [
        {"alg": "none"},
        {"alg": "EdDSA"},
        {"alg": "HS256"},
        {"typ": "JWT"},
        {"typ": "AT+JWT"},
        {"kid": "../../signing.key"},
        {"kid": ""},
        {"kid": None},
        {"kid": ["x"]},
        {"kid": OKPKey.generate_key("Ed25519").thumbprint()},
        {"jku": "https://evil.example/jwks"},
        {"x5u": "https://evil.example/x5u"},
        {"jwk": other.as_dict(private=False)},
        {"crit": ["exp"]},
        {"b64": False},
        {"zip": "DEF"},
    ]
    for change in changes:
        await refused(world, signed(world, {**header, **change}, payload))
    await refused(world, f"{part({**header, 'alg': 'none'})}.{part(payload)}.")
    await refused(world, f"{part(header)}.{part(payload)}.")
    await refused(world, f"{part(header)}.{part({**payload, 'sub': 'bob'})}.{signature}")
    own = jws.serialize_compact(header, json.dumps(payload).encode(), other, algorithms=["Ed25519"])
    await refused(world, own)
    public = world.ring.current.key.as_pem(private=False)  # as the secret of an HMAC
    text = f"{part({**header, 'alg': 'HS256'})}.{part(payload)}"
    digest = hmac.digest(public, text.encode(), "sha256")
    await refused(world, f"{text}.{base64.urlsafe_b64encode(digest).rstrip(b'=').decode()}")


async def test_t13_claims_that_do_not_fit(server: Server) -> None:
    world = server.world
    header, payload, _ = opened((await server.login("alice"))["access_token"])
    now = world.clock.time
    changes: list[dict[str, Any]] = [
        {"iss": "https://evil.example"},
        {"iss": ""},
        {"aud": "flyte"},
        {"aud": ["tower", "other"]},
        {"aud": None},
        {"sub": "bob"},
        {"sub": "machine"},
        {"sub": ""},
        {"sub": {"x": 1}},
        {"exp": now - 1},
        {"exp": int(now) - 1},
        {"exp": str(now + 60)},
        {"exp": None},
        {"exp": True},
        {"iat": int(now) + 60},
        {"jti": "login-0000000000000000.x"},
        {"jti": "nothing.x"},
        {"jti": 7},
        {"act": {"sub": "app:flytesnacks/development/hook"}},
        {"client_id": ""},
    ]
    for change in changes:
        await refused(world, signed(world, header, {**payload, **change}))
    for name in payload:
        await refused(world, signed(world, header, {k: v for k, v in payload.items() if k != name}))
    for odd in ([], "text", 7, None):
        await refused(world, signed(world, header, odd))  # type: ignore[arg-type]


async def test_t13_one_kind_never_passes_for_another(server: Server) -> None:
    world = server.world
    tokens = await server.login("alice", scope="openid")
    await refused(world, tokens["refresh_token"])
    await refused(world, tokens["id_token"])
    device = (await server.post("/oauth2/device", client_id="flyte")).json()
    await refused(world, device["device_code"])
    # an access token in the place of a session, of a key header, of a client's secret
    with pytest.raises(Unauthenticated):
        await world.who(cookie=tokens["access_token"], audience="console")
    with pytest.raises(Unauthenticated):
        await world.who(("x-api-key", tokens["access_token"]))
    wrong = await server.token("client_credentials", client_id="flyte", client_secret=tokens["access_token"])
    assert wrong.json()["error"] == "invalid_client"
    # a refresh token where an access token is due, and the other way round
    for text in (tokens["access_token"], tokens["id_token"]):
        answer = await server.token("refresh_token", refresh_token=text, client_id="flyte")
        assert answer.json()["error"] == "invalid_grant"


async def test_t20_a_token_and_a_key_of_two_people_are_refused(server: Server) -> None:
    world = server.world
    token = (await server.login("alice"))["access_token"]
    key = await world.key("k", "bob")
    with pytest.raises(Unauthenticated, match="two different callers"):
        await world.who(("x-api-key", key), bearer=token)


async def test_an_app_that_forwards_a_token_stands_in_the_chain(server: Server) -> None:
    token = (await server.login("alice"))["access_token"]
    caller = await server.world.who(bearer=token, workload=app_socket())
    assert caller.via_app == "flytesnacks/development/hook"
    assert caller.credential.attested


async def test_rotating_refuses_no_token_and_retires_old_keys(server: Server) -> None:
    world = server.world
    before = (await server.login("alice"))["access_token"]
    old = world.ring.current.kid
    new = world.ring.rotate().kid
    shown = [key["kid"] for key in (await server.http.get("/oauth2/jwks")).json()["keys"]]
    assert shown == [new, old]
    assert all("d" not in key for key in (await server.http.get("/oauth2/jwks")).json()["keys"])
    after = (await server.login("alice"))["access_token"]
    assert opened(after)[0]["kid"] == new
    fresh = KeyRing(world.home / "signing-keys", clock=world.clock)  # another process over the same home
    assert [fresh.find(old) is not None, fresh.current.kid] == [True, new]
    for token in (before, after):
        assert (await world.who(bearer=token)).subject == "alice"
    world.clock.time += RETIRE_SECONDS + 1.0
    assert world.ring.find(old) is None
    assert [key["kid"] for key in world.ring.jwks()["keys"]] == [new]
    world.ring.rotate()
    assert len(list((world.home / "signing-keys").iterdir())) == 2


def test_a_key_ring_turns_by_age_and_others_notice(tmp_path: Any) -> None:
    from tests.identity_world import FakeClock

    clock = FakeClock()
    one = KeyRing(tmp_path / "keys", clock=clock, rotate=1000.0)
    two = KeyRing(tmp_path / "keys", clock=clock, rotate=1000.0)
    first = one.current.kid
    assert two.current.kid == first
    clock.time += 1000.0
    second = one.current.kid
    assert second != first
    assert two.find(second) is not None
    assert two.current.kid == second
    assert {path.stat().st_mode & 0o777 for path in (tmp_path / "keys").iterdir()} == {0o600}
    assert two.find("unknown") is None
