"""A key or a person that is off is refused at the next call: at every door, socket and open connection."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import pytest
from sqlalchemy import insert
from tests.tower.gateway.conftest import HOST
from tests.tower.gateway.echo import Echo
from tests.tower.gateway.house import House, built, serving
from websockets.asyncio.client import connect
from websockets.exceptions import ConnectionClosed

from tower import rpc
from tower.control.grants import actors_to_text, ceilings_to_text
from tower.identity.authenticators import MACHINE
from tower.identity.principal import Principal
from tower.identity.workload import Workload, WorkloadKind
from tower.main.doors import Doors
from tower.main.house import VERSION
from tower.main.server import _console_parts
from tower.store import schema

WITHIN_SECONDS = 10.0  # a ceiling for a busy machine: nothing here waits for a timer
USER_INFO = "/flyteidl2.auth.IdentityService/UserInfo"
PROTO = {"content-type": "application/proto"}


@dataclass
class City:
    """All doors of one Tower on one port, with alice's credentials of every kind."""

    house: House
    port: int
    rpc: Any
    key: str
    session: str
    app_session: str
    access_token: str
    attempt: Workload

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    async def get(self, path: str, *, host: str = "", **headers: str) -> int:
        sent = {name.replace("_", "-"): value for name, value in headers.items()}
        if host:
            sent["host"] = host
        async with httpx.AsyncClient(base_url=self.url, trust_env=False, timeout=60.0) as client:
            if path == USER_INFO:
                return (await client.post(path, headers={**PROTO, **sent})).status_code
            return (await client.get(path, headers=sent)).status_code

    async def on_the_tasks_socket(self) -> int:
        async def attested(scope: Any, receive: Any, send: Any) -> None:
            await self.rpc({**scope, "state": {"workload": self.attempt}}, receive, send)

        transport = httpx.ASGITransport(attested)
        async with httpx.AsyncClient(transport=transport, base_url=self.url) as client:
            return (await client.post(USER_INFO, headers=PROTO)).status_code

    async def with_the_key(self) -> dict[str, int]:
        """What each way answers that lives from alice's key."""
        bearer, token = f"Bearer {self.key}", f"Bearer {self.access_token}"
        app = f"{HOST}:{self.port}"
        return {
            "gateway": await self.get("/", host=app, authorization=bearer),
            "gateway, token": await self.get("/", host=app, authorization=token),
            "rpc": await self.get(USER_INFO, authorization=bearer),
            "rpc, x-api-key": await self.get(USER_INFO, x_api_key=self.key),
            "rpc, x-flyte-token": await self.get(USER_INFO, x_flyte_token=self.key),
            "rpc, token": await self.get(USER_INFO, authorization=token),
            "rest": await self.get("/api/v1/whoami", authorization=bearer),
            "rest, token": await self.get("/api/v1/whoami", authorization=token),
            "console": await self.get("/v2/apps", authorization=bearer),
            "userinfo": await self.get("/oauth2/userinfo", authorization=token),
            "task": await self.on_the_tasks_socket(),
        }

    async def with_the_session(self) -> dict[str, int]:
        """What each way answers that lives from alice's sign-in."""
        cookie = f"tower_session={self.session}"
        own = {"sec_fetch_site": "same-origin"}
        return {
            "gateway": await self.get(
                "/", host=f"{HOST}:{self.port}", cookie=f"tower_session={self.app_session}", **own
            ),
            "rest": await self.get("/api/v1/whoami", cookie=cookie, **own),
            "rpc": await self.get(USER_INFO, cookie=cookie, **own),
            "console": await self.get("/v2/apps", cookie=cookie, accept="text/html"),
        }

    def websocket(self, **headers: str) -> connect:
        return connect(
            f"ws://{HOST}:{self.port}/ws",
            host="127.0.0.1",
            port=self.port,
            proxy=None,
            additional_headers=headers,
        )


async def attempt_of(house: House, person: Principal) -> Workload:
    """A run of this person with an attempt in it; the workload of its socket."""
    place = {"project": "flytesnacks", "domain": "development", "run": "r1", "action": "a0"}
    action = {
        **place,
        "task_project": "flytesnacks",
        "task_domain": "development",
        "task_name": "t",
        "task_version": "1",
        "inputs_uri": "",
        "inputs_hash": "",
        "run_spec": b"",
        "executed_by": person.subject,
        "credential_kind": person.credential.kind.value,
        "credential_id": person.credential.root,
        "actors": actors_to_text(person.actors),
        "ceilings": ceilings_to_text(person.ceilings),
        "phase": 4,
        "created_at": house.rooms.clock.now(),
        "queued_at": 0.0,
    }
    attempt = {**place, "attempt": 1, "phase": 4, "created_at": 0.0, "has_logs": False}

    def write(tx: Any) -> None:
        tx.execute(insert(schema.actions).values(**action))
        tx.execute(insert(schema.attempts).values(**attempt))

    await house.db.write(write)
    return Workload(WorkloadKind.ATTEMPT, "flytesnacks/development/r1/a0/1", 1)


@pytest.fixture
async def city(tmp_path: Path) -> AsyncIterator[City]:
    echo, uds = Echo(), tmp_path / "echo.sock"
    async with built(tmp_path) as house:
        from tower.console import door as console

        key = await house.person("alice", "contributor")
        await house.deploy("echo")
        house.processes.sockets["flytesnacks/development/echo"] = uds
        rooms = house.rooms
        rpc_door = rpc.build(
            chain=rooms.chain,
            origin=rooms.origin,
            settings=rooms.settings,
            version=VERSION,
            tasks=rooms.tasks,
            schedules=rooms.schedules,
            runs=rooms.runs,
            watching=rooms.watching,
            data=rooms.data,
            tailing=rooms.tailing,
            projects=rooms.projects,
        )
        gateway = house.gateway()
        doors = Doors(
            [
                *((f"{prefix}/", rpc_door) for prefix in rpc_door.prefixes),
                ("/api/", rooms.rest),
                ("/oauth2/", rooms.oauth.door),
            ],
            otherwise=console.build(_console_parts(rooms, "none")),
            claimed=gateway.claims,
            claimer=gateway,
        )
        async with serving(echo.app, uds=uds), serving(doors) as port:
            host = f"127.0.0.1:{port}"
            session = await house.session("alice", host)
            made = City(
                house=house,
                port=port,
                rpc=rpc_door,
                key=key,
                session=session,
                app_session=await house.app_session(session, host, f"{HOST}:{port}"),
                access_token=await token(key, port),
                attempt=await attempt_of(house, await house.principal(("authorization", f"Bearer {key}"))),
            )
            yield made
            await gateway.close()


async def token(key: str, port: int) -> str:
    """An access token that a program gets for its key (client credentials)."""
    _, public, secret = key.split("_", 2)
    fields = {"grant_type": "client_credentials", "client_id": public, "client_secret": secret}
    async with httpx.AsyncClient(
        base_url=f"http://127.0.0.1:{port}", trust_env=False, timeout=60.0
    ) as client:
        answer = await client.post("/oauth2/token", data=fields)
    assert answer.status_code == 200, answer.text
    return str(answer.json()["access_token"])


Change = Callable[[House], Awaitable[object]]


async def key_name(house: House) -> str:
    return (await house.keys.list(MACHINE, subject="alice"))[0].name


async def disable_key(house: House) -> None:
    await house.keys.set_disabled(MACHINE, await key_name(house), disabled=True)


async def enable_key(house: House) -> None:
    await house.keys.set_disabled(MACHINE, await key_name(house), disabled=False)


async def delete_key(house: House) -> None:
    await house.keys.delete(MACHINE, await key_name(house))


async def disable_person(house: House) -> None:
    await house.identities.set_disabled(MACHINE, "alice", disabled=True)


async def enable_person(house: House) -> None:
    await house.identities.set_disabled(MACHINE, "alice", disabled=False)


@pytest.mark.parametrize(
    ("off", "on"),
    [(disable_key, enable_key), (delete_key, None), (disable_person, enable_person)],
    ids=["key disabled", "key deleted", "person disabled"],
)
async def test_the_next_call_is_refused_at_every_door(city: City, off: Change, on: Change | None) -> None:
    before = await city.with_the_key()
    await off(city.house)
    after = await city.with_the_key()
    assert set(before.values()) == {200}, before
    assert set(after.values()) == {401}, after
    if on is not None:
        await on(city.house)
        assert await city.with_the_key() == before


async def test_a_disabled_person_is_signed_out_everywhere(city: City) -> None:
    before = await city.with_the_session()
    await disable_person(city.house)
    after = await city.with_the_session()
    assert set(before.values()) == {200}, before
    for door, status in after.items():  # a browser is sent to sign in, or refused
        assert status in {302, 303, 401}, door


@pytest.mark.parametrize("off", [disable_key, delete_key, disable_person])
async def test_an_open_websocket_is_closed_at_once(city: City, off: Change) -> None:
    async with city.websocket(authorization=f"Bearer {city.key}") as socket:
        await socket.send(json.dumps("hello"))
        assert json.loads(await socket.recv()) == {"you": "hello"}
        await off(city.house)
        with pytest.raises(ConnectionClosed) as ended:
            await asyncio.wait_for(socket.recv(), WITHIN_SECONDS)
    assert ended.value.rcvd is not None
    assert ended.value.rcvd.code == 4401


async def sign_out(city: City) -> None:
    host = f"127.0.0.1:{city.port}"
    caller = await city.house.principal(("cookie", f"tower_session={city.session}"), host=host)
    await city.house.logins.sign_out(caller)


@pytest.mark.parametrize("how", ["signed out", "disabled"])
async def test_an_open_websocket_of_a_browser_ends_with_its_session_and_its_person(
    city: City, how: str
) -> None:
    cookie = {"cookie": f"tower_session={city.app_session}", "origin": f"http://{HOST}:{city.port}"}
    async with city.websocket(**cookie) as socket:
        await (sign_out(city) if how == "signed out" else disable_person(city.house))
        with pytest.raises(ConnectionClosed) as ended:
            await asyncio.wait_for(socket.recv(), WITHIN_SECONDS)
    assert ended.value.rcvd is not None
    assert ended.value.rcvd.code == 4401


async def test_another_process_on_one_home_does_not_start(tmp_path: Path) -> None:
    """What is off is off in the process that serves: there is no other that could have missed it."""
    from tower.errors import Fault

    async with built(tmp_path):
        with pytest.raises(Fault):
            async with built(tmp_path):
                pass
