"""Lists tell no more than looking at each thing would (T43); audit filters are values, never SQL (T46)."""

from __future__ import annotations

import httpx
import pytest
from tests.identity_world import HOST, World
from tests.rest_world import rest_door

from tower.control.ceilings import Limits
from tower.control.projects import Projects
from tower.identity.authenticators import MACHINE
from tower.identity.principal import Principal
from tower.policy.actions import Action
from tower.policy.rulebook import Written
from tower.store import definitions
from tower.store.listing import Seen, within
from tower.store.schema import tasks

P, D = "flytesnacks", "development"
NAMES = ("etl.load", "etl.drop", "ml.train")
INJECTIONS = [
    "' OR 1=1 --", '" OR ""="', "admin'; DROP TABLE audit; --", "%", "_", "*", "\\", "\x00", "a\nb",
    "ä" * 200,
    "1) UNION SELECT hash FROM api_keys --", "${jndi:x}", "'||(SELECT hash FROM api_keys)||'", "",
]  # fmt: skip


async def registered(world: World) -> Projects:
    def insert(tx: object) -> None:
        for number, name in enumerate(NAMES):
            for domain in (D, "production"):
                tx.insert(  # type: ignore[attr-defined]
                    tasks,
                    project=P,
                    domain=domain,
                    name=name,
                    version="1",
                    spec=b"",
                    digest="",
                    deployed_by="machine",
                    deployed_at=0.0,
                    serial=number,
                )

    await world.db.write(insert)
    return Projects(db=world.db, access=world.access)


async def listed(world: World, projects: Projects, who: Principal) -> set[tuple[str, str]]:
    scopes = await projects.listable(who, Action.TASK_VIEW, definitions.task_names)
    rows = await world.db.read(
        lambda reader: reader.execute(tasks.select().where(within(tasks, scopes))).fetchall()
    )
    return {(row.domain, row.name) for row in rows}


async def test_a_list_shows_what_may_be_viewed_and_no_more(world: World) -> None:
    projects = await registered(world)
    everything = {(domain, name) for domain in (D, "production") for name in NAMES}
    alice = await world.who(bearer=await world.person("alice", "viewer", P))
    assert await listed(world, projects, alice) == everything
    assert await projects.listable(alice, Action.TASK_VIEW, definitions.task_names, domain=D) == [Seen(P, D)]
    text = 'forbid (principal, action in Action::"view", resource is Task);'
    hide = Written("hide", text, P, D, "task", "etl.drop")
    await world.governance.policies.put_policy(MACHINE, hide, create=True)
    assert await listed(world, projects, alice) == everything - {(D, "etl.drop")}
    await world.governance.policies.delete_policy(MACHINE, "hide")
    dave = await world.who(bearer=await world.person("dave"))
    assert await listed(world, projects, dave) == set()
    await world.identities.add_binding(
        MACHINE, subject="dave", role="viewer", project=P, domain=D, kind="task", name="ml.train"
    )
    assert await listed(world, projects, dave) == {(D, "ml.train")}
    assert await listed(world, projects, alice) == everything


async def test_an_app_limited_to_tasks_lists_those(world: World) -> None:
    from tests.identity_world import app_socket

    projects = await registered(world)
    socket = app_socket()
    limits = Limits(tasks=frozenset({f"{P}/{D}/etl.load"}))
    await world.governance.ceilings.set(MACHINE, *socket.id.split("/"), limits)
    admin = await world.who(bearer=await world.person("ada", "admin"), audience="gateway")
    through = await world.who(bearer=await world.grants.exchange(admin, socket.id), workload=socket)
    assert await listed(world, projects, through) == {(D, "etl.load")}


@pytest.mark.parametrize("name", ["subject", "app", "run", "action", "resource", "event", "outcome"])
async def test_no_filter_of_the_audit_is_more_than_a_value(world: World, name: str) -> None:
    admin = await world.bootstrap()
    door = rest_door(world)
    transport = httpx.ASGITransport(door)  # type: ignore[arg-type]
    async with httpx.AsyncClient(transport=transport, base_url=f"http://{HOST}") as client:
        headers = {"authorization": f"Bearer {admin}"}
        for value in INJECTIONS:
            answer = await client.get("/api/v1/audit", params={name: value}, headers=headers)
            assert answer.status_code in {200, 400}, (value, answer.text)
            if answer.status_code == 200:
                found = answer.json()["records"]
                assert all(record[name] == value for record in found), value
        for field in ("since", "until", "before", "limit"):
            for value in ("1 OR 1=1", "nan", "inf", "-1e400", "9" * 40):
                answer = await client.get("/api/v1/audit", params={field: value}, headers=headers)
                assert answer.status_code in {200, 400}, (field, value, answer.text)
        whole = await client.get("/api/v1/audit", headers=headers)
        assert len(whole.json()["records"]) == 3
