"""Identity tokens of running tasks: what they say, who can verify them, and that Tower itself takes none."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import httpx
import pytest
from flyteidl2.app import app_definition_pb2
from flyteidl2.auth import identity_pb2
from joserfc import jwt
from joserfc.errors import JoseError
from joserfc.jwk import KeySet
from joserfc.jwt import JWTClaimsRegistry
from tests.tower.secrets.conftest import HOST, PLACE, Den

from tower.control.outside import BURST
from tower.identity.authenticators import MACHINE
from tower.identity.outside import LIFE_SECONDS, TYPE
from tower.identity.principal import Actor, ActorKind
from tower.identity.workload import Workload
from tower.main.house import compose
from tower.main.server import _running
from tower.policy.rulebook import Written
from tower.settings import Settings
from tower.store.runs import ActionKey

VAULT = "https://vault.example.com"


async def ask(den: Den, workload: Workload, audience: str = VAULT) -> httpx.Response:
    return await den.call(workload, "POST", "/workload/identity-token", json={"audience": audience})


async def token_of(den: Den, workload: Workload, audience: str = VAULT) -> str:
    answer = await ask(den, workload, audience)
    assert answer.status_code == 200, answer.text
    return str(answer.json()["token"])


class Verifier:
    """Somebody outside who knows Tower's URL and nothing else."""

    def __init__(self, den: Den, url: str) -> None:
        self.url = url
        self.http = httpx.AsyncClient(transport=httpx.ASGITransport(den.house.oauth.door), base_url=url)

    async def claims(self, token: str, audience: str) -> dict[str, Any]:
        """The claims of a token that is for this audience. Raises JoseError."""
        found = (await self.http.get("/.well-known/openid-configuration")).json()
        assert found["issuer"] == self.url
        keys = KeySet.import_key_set((await self.http.get(found["jwks_uri"])).json())
        assert "RS256" in found["id_token_signing_alg_values_supported"]
        decoded = jwt.decode(token, keys, algorithms=["RS256"])
        registry = JWTClaimsRegistry(
            iss={"essential": True, "value": found["issuer"]},
            aud={"essential": True, "value": audience},
            exp={"essential": True},
            sub={"essential": True},
        )
        registry.validate(decoded.claims)
        assert decoded.header["typ"] == TYPE
        return dict(decoded.claims)


@pytest.fixture
def verifier(den: Den) -> Verifier:
    return Verifier(den, f"http://{HOST}")


async def test_what_a_token_says(den: Den, verifier: Verifier) -> None:
    """Whom it acts for, through what, which run, task and code, for one audience and for minutes."""
    await den.deploy("bob")
    person = await den.who("alice")
    through = type(person)(
        subject=person.subject,
        kind=person.kind,
        name=person.name,
        credential=person.credential,
        actors=(Actor(ActorKind.APP, "flytesnacks/development/hook"),),
    )
    claims = await verifier.claims(await token_of(den, await den.attempt(through)), VAULT)
    assert claims["sub"] == "alice"
    assert claims["aud"] == VAULT
    assert claims["act"] == {
        "sub": "run:flytesnacks/development/r1/a0/1",
        "act": {"sub": "app:flytesnacks/development/hook"},
    }
    facts = ("org", "project", "domain", "run", "action", "attempt", "task", "task_version", "registered_by")
    assert [claims[name] for name in facts] == [
        *("tower", "flytesnacks", "development", "r1", "a0", 1, "flytesnacks/development/t", "1", "bob"),
    ]
    assert "code_digest" in claims
    assert 300 <= claims["exp"] - claims["iat"] <= LIFE_SECONDS
    (record,) = await den.records(event="identity-token.create")
    detail = json.loads(record.detail)
    assert (record.subject, detail["audience"], detail["jti"]) == ("alice", VAULT, claims["jti"])
    assert record.app == "flytesnacks/development/hook"


async def test_it_is_good_for_its_audience_alone(den: Den, verifier: Verifier) -> None:
    await den.deploy("alice")
    token = await token_of(den, await den.attempt("alice"))
    head, body, signature = token.split(".")
    with pytest.raises(JoseError):
        await verifier.claims(token, "https://other.example.com")
    for forged in (
        f"{head}.{body}.",
        f"{head}.{body[:-2]}AA.{signature}",
        f"{head}.{body}.{signature[::-1]}",
    ):
        with pytest.raises((JoseError, ValueError)):
            await verifier.claims(forged, VAULT)


async def test_keys_change_and_older_tokens_hold(den: Den, verifier: Verifier) -> None:
    await den.deploy("alice")
    workload = await den.attempt("alice")
    before = await token_of(den, workload)
    await den.house.oauth.signing_keys.rotate(MACHINE)
    after = await token_of(den, workload)
    assert before.split(".")[0] != after.split(".")[0]
    for token in (before, after):
        assert (await verifier.claims(token, VAULT))["sub"] == "alice"
    found = (await verifier.http.get("/oauth2/jwks")).json()["keys"]
    assert sorted(key["alg"] for key in found) == ["Ed25519", "Ed25519", "RS256", "RS256"]
    assert not any({"d", "p", "q", "dp", "dq", "qi"} & key.keys() for key in found)


@pytest.mark.parametrize(
    "audience",
    [
        "",
        "two words",
        "line\nbreak",
        "ümlaut",
        "x" * 257,
        "tower",
        "Tower/",
        "flyte",
        f"http://{HOST}",
        f"HTTP://{HOST.upper()}/",
        f"http://{HOST}/oauth2/token",
        f"http://user@{HOST}/apps/flytesnacks/development/hook",
        "http://localhost:8080",
        "http://localhost.:8080",
        "https://[::1]:8080",
        "127.0.0.1:8080",
        "//127.0.0.1:8080/x",
        "http://127.1:8080",
        "http://2130706433:8080/",
        "http://0x7f000001:8080",
        "http://[::ffff:127.0.0.1]:8080",
        "http://0.0.0.0:8080",
        "http://hook-flytesnacks-development.localhost:8080/",
        "hook.localhost",
    ],
)
async def test_what_is_no_audience(den: Den, audience: str) -> None:
    """A token is never for Tower itself, nor for an app of it."""
    await den.deploy("alice")
    answer = await ask(den, await den.attempt("alice"), audience)
    assert answer.status_code == 400, audience
    assert await den.records(event="identity-token.create") == []


@pytest.mark.parametrize(
    "audience",
    ["sts.amazonaws.com", "http://127.0.0.1:8200", "http://localhost:8200", "urn:x:y", "//iam.example/p"],
)
async def test_what_is_an_audience(den: Den, verifier: Verifier, audience: str) -> None:
    await den.deploy("alice")
    token = await token_of(den, await den.attempt("alice"), audience)
    assert (await verifier.claims(token, audience))["aud"] == audience


@pytest.mark.parametrize(
    "audience",
    [
        "https://tower.example.com",
        "https://TOWER.example.com:443/",
        "https://tower.example.com./oauth2/token",
        "http://tower.example.com",
        "tower.example.com",
        "https://tower.example.com:8080",
        "https://x@tower.example.com",
        "https://hook.apps.example.com",
    ],
)
async def test_the_public_name_of_tower_is_no_audience(tmp_path: Path, audience: str) -> None:
    """Behind a proxy it is reached at another port than its own."""
    settings = Settings(
        home=tmp_path / "home",
        public_url="https://tower.example.com",
        apps_domain="apps.example.com",
        behind_proxy=True,
    )
    async with compose(settings) as house:
        den = Den(house)
        await den.person("alice", "contributor", "flytesnacks")
        await den.deploy("alice")
        attempt = await den.attempt("alice")
        assert (await ask(den, attempt, audience)).status_code == 400
        assert (await ask(den, attempt, "https://tower.example.com:8200")).status_code == 200
        await den.http.aclose()


async def test_a_policy_forbids_an_audience(den: Den) -> None:
    await den.deploy("alice")
    workload = await den.attempt("alice")
    text = (
        'forbid (principal, action == Action::"identity:token", resource) '
        'unless { context.audience like "https://*.example.com" };'
    )
    await den.house.governance.policies.put_policy(MACHINE, Written("outside", text), create=True)
    assert (await ask(den, workload)).status_code == 200
    refused = await ask(den, workload, "https://evil.test")
    assert refused.status_code == 403
    (record,) = await den.records(event="access.refuse", subject="alice")
    assert (record.action, record.decision) == ("identity:token", "policy:outside")
    assert json.loads(record.detail)["audience"] == "https://evil.test"


async def test_only_a_running_task_is_given_one(den: Den) -> None:
    await den.deploy("alice")
    for who in ("root", "alice"):
        asked = {"audience": VAULT}
        assert (await den.call(who, "POST", "/workload/identity-token", json=asked)).status_code == 403
    workload = await den.attempt("alice")
    assert (await ask(den, workload)).status_code == 200
    key = ActionKey(*PLACE.values(), "r1", "a0")
    await den.house.runs.abort(await den.who("alice"), key, reason="", whole_run=True, request_id="q")
    assert (await ask(den, workload)).status_code == 401
    workload = await den.attempt("alice", run="r2")
    await den.house.identities.set_disabled(MACHINE, "alice", disabled=True)
    assert (await ask(den, workload)).status_code == 401


async def test_a_run_gets_so_many(den: Den) -> None:
    await den.deploy("alice")
    workload, other = await den.attempt("alice", run="r1"), await den.attempt("alice", run="r2")
    answers = [(await ask(den, workload)).status_code for _ in range(BURST + 5)]
    assert answers[:BURST] == [200] * BURST
    assert 429 in answers[BURST:]
    assert (await ask(den, other)).status_code == 200


async def test_a_key_that_may_only_run_tasks_names_nobody_outside(den: Den) -> None:
    await den.deploy("alice")
    narrow = await den.key("narrow", "alice", actions=("task:run", "task:view"))
    workload = await den.attempt(await den.who("alice", key=narrow))
    assert (await ask(den, workload)).status_code == 403


@pytest.mark.parametrize("scheme", ["http", "https"])
async def test_no_door_takes_one(den: Den, scheme: str) -> None:
    """Not as bearer, key, cookie or subject token, at the RPC, REST, OAuth and console doors or an app's."""
    await den.deploy("alice")
    app = app_definition_pb2.App()
    identity = app.metadata.id
    identity.project, identity.domain, identity.name = *PLACE.values(), "hook"
    app.spec.container.args.extend(["flyte-runtime", "app", "--module", "m", "--app", "hook"])
    await den.house.apps.create(await den.who("alice"), app, request_id="q")
    proto = {"content-type": "application/proto"}
    async with _running(den.house) as running:
        token = await token_of(den, await den.attempt("alice"))
        shown: list[dict[str, str]] = [
            {"authorization": f"Bearer {token}"},
            {"x-api-key": token},
            {"x-flyte-token": token},
        ]
        exchange = {
            "grant_type": "urn:ietf:params:oauth:grant-type:token-exchange",
            "subject_token": token,
            "subject_token_type": "urn:ietf:params:oauth:token-type:access_token",
            "audience": "flytesnacks/development/hook",
        }
        transport = httpx.ASGITransport(running.public)
        async with httpx.AsyncClient(transport=transport, base_url=f"{scheme}://{HOST}") as http:
            for headers in shown:
                rpc = "/flyteidl2.auth.IdentityService/UserInfo"
                content = identity_pb2.UserInfoRequest().SerializeToString()
                answers = [
                    await http.post(rpc, content=content, headers={**headers, **proto}),
                    await http.get("/api/v1/whoami", headers=headers),
                    await http.get("/apps/flytesnacks/development/hook/", headers=headers),
                    await http.get("/oauth2/userinfo", headers=headers),
                ]
                assert [answer.status_code for answer in answers] == [401] * 4, headers.keys()
                page = await http.get("/v2/apps", headers=headers)
                assert page.status_code in {302, 303, 401}
            for name in ("tower_session", "__Host-tower_session"):
                cookie = {"cookie": f"{name}={token}"}
                assert (await http.get("/api/v1/whoami", headers=cookie)).status_code == 401
            for form in (
                exchange,
                {**exchange, "subject_token_type": "urn:ietf:params:oauth:token-type:id_token"},
                {**exchange, "subject_token_type": "urn:ietf:params:oauth:token-type:jwt"},
                {"grant_type": "refresh_token", "refresh_token": token, "client_id": "flyte"},
                {"grant_type": "authorization_code", "code": token, "client_id": "flyte"},
            ):
                answer = await http.post("/oauth2/token", data=form)
                assert answer.status_code in {400, 401}
                assert "access_token" not in answer.text
            key = den.keys["bob"].split("_", 2)
            form = {"token": token, "client_id": key[1], "client_secret": key[2]}
            told = await http.post("/oauth2/introspect", data=form)
            assert told.json() == {"active": False}
