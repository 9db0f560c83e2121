"""A run token is made for an attempt on its own socket, and is worth what the attempt is (T3, T4, T5, T7)."""

from __future__ import annotations

from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path

import httpx
import pytest
from tests.identity_world import ADMIN_SOCKET, World, app_socket

from tower.control.attesting import Attesting
from tower.control.redaction import Redaction
from tower.errors import Denied, Unauthenticated
from tower.identity.authenticators import MACHINE
from tower.identity.chain import Chain, Presented
from tower.identity.principal import Principal
from tower.identity.runtokens import RunTokenBearers, RunTokens
from tower.identity.workload import Workload
from tower.rpc.attesting import TOKEN, AttestedDoor


@dataclass
class Desk:
    world: World
    redaction: Redaction
    attesting: Attesting
    bearers: RunTokenBearers
    alice: Principal
    workload: Workload

    async def token(self) -> str:
        principal = await self.world.who(workload=self.workload)
        return await self.attesting.run_token(principal, request_id="q")

    async def who(self, token: str) -> Principal | None:
        headers = ((b"authorization", f"Bearer {token}".encode()),)
        return await Chain([self.bearers]).authenticate(Presented(headers=headers, secure=True))


@pytest.fixture
async def desk(tmp_path: Path) -> AsyncIterator[Desk]:
    async with World.opened(tmp_path) as world:
        tokens = RunTokens(keys=world.ring, clock=world.clock, issuer="tower")
        redaction = Redaction()
        attesting = Attesting(
            db=world.db,
            clock=world.clock,
            access=world.access,
            tokens=tokens,
            redaction=redaction,
            settings=world.settings,
        )
        alice = await world.who(bearer=await world.person("alice", "contributor"))
        workload = await world.running(alice)
        bearers = RunTokenBearers(tokens=tokens, attempts=world.directory)
        yield Desk(world, redaction, attesting, bearers, alice, workload)


async def test_an_attempt_gets_a_token_for_itself_on_record(desk: Desk) -> None:
    token = await desk.token()
    principal = await desk.who(token)
    assert principal is not None
    assert (principal.subject, principal.credential.id) == ("alice", desk.workload.id)
    (record,) = await desk.world.records(event="token.create", limit=1)
    assert (record.subject, record.credential_kind) == ("alice", "workload")
    assert token not in str(record)
    assert desk.redaction.hide(desk.workload.id, f"it is {token}".encode()) == b"it is [secret]"


async def test_the_same_token_serves_until_half_of_its_life_is_over(desk: Desk) -> None:
    first = await desk.token()
    assert await desk.token() == first
    desk.world.clock.time += desk.world.settings.run_token_life * 0.6
    second = await desk.token()
    assert second != first
    assert await desk.who(first)
    desk.world.clock.time += desk.world.settings.run_token_life * 0.5
    with pytest.raises(Unauthenticated, match="expired"):
        await desk.who(first)
    assert await desk.who(second)


async def test_nobody_else_gets_one(desk: Desk) -> None:
    token = await desk.token()
    bearer = await desk.who(token)
    assert bearer is not None
    for caller in (desk.alice, bearer, MACHINE, await desk.world.who(workload=ADMIN_SOCKET)):
        with pytest.raises(Denied):
            await desk.attesting.run_token(caller, request_id="q")


async def test_t7_a_disabled_person_s_token_is_refused_at_once(desk: Desk) -> None:
    token = await desk.token()
    await desk.world.identities.set_disabled(MACHINE, "alice", disabled=True)
    with pytest.raises(Unauthenticated):
        await desk.who(token)
    with pytest.raises(Unauthenticated):
        await desk.token()


@pytest.mark.parametrize(
    ("method", "path", "workload", "status"),
    [
        ("POST", TOKEN, True, 200),
        ("GET", TOKEN, True, 405),
        ("POST", "/agent/other", True, 404),
        ("POST", TOKEN, False, 401),
        ("POST", TOKEN, app_socket(), 401),
        ("POST", TOKEN, ADMIN_SOCKET, 403),
    ],
)
async def test_the_door(desk: Desk, method: str, path: str, workload: Workload | bool, status: int) -> None:
    door = AttestedDoor(desk.attesting, chain=desk.world.chain, version="1")
    attested = desk.workload if workload is True else workload

    async def served(scope, receive, send):  # type: ignore[no-untyped-def]
        await door({**scope, "state": {"workload": attested} if attested else {}}, receive, send)

    async with httpx.AsyncClient(transport=httpx.ASGITransport(served), base_url="http://agent") as client:
        answer = await client.request(method, path)
    assert answer.status_code == status, answer.text
    assert answer.headers["cache-control"] == "no-store"
    assert answer.text.startswith("eyJ") is (status == 200)
