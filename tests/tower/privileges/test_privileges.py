"""Privileges of work: who can give them, and what is left of one at the time of use (T1)."""

from __future__ import annotations

import json
from typing import Any

import httpx
import pytest
from flyteidl2.task import run_pb2, task_definition_pb2
from sqlalchemy import insert, update
from tests.identity_world import World
from tests.tower.secrets.conftest import PLACE, Den, spec_of

from tower.control.launches import Launch
from tower.control.privileges import FIELD, GRANTABLE, IDENTITY_ACTIONS
from tower.errors import Denied, Invalid
from tower.identity.authenticators import MACHINE
from tower.identity.chain import Presented
from tower.identity.principal import Actor, ActorKind, Ceiling, Principal
from tower.identity.workload import Workload, WorkloadKind
from tower.policy.actions import MANAGING
from tower.policy.rulebook import Written
from tower.store import schema


def spec_with(*privileges: str) -> task_definition_pb2.TaskSpec:
    spec = spec_of()
    if privileges:
        spec.task_template.container.config.add(key=FIELD, value=json.dumps(privileges))
    return spec


async def deploy(den: Den, who: str | Principal, *privileges: str, name: str = "t") -> None:
    principal = await den.who(who) if isinstance(who, str) else who
    key = ("flytesnacks", "development", name)
    await den.house.tasks.deploy(principal, key, "1", spec=spec_with(*privileges), request_id="q")


async def running(den: Den, who: str | Workload, *, run: str = "r1", task: str = "t") -> Workload:
    """An attempt that this person, or another attempt, asked for."""
    asker = await (den.who(who) if isinstance(who, str) else inside(den, who))
    return await World.running(den.house, asker, run=run, task=task)  # type: ignore[arg-type]


async def inside(den: Den, workload: Workload) -> Principal:
    return await den.house.chain.authenticate(
        Presented(headers=(), workload=workload, secure=False, host="127.0.0.1:8080", audience="rest")
    )


async def write(den: Den, work: Workload, name: str = "token", **place: Any) -> httpx.Response:
    return await den.keep(work, name, b"a value", **(place or PLACE))  # type: ignore[arg-type]


async def test_work_without_the_privilege_writes_nothing_for_an_administrator(den: Den) -> None:
    await deploy(den, "root")
    refused = await write(den, await running(den, "root"))
    assert refused.status_code == 403
    assert "privilege secret:create" in refused.text
    (record,) = await den.records(event="access.refuse", subject="root")
    assert (record.action, record.decision) == ("secret:create", "below run:flytesnacks/development/r1")


async def test_declared_and_held_it_is_allowed_and_the_record_names_the_giver(den: Den) -> None:
    await den.person("erin", "admin")
    await deploy(den, "erin", "secret:create")
    work = await running(den, "root")
    assert (await write(den, work)).status_code == 201
    (record,) = await den.records(event="secret.create", subject="root")
    assert "below privilege of task:flytesnacks/development/t given by erin" in record.decision.split(",")
    (deployed,) = await den.records(event="task.deploy", subject="erin")
    assert json.loads(deployed.detail)["privileges"] == ["secret:create"]
    # and only that
    assert (await den.call(work, "DELETE", "/secrets/token", params=PLACE)).status_code == 403
    assert (await den.call(work, "POST", "/keys", json={"name": "k"})).status_code == 403
    assert (await den.call(work, "POST", "/users", json={"name": "u"})).status_code == 403
    text = {"name": "p", "text": "forbid (principal, action, resource);"}
    assert (await den.call(work, "POST", "/policies", json=text)).status_code == 403


async def test_work_is_told_its_limits(den: Den) -> None:
    den.keys["ci"] = await den.key("ci", "root", role="admin", project="flytesnacks")
    await deploy(den, "ci", "secret:create")
    told = (await den.call(await running(den, "alice"), "GET", "/whoami")).json()["limits"]
    assert any(each.startswith("for secret:create at most what root may (privilege of") for each in told)
    assert any(each.startswith("for secret:create at most admin in flytesnacks/* (") for each in told)
    assert not any("secret:create" in each for each in told if each.startswith("without"))


async def test_who_does_not_have_it_deploys_nothing_that_declares_it(den: Den) -> None:
    for privilege in sorted(GRANTABLE - {"key:manage-own"}):
        with pytest.raises(Denied, match=privilege):
            await deploy(den, "alice", privilege)
    refused = await den.records(event="access.refuse", subject="alice")
    assert {each.action for each in refused} == GRANTABLE - {"key:manage-own"}
    assert await den.records(event="task.deploy") == []


async def test_one_privilege_too_many_is_one_refusal_and_no_version(den: Den) -> None:
    await den.person("erin", "admin", "flytesnacks")
    with pytest.raises(Denied, match="user:manage"):
        await deploy(den, "erin", "secret:create", "user:manage")
    await deploy(den, "erin", "secret:create", "policy:manage")


async def test_a_limited_key_gives_only_what_is_within_its_limit(den: Den) -> None:
    """A deployment key of an administrator for one project hands on no power over the installation."""
    den.keys["ci"] = await den.key("ci", "root", role="admin", project="flytesnacks")
    with pytest.raises(Denied, match="user:manage"):
        await deploy(den, "ci", "user:manage")
    await deploy(den, "ci", "secret:create")
    work = await running(den, "root")
    assert (await write(den, work)).status_code == 201
    above = await den.keep(work, "token", b"of everything")  # type: ignore[arg-type]
    assert above.status_code == 403
    den.keys["weak"] = await den.key("weak", "root", role="contributor")
    with pytest.raises(Denied, match="secret:create"):
        await deploy(den, "weak", "secret:create", name="u")


async def test_an_executor_without_the_right_does_not_get_it_from_the_code(den: Den) -> None:
    await deploy(den, "root", "secret:create")
    refused = await write(den, await running(den, "alice"))
    assert refused.status_code == 403
    record = (await den.records(event="access.refuse", subject="alice"))[0]
    assert (record.action, record.resource) == ("secret:create", "secret:flytesnacks/development/token")


async def test_it_ends_with_the_right_of_its_giver(den: Den) -> None:
    """T1: never above its giver at the time of use, wherever the giver's right ends."""
    await den.person("erin", "admin", "flytesnacks")
    await deploy(den, "erin", "secret:create")
    work = await running(den, "root")
    assert (await write(den, work, "one")).status_code == 201
    # erin is no administrator of the installation, whoever runs her code is
    assert (await den.keep(work, "one", b"of everything")).status_code == 403  # type: ignore[arg-type]
    forbid = 'forbid (principal == User::"erin", action == Action::"secret:create", resource);'
    await den.house.governance.policies.put_policy(MACHINE, Written("p", forbid, "flytesnacks"), create=True)
    assert (await write(den, work, "two")).status_code == 403
    await den.house.governance.policies.delete_policy(MACHINE, "p")
    assert (await write(den, work, "two")).status_code == 201
    await den.call("root", "POST", "/users/erin/disable")
    refused = await write(den, work, "three")
    assert refused.status_code == 403
    assert "gave this work the privilege" in refused.text


async def test_it_ends_with_the_key_that_it_was_given_with(den: Den) -> None:
    await den.person("erin", "admin")
    den.keys["ci"] = await den.key("ci", "erin")
    await deploy(den, "ci", "secret:create")
    work = await running(den, "root")
    assert (await write(den, work, "one")).status_code == 201
    await den.house.api_keys.delete(MACHINE, "ci")
    assert (await write(den, work, "two")).status_code == 403
    # the same deployed again by somebody who has the right gives it again, in their name
    await deploy(den, "root", "secret:create")
    assert (await write(den, work, "two")).status_code == 201
    record = (await den.records(event="secret.create", subject="root"))[0]
    assert "given by root" in record.decision


async def test_a_weaker_deployer_of_the_same_version_takes_nothing_over(den: Den) -> None:
    await den.person("erin", "admin", "flytesnacks")
    await deploy(den, "root", "secret:create")
    await deploy(den, "erin", "secret:create")
    work = await running(den, "root")
    assert (await den.keep(work, "token", b"of everything")).status_code == 201  # type: ignore[arg-type]


async def test_a_child_has_it_only_where_all_that_asked_for_it_have_it(den: Den) -> None:
    """A confused deputy: code that declares nothing asks for work that does, with inputs of its choice."""
    await deploy(den, "root", "secret:create", name="trusted")
    await deploy(den, "alice", name="trojan")
    trojan = await running(den, "root", run="r1", task="trojan")
    assert (await write(den, await running(den, trojan, run="r2", task="trusted"))).status_code == 403
    # nor does a child get it from its parent
    parent = await running(den, "root", run="r3", task="trusted")
    assert (await write(den, await running(den, parent, run="r4", task="trojan"))).status_code == 403
    both = await running(den, parent, run="r5", task="trusted")
    assert (await write(den, both)).status_code == 201


async def test_a_child_loses_it_with_the_giver_of_its_parent(den: Den) -> None:
    await den.person("erin", "admin")
    await deploy(den, "erin", "secret:create", name="outer")
    await deploy(den, "root", "secret:create", name="inner")
    parent = await running(den, "root", run="r1", task="outer")
    child = await running(den, parent, run="r2", task="inner")
    assert (await write(den, child, "one")).status_code == 201
    await den.call("root", "POST", "/users/erin/disable")
    assert (await write(den, child, "two")).status_code == 403


async def test_code_that_comes_along_has_none(den: Den) -> None:
    spec = spec_with("secret:create")
    spec.task_template.id.name = "sent.along"
    asked = Launch(**PLACE, run_spec=run_pb2.RunSpec(), spec=spec)
    launched = await den.house.runs.launch(await den.who("root"), asked, request_id="q1")
    await deploy(den, "root", "secret:create", name="sent.along")  # a deployed one of the same name, too
    (record,) = await den.records(event="run.create")
    assert "privileges" not in json.loads(record.detail)

    def begin(tx: Any) -> None:
        run = {"run": launched.row.run, "action": "a0", **PLACE}
        tx.execute(update(schema.actions).values(phase=4, attempts=1, task_version="1"))
        tx.execute(insert(schema.attempts).values(**run, attempt=1, phase=4, created_at=0.0, has_logs=False))

    await den.house.db.write(begin)
    work = Workload(WorkloadKind.ATTEMPT, f"flytesnacks/development/{launched.row.run}/a0/1", 1)
    assert (await write(den, work)).status_code == 403


async def test_running_work_and_apps_give_none(den: Den) -> None:
    """Else privileged code could leave more of its kind behind."""
    await deploy(den, "root", "secret:create")
    work = await inside(den, await running(den, "root"))
    with pytest.raises(Denied, match="given by a person"):
        await deploy(den, work, "secret:create", name="u")
    with pytest.raises(Denied, match="policy:manage"):
        await deploy(den, work, "policy:manage", name="u")


async def test_an_app_on_the_way_leaves_none(den: Den) -> None:
    await deploy(den, "root", "secret:create")
    root = await den.who("root")
    through = Principal(
        subject="root",
        kind=root.kind,
        name="",
        credential=root.credential,
        actors=(Actor(ActorKind.APP, "flytesnacks/development/hook"),),
        ceilings=(Ceiling("app:flytesnacks/development/hook", forbidden=IDENTITY_ACTIONS),),
    )
    work = await World.running(den.house, through)  # type: ignore[arg-type]
    assert (await write(den, work)).status_code == 403


@pytest.mark.parametrize(
    "value", ["secret:create", "{}", '["secret:use"]', '["service:act-as"]', '["nothing"]', "[1]", ""]
)
async def test_what_is_no_privilege_is_refused(den: Den, value: str) -> None:
    spec = spec_of()
    spec.task_template.container.config.add(key=FIELD, value=value)
    key = ("flytesnacks", "development", "t")
    with pytest.raises(Invalid, match="privilege"):
        await den.house.tasks.deploy(await den.who("root"), key, "1", spec=spec, request_id="q")


async def test_two_lists_of_privileges_are_refused(den: Den) -> None:
    spec = spec_with("secret:create")
    spec.task_template.container.config.add(key=FIELD, value='["key:manage-own"]')
    with pytest.raises(Invalid, match="one JSON list"):
        await den.house.tasks.deploy(
            await den.who("root"), ("flytesnacks", "development", "t"), "1", spec=spec, request_id="q"
        )


def test_whatever_manages_is_off_for_work_unless_it_is_a_privilege() -> None:
    """A new action that manages something must be put on one side or the other."""
    assert MANAGING - {"project:manage"} <= IDENTITY_ACTIONS
    assert GRANTABLE < IDENTITY_ACTIONS
