"""Access tokens of identity providers at Tower's doors, against a real provider (T12, T13, T45)."""

from __future__ import annotations

import base64
import hashlib
import hmac
import json
import time
from typing import Any

import httpx
import pytest
from tests.identity_world import FakeClock
from tests.idp.running import OTHER_API, Idp
from tests.tower.gateway.house import message, serving
from tests.tower.oidc.conftest import Federated, corp

from tower.errors import Unauthenticated, Unavailable
from tower.identity.authenticators import MACHINE
from tower.identity.directory import SubjectFacts
from tower.identity.offers import Offer, Presented, Source
from tower.identity.oidc.bearers import ForeignTokens
from tower.identity.oidc.claims import Person
from tower.identity.oidc.provider import FRESH_SECONDS, REFETCH_SECONDS, Provider
from tower.identity.principal import CredentialKind, Kind
from tower.policy.actions import Action, Resource, ResourceType

pytestmark = pytest.mark.xdist_group("idp")

DOORS = ("rpc", "rest", "gateway", "console")


def encoded(value: Any) -> str:
    data = value if isinstance(value, bytes) else json.dumps(value).encode()
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode()


def decoded(part: str) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(base64.urlsafe_b64decode(part + "=="))
    return found


class Open:
    """Lets everyone in under the name of their `sub`, and knows them all."""

    async def admit(self, person: Person) -> str:
        return person.sub

    async def subject(self, subject: str) -> SubjectFacts | None:
        return SubjectFacts(subject, Kind.USER)


class Reader:
    """The authenticator alone, with a clock that the test moves."""

    def __init__(self, idp: Idp) -> None:
        self.clock = FakeClock(time.time())
        self.provider = Provider(corp(idp), clock=self.clock)
        self.tokens = ForeignTokens(
            providers=[self.provider], admission=Open(), directory=Open(), clock=self.clock
        )

    async def read(self, token: str) -> str | None:
        found = await self.tokens.authenticate(Offer(Source.AUTHORIZATION, token), Presented(headers=()))
        return None if found is None else found.subject


@pytest.mark.parametrize("door", DOORS)
async def test_a_token_names_the_same_person_at_every_door(federated: Federated, door: str) -> None:
    token = federated.idp.person("corp", "alice")["access_token"]

    principal = await federated.who(token, door)

    assert (principal.subject, principal.kind) == ("corp|alice", Kind.USER)
    assert principal.credential.kind is CredentialKind.OIDC_TOKEN
    assert principal.credential.expires_at == pytest.approx(time.time() + 360, abs=30)
    assert token not in repr(principal)


async def test_people_of_two_issuers_are_two_people(federated: Federated) -> None:
    one = await federated.who(federated.idp.person("corp", "alice")["access_token"])
    other = await federated.who(federated.idp.person("labs", "alice")["access_token"])

    assert {one.subject, other.subject} == {"corp|alice", "labs|alice"}


async def test_the_first_token_makes_the_user_and_says_so_in_the_audit(federated: Federated) -> None:
    token = federated.idp.person("corp", "alice")["access_token"]
    await federated.who(token)
    await federated.who(token)

    row = await federated.house.identities.user(MACHINE, "corp|alice")
    made = await federated.house.audit(event="user.create", subject="corp|alice")

    assert (row.kind, row.created_by) == ("user", "corp")
    assert [entry.decision for entry in made] == ["oidc:corp"]


async def test_a_program_is_a_service(federated: Federated) -> None:
    principal = await federated.who(federated.idp.program("corp"))

    assert (principal.subject, principal.kind) == ("corp|robot", Kind.SERVICE)


async def test_the_administration_api_knows_the_caller(federated: Federated) -> None:
    async with federated.rest(federated.idp.person("corp", "alice")["access_token"]) as client:
        found = (await client.get("/api/v1/whoami")).json()

    assert "corp|alice" in json.dumps(found)


async def test_a_disabled_person_is_refused_at_the_next_call(federated: Federated) -> None:
    token = federated.idp.person("corp", "alice")["access_token"]
    await federated.who(token)

    await federated.house.identities.set_disabled(MACHINE, "corp|alice", disabled=True)

    with pytest.raises(Unauthenticated):
        await federated.who(token)


async def test_groups_of_the_claim_give_roles_and_groups(federated: Federated) -> None:
    alice = await federated.who(federated.idp.person("corp", "alice")["access_token"])
    bob = await federated.who(federated.idp.person("corp", "bob")["access_token"])
    task = Resource(ResourceType.TASK, project="flytesnacks", domain="development", name="t")

    async def may(principal: Any) -> bool:
        return (await federated.house.access.check(principal, Action.TASK_RUN, task)).allowed

    bindings = await federated.house.rooms.directory.bindings("corp|alice")

    assert (await may(alice), await may(bob)) == (True, False)
    assert "everyone" in bindings.groups


async def test_a_group_that_is_gone_is_gone_and_an_older_token_does_not_bring_it_back(
    federated: Federated,
) -> None:
    rooms = federated.house.rooms
    externals = rooms.oidc.admission
    now = time.time()

    def token(groups: tuple[str, ...] | None, age: float) -> Person:
        return Person("corp", "alice", f"oidc-corp-x.{int(now)}", now - age, now + 60, groups=groups)

    async def roles() -> set[str]:
        return {binding.role for binding in (await rooms.directory.bindings("corp|alice")).items}

    await externals.admit(token(("makers",), 30))
    assert await roles() == {"contributor"}
    await externals.admit(token(None, 5))
    assert await roles() == {"contributor"}
    await externals.admit(token((), 10))
    assert await roles() == set()
    await externals.admit(token(("makers",), 20))
    assert await roles() == set()
    externals._heard.clear()  # what a restart forgets
    await externals.admit(token(("makers",), 20))
    assert await roles() == set()
    await externals.admit(token(("makers",), 1))
    assert await roles() == {"contributor"}


async def test_another_issuers_group_of_the_same_name_is_another_group(federated: Federated) -> None:
    await federated.who(federated.idp.person("labs", "alice")["access_token"])

    assert not (await federated.house.rooms.directory.bindings("labs|alice")).items


async def test_an_app_gets_an_exchanged_token_that_lives_no_longer(federated: Federated) -> None:
    house = federated.house
    seen: list[str] = []

    async def app(scope: Any, receive: Any, send: Any) -> None:
        seen.extend(value.decode() for name, value in scope["headers"] if name == b"authorization")
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": b"hello"})

    await house.apps.create(MACHINE, message("echo"), request_id="t")
    uds = house.settings.home / "echo.sock"
    house.processes.sockets["flytesnacks/development/echo"] = uds
    token = federated.idp.person("corp", "alice")["access_token"]
    gateway = house.gateway()
    async with (
        serving(app, uds=uds),
        serving(gateway) as port,
        httpx.AsyncClient(trust_env=False, timeout=60.0) as client,
    ):
        answer = await client.get(
            f"http://127.0.0.1:{port}/apps/flytesnacks/development/echo/",
            headers={"authorization": f"Bearer {token}"},
        )
        await gateway.close()

    claims = house.claims(seen[0].removeprefix("Bearer "))
    assert (answer.status_code, answer.text) == (200, "hello")
    assert token not in seen[0]
    assert (claims.subject, claims.parent_kind) == ("corp|alice", CredentialKind.OIDC_TOKEN)
    alive = house.rooms.directory.alive
    assert await alive(claims.parent_kind, claims.parent, "corp|alice")
    ended = claims.parent.rpartition(".")[0] + f".{int(time.time())}"
    assert not await alive(claims.parent_kind, ended, "corp|alice")


async def test_an_id_token_is_no_credential(federated: Federated) -> None:
    granted = federated.idp.person("corp", "alice")

    for door in DOORS:
        with pytest.raises(Unauthenticated):
            await federated.who(granted["id_token"], door)


async def test_a_token_for_another_api_is_refused(federated: Federated) -> None:
    with pytest.raises(Unauthenticated):
        await federated.who(federated.idp.program("corp", resource=OTHER_API))


async def test_a_token_of_another_algorithm_than_the_pinned_ones_is_refused(idp: Idp) -> None:
    reader = Reader(idp)
    only = Provider(corp(idp, algorithms=("ES256",)), clock=reader.clock)
    reader.tokens = ForeignTokens(providers=[only], admission=Open(), directory=Open(), clock=reader.clock)

    with pytest.raises(Unauthenticated):
        await reader.read(idp.program("corp"))


async def test_an_expired_token_is_refused_also_when_it_was_good_before(idp: Idp) -> None:
    reader = Reader(idp)
    token = idp.program("corp")
    assert await reader.read(token) == "robot"

    reader.clock.time += 300 + 59
    assert await reader.read(token) == "robot"  # the clocks of two machines may differ
    reader.clock.time += 2
    with pytest.raises(Unauthenticated):
        await reader.read(token)


async def test_a_token_of_the_future_is_refused(idp: Idp) -> None:
    reader = Reader(idp)
    reader.clock.time -= 120

    with pytest.raises(Unauthenticated):
        await reader.read(idp.program("corp"))


async def test_badly_signed_tokens_are_refused(idp: Idp) -> None:
    reader = Reader(idp)
    good = idp.program("corp")
    header, payload, signature = good.split(".")
    public = json.dumps(
        httpx.get(f"{idp.urls['corp']}/jwks", trust_env=False, timeout=60.0).json()["keys"][0]
    ).encode()
    fields = decoded(header)
    claims = decoded(payload)

    def hs256(secret: bytes) -> str:
        signed = f"{encoded({**fields, 'alg': 'HS256'})}.{payload}"
        return f"{signed}.{encoded(hmac.digest(secret, signed.encode(), hashlib.sha256))}"

    bad = {
        "another subject": f"{header}.{encoded({**claims, 'sub': 'alice'})}.{signature}",
        "no signature": f"{encoded({**fields, 'alg': 'none'})}.{payload}.",
        "no signature, in capitals": f"{encoded({**fields, 'alg': 'NONE'})}.{payload}.{signature}",
        "the public key as a secret": hs256(public),
        "an empty secret": hs256(b""),
        "a key of its own": f"{encoded({**fields, 'jwk': {'kty': 'oct', 'k': 'AA'}})}.{payload}.AA",
        "a key from elsewhere": f"{encoded({**fields, 'jku': 'http://127.0.0.1:9/k'})}.{payload}.{signature}",
        "a kid that is a path": f"{encoded({**fields, 'kid': '../../dev/null'})}.{payload}.{signature}",
        "a kid that is no text": f"{encoded({**fields, 'kid': 7})}.{payload}.{signature}",
        "a critical extension": f"{encoded({**fields, 'crit': ['exp']})}.{payload}.{signature}",
        "of another type": f"{encoded({**fields, 'typ': 'logout+jwt'})}.{payload}.{signature}",
        "cut": good[:-2],
        "zeros": f"{header}.{payload}.{'A' * len(signature)}",
    }
    for name, token in bad.items():
        with pytest.raises(Unauthenticated):
            pytest.fail(f"{name}: {await reader.read(token)}")
    assert await reader.read(good) == "robot"


async def test_tokens_of_nobody_we_know_are_not_ours_to_judge(idp: Idp) -> None:
    reader = Reader(idp)
    header, payload, signature = idp.program("labs").split(".")

    assert await reader.read(f"{header}.{payload}.{signature}") is None
    assert await reader.read("twr_aaaaaaaaaaaa_" + "b" * 43) is None


async def test_a_thousand_bad_tokens_fetch_nothing_more_than_once(idp: Idp) -> None:
    reader = Reader(idp)
    good = idp.program("corp")
    assert await reader.read(good) == "robot"
    header, payload, signature = good.split(".")
    fields, claims = decoded(header), decoded(payload)
    before = (idp.hits("corp"), idp.hits("corp", "/.well-known/openid-configuration"))

    async def refused(token: str) -> None:
        with pytest.raises(Unauthenticated):
            await reader.read(token)

    for number in range(1000):
        await refused(f"{header}.{encoded({**claims, 'jti': str(number)})}.{signature}")
    assert idp.hits("corp") == before[0]

    reader.clock.time += REFETCH_SECONDS
    for number in range(1000):
        await refused(f"{encoded({**fields, 'kid': str(number)})}.{payload}.{signature}")

    assert idp.hits("corp") == before[0] + 1
    assert idp.hits("corp", "/.well-known/openid-configuration") == before[1]
    assert await reader.read(idp.program("corp")) == "robot"


async def test_expired_or_foreign_tokens_reach_no_provider_at_all(idp: Idp) -> None:
    reader = Reader(idp)
    header, payload, signature = idp.program("corp").split(".")
    before = idp.hits("corp", "/.well-known/openid-configuration")

    for change in ({"exp": 1}, {"aud": OTHER_API}, {"exp": time.time() + 10**7}, {"nbf": time.time() + 999}):
        with pytest.raises(Unauthenticated):
            await reader.read(f"{header}.{encoded({**decoded(payload), **change})}.{signature}")

    assert idp.hits("corp", "/.well-known/openid-configuration") == before


async def test_keys_turn_without_a_refusal_and_a_key_taken_back_ends_its_tokens(idp: Idp) -> None:
    reader = Reader(idp)
    old = idp.program("corp")
    assert await reader.read(old) == "robot"

    idp.rotate("corp")
    reader.clock.time += REFETCH_SECONDS
    new = idp.program("corp")
    assert await reader.read(new) == "robot"
    assert await reader.read(old) == "robot"

    idp.rotate("corp", keep=False)
    reader.clock.time += min(FRESH_SECONDS, 290)
    reader.provider._keys._loaded_at -= FRESH_SECONDS  # as if the tokens lived longer than the keys are fresh
    with pytest.raises(Unauthenticated):
        await reader.read(new)


async def test_a_provider_that_does_not_answer_takes_nobody_down_who_is_known() -> None:
    with Idp.started(corp="ES256") as own:
        reader = Reader(own)
        known, other = own.program("corp"), own.program("corp")
        assert await reader.read(known) == "robot"
    fresh = Reader(own)

    reader.clock.time += 200
    reader.provider._keys._loaded_at -= FRESH_SECONDS
    assert await reader.read(known) == "robot"
    assert await reader.read(other) == "robot"
    with pytest.raises(Unavailable):
        await fresh.read(other)


async def test_only_verified_addresses_of_allowed_domains_come_in(federated: Federated) -> None:
    admit = federated.house.rooms.oidc.admission.admit
    now = time.time()

    def person(sub: str, email: str) -> Person:
        return Person("edge", sub, f"oidc-edge-x.{int(now)}", now, now + 60, email=email)

    assert await admit(person("1", "kate@example.com")) == "kate@example.com"
    assert await admit(person("1", "")) == "kate@example.com"  # known by now
    for email in ("", "eve@elsewhere.test", "eve@example.com.elsewhere.test"):
        with pytest.raises(Unauthenticated):
            await admit(person("2", email))
    with pytest.raises(Unauthenticated):
        await admit(person("1", "kate@elsewhere.test"))


async def test_nobody_becomes_a_user_that_exists_already(federated: Federated) -> None:
    await federated.house.identities.add_user(MACHINE, subject="root@example.com", role="admin")
    admit = federated.house.rooms.oidc.admission.admit
    now = time.time()

    def person(sub: str) -> Person:
        return Person("edge", sub, f"oidc-edge-x.{int(now)}", now, now + 60, email="root@example.com")

    assert await admit(person("7")) == "edge|7"
    assert await admit(person("kate")) == "edge|kate"


@pytest.mark.parametrize("sub", ["a/b", "x|y", "ä", "a b", "../..", "a" * 200, "group:admins", "a\u202eb"])
async def test_a_strange_sub_gives_a_plain_name_of_its_own(federated: Federated, sub: str) -> None:
    admit = federated.house.rooms.oidc.admission.admit
    now = time.time()

    subject = await admit(Person("corp", sub, f"oidc-corp-x.{int(now)}", now, now + 60))

    assert subject.startswith("corp|~")
    assert subject.isascii()
    assert len(subject) < 80
    assert await admit(Person("corp", sub, f"oidc-corp-x.{int(now)}", now, now + 60)) == subject
