"""A right that is taken away is gone at the next call, at every door: roles, groups, limits, sessions."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Awaitable, Callable
from typing import Any

import httpx
import pytest
from flyteidl2.app import app_payload_pb2
from flyteidl2.common import identifier_pb2
from flyteidl2.workflow import run_service_pb2
from tests.tower.gateway.conftest import HOST
from tests.tower.gateway.house import House
from tests.tower.keys.test_off_at_every_door import PROTO, WITHIN_SECONDS, City, city, key_name, sign_out
from websockets.exceptions import ConnectionClosed

from flyte.transport._envelope import Unwrapper, envelope
from tower.control.ceilings import Limits
from tower.identity.authenticators import MACHINE
from tower.identity.workload import Workload, WorkloadKind

__all__ = ["city"]

APP = ("flytesnacks", "development", "echo")
LIST = "/flyteidl2.workflow.RunService/ListRuns"
DETAILS = "/flyteidl2.workflow.RunService/GetRunDetails"
WATCH = "/flyteidl2.workflow.RunService/WatchRunDetails"
PAGE = "/v2/domain/development/project/flytesnacks/apps/echo"
Change = Callable[[City], Awaitable[object]]


def _of_run(kind: type[Any]) -> bytes:
    run = identifier_pb2.RunIdentifier(project="flytesnacks", domain="development", name="r1")
    return bytes(kind(run_id=run).SerializeToString())


async def post(city: City, path: str, body: bytes, **headers: str) -> httpx.Response:
    async with httpx.AsyncClient(base_url=city.url, trust_env=False, timeout=60.0) as client:
        return await client.post(path, content=body, headers={**PROTO, **headers})


async def through_the_app(city: City, token: str) -> int:
    """What the app gets on its own socket for the token that the gateway gave it: a run's details."""
    workload = Workload(WorkloadKind.APP, "/".join(APP), 1)

    async def attested(scope: Any, receive: Any, send: Any) -> None:
        await city.rpc({**scope, "state": {"workload": workload}}, receive, send)

    async with httpx.AsyncClient(transport=httpx.ASGITransport(attested), base_url=city.url) as client:
        headers = {**PROTO, "authorization": f"Bearer {token}"}
        body = _of_run(run_service_pb2.GetRunDetailsRequest)
        return (await client.post(DETAILS, content=body, headers=headers)).status_code


async def ways(city: City, app_token: str) -> dict[str, int]:
    """What each door answers alice about things of the project."""
    bearer = {"authorization": f"Bearer {city.key}"}
    cookie = {"cookie": f"tower_session={city.session}"}
    run, app = _of_run(run_service_pb2.GetRunDetailsRequest), app_payload_pb2.GetRequest()
    app.app_id.project, app.app_id.domain, app.app_id.name = APP
    return {
        "rpc, a run": (await post(city, DETAILS, run, **bearer)).status_code,
        "rest": await city.get("/api/v1/audit", **bearer),
        "console": await city.get(PAGE, **bearer),
        "console, by session": await city.get(PAGE, **cookie, accept="text/html"),
        "gateway": await city.get("/", host=f"{HOST}:{city.port}", **bearer),
        "gateway, by session": await city.get(
            "/", host=f"{HOST}:{city.port}", cookie=f"tower_session={city.app_session}", sec_fetch_site="none"
        ),
        "app": await through_the_app(city, app_token),
    }


async def take_the_role(city: City) -> None:
    place = {"project": "flytesnacks", "domain": "*"}
    await city.house.identities.remove_binding(MACHINE, subject="alice", role="contributor", **place)
    await city.house.identities.remove_binding(
        MACHINE, subject="alice", role="admin", project="*", domain="*"
    )


async def give_by_group(city: City) -> None:
    await take_the_role(city)
    groups = city.house.rooms.governance.groups
    await groups.create(MACHINE, "ops", members=["alice"])
    await city.house.identities.add_binding(MACHINE, subject="group:ops", role="admin")


async def leave_the_group(city: City) -> None:
    await city.house.rooms.governance.groups.update(MACHINE, "ops", remove=["alice"])


async def take_the_groups_role(city: City) -> None:
    place = {"project": "*", "domain": "*"}
    await city.house.identities.remove_binding(MACHINE, subject="group:ops", role="admin", **place)


@pytest.fixture
async def ruler(city: City) -> City:
    """Alice administers everything, too, so that every door has something to refuse later."""
    await city.house.identities.add_binding(MACHINE, subject="alice", role="admin")
    return city


async def app_token(house: House, key: str) -> str:
    caller = await house.principal(("authorization", f"Bearer {key}"))
    return await house.grants.exchange(caller, "/".join(APP))


@pytest.mark.parametrize(
    ("first", "then"),
    [(None, take_the_role), (give_by_group, leave_the_group), (give_by_group, take_the_groups_role)],
    ids=["role", "group left", "role of the group"],
)
async def test_what_a_role_gave_is_gone_at_the_next_call(
    ruler: City, first: Change | None, then: Change
) -> None:
    if first is not None:
        await first(ruler)
    token = await app_token(ruler.house, ruler.key)
    before = await ways(ruler, token)
    await then(ruler)
    after = await ways(ruler, token)
    assert set(before.values()) == {200}, before
    assert all(status in {403, 404} for status in after.values()), after


async def test_a_limit_of_the_app_holds_for_tokens_and_calls_that_are_there(ruler: City) -> None:
    token = await app_token(ruler.house, ruler.key)
    assert await through_the_app(ruler, token) == 200
    ceilings = ruler.house.rooms.governance.ceilings
    await ceilings.set(MACHINE, *APP, Limits(actions=frozenset({"app:use"})))
    assert await through_the_app(ruler, token) == 404
    assert (await ways(ruler, token))["rpc, a run"] == 200  # alice herself is not the app
    await ceilings.set(MACHINE, *APP, None)
    assert await through_the_app(ruler, token) == 200


async def test_a_key_that_ends_takes_its_app_tokens_along(ruler: City) -> None:
    token = await app_token(ruler.house, ruler.key)
    assert await through_the_app(ruler, token) == 200
    await ruler.house.keys.delete(MACHINE, await key_name(ruler.house))
    assert await through_the_app(ruler, token) == 401


async def test_a_session_that_ends_is_over_at_every_door(city: City) -> None:
    before = await city.with_the_session()
    await sign_out(city)
    after = await city.with_the_session()
    assert set(before.values()) == {200}, before
    assert all(status in {302, 303, 401} for status in after.values()), after


@pytest.mark.parametrize("then", [take_the_role, leave_the_group], ids=["role", "group left"])
async def test_an_open_websocket_is_closed_with_the_right(ruler: City, then: Change) -> None:
    if then is leave_the_group:
        await give_by_group(ruler)
    async with ruler.websocket(authorization=f"Bearer {ruler.key}") as socket:
        await socket.send(json.dumps("hello"))
        assert json.loads(await socket.recv()) == {"you": "hello"}
        await then(ruler)
        with pytest.raises(ConnectionClosed):
            await asyncio.wait_for(socket.recv(), WITHIN_SECONDS)


async def test_a_stream_tells_nothing_more_after_the_right_is_gone(ruler: City) -> None:
    """A watcher of a run: the change behind the end of the right is not told, and the stream ends."""
    headers = {"content-type": "application/connect+proto", "authorization": f"Bearer {ruler.key}"}
    body = envelope(_of_run(run_service_pb2.WatchRunDetailsRequest))
    unwrapper, told = Unwrapper(), 0
    async with (
        httpx.AsyncClient(base_url=ruler.url, trust_env=False, timeout=60.0) as client,
        client.stream("POST", WATCH, content=body, headers=headers) as answer,
    ):
        chunks = answer.aiter_bytes()
        told += len(list(unwrapper.feed(await anext(chunks))))
        await take_the_role(ruler)
        ruler.house.events.publish(("action", "flytesnacks", "development", "r1", "a0"))
        rest = b"".join([chunk async for chunk in chunks])
    assert told == 1
    assert b"not_found" in rest
