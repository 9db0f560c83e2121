"""Keys that running work makes with a privilege: not above the work, nor above who let it make keys (T35)."""

from __future__ import annotations

import pytest
from tests.tower.privileges.test_privileges import deploy, inside, running
from tests.tower.secrets.conftest import PLACE, Den

from tower.errors import Denied


async def test_a_key_of_work_can_do_no_more_than_the_work(den: Den) -> None:
    """Else one privilege, to make keys, would be all of them."""
    await deploy(den, "root", "key:manage-own")
    work = await running(den, "root")
    made = await den.call(work, "POST", "/keys", json={"name": "by-work"})
    assert made.status_code == 201, made.text
    key = made.json()["key"]
    assert (await den.call(key, "GET", "/whoami")).json()["subject"] == "root"
    assert (await den.call(key, "GET", "/secrets", params=PLACE)).status_code == 200
    assert (await den.keep(key, "token", b"x", **PLACE)).status_code == 403
    assert (await den.call(key, "POST", "/keys", json={"name": "more"})).status_code == 403
    assert (await den.call(key, "POST", "/users", json={"name": "u"})).status_code == 403
    listed = await den.call(
        work, "POST", "/keys", json={"name": "above", "actions": ["task:run", "user:manage"]}
    )
    assert listed.status_code == 403
    assert "user:manage" in listed.text
    refused = (await den.records(event="access.refuse", subject="root"))[0]
    assert (refused.action, refused.decision) == ("key:manage-own", "above-the-work")


async def test_everyone_lets_their_own_code_make_their_own_keys_and_nobody_elses(den: Den) -> None:
    await deploy(den, "alice", "key:manage-own")
    own = await running(den, "alice", run="r1")
    made = await den.call(own, "POST", "/keys", json={"name": "by-work", "actions": ["task:run"]})
    assert made.status_code == 201, made.text
    # T1: the administrator who runs it gives alice no key of theirs
    stolen = await den.call(await running(den, "root", run="r2"), "POST", "/keys", json={"name": "stolen"})
    assert stolen.status_code == 403


async def test_a_key_of_somebody_elses_code_is_not_above_who_let_it(den: Den) -> None:
    await den.person("erin", "admin")
    await deploy(den, "erin", "key:manage-own", "key:manage", "secret:create")
    work = await running(den, "root")
    made = await den.call(work, "POST", "/keys", json={"name": "by-work"})
    assert made.status_code == 201, made.text
    key = made.json()["key"]
    assert (await den.keep(key, "token", b"x", **PLACE)).status_code == 201
    await den.call("root", "POST", "/users/erin/disable")
    assert (await den.keep(key, "other", b"x", **PLACE)).status_code == 404
    assert (await den.call(key, "GET", "/secrets", params=PLACE)).json()["secrets"] == []


async def test_keys_for_others_need_the_giver_to_be_the_executor(den: Den) -> None:
    await den.person("erin", "admin")
    await deploy(den, "erin", "key:manage")
    asked = {"name": "for-alice", "user": "alice"}
    other = await den.call(await running(den, "root", run="r1"), "POST", "/keys", json=asked)
    assert other.status_code == 403
    own = await den.call(await running(den, "erin", run="r2"), "POST", "/keys", json=asked)
    assert own.status_code == 201, own.text


async def test_a_limited_key_that_asked_for_the_run_is_a_limit_for_its_keys(den: Den) -> None:
    await deploy(den, "root", "key:manage-own")
    den.keys["narrow"] = await den.key("narrow", "root", actions=["task:run", "key:manage-own"])
    work = await running(den, "narrow")
    made = await den.call(work, "POST", "/keys", json={"name": "wide"})
    assert made.status_code == 403


async def test_work_rotates_no_key_that_is_above_it(den: Den) -> None:
    await deploy(den, "root", "key:manage-own")
    work = await running(den, "root")
    assert (await den.call(work, "POST", "/keys/root-key/rotate", json={})).status_code == 403
    await den.call(work, "POST", "/keys", json={"name": "by-work", "actions": ["task:run"]})
    rotated = await den.call(work, "POST", "/keys/by-work/rotate", json={})
    assert rotated.status_code in {200, 201}, rotated.text
    assert rotated.json()["actions"] == ["task:run"]


async def test_a_giver_with_a_limited_key_lets_no_work_make_keys_above_it(den: Den) -> None:
    den.keys["narrow"] = await den.key("narrow", "alice", actions=["task:register", "task:view"])
    with pytest.raises(Denied, match="key:manage-own"):
        await deploy(den, "narrow", "key:manage-own")
    den.keys["wider"] = await den.key("wider", "alice", actions=["task:register", "key:manage-own"])
    await deploy(den, "wider", "key:manage-own")
    made = await den.call(await running(den, "alice"), "POST", "/keys", json={"name": "wide"})
    assert made.status_code == 403


async def test_work_that_manages_people_makes_no_way_to_sign_in_as_one(den: Den) -> None:
    """A link, a password or a webhook would have none of the limits that the work has."""
    await deploy(den, "root", "user:manage", "key:manage", "key:manage-own")
    work = await running(den, "root")
    hook = {**PLACE, "app": "hook", "path": "/x", "scheme": "hmac", "secret": "s" * 40, "user": "root"}
    with pytest.raises(Denied, match="no way to sign in"):
        await den.house.webhooks._may_act_as(await inside(den, work), "root", request_id="q")
    assert (await den.call(work, "PUT", "/webhooks", json=hook)).status_code in {403, 404}
    assert (await den.call(work, "POST", "/links", json={"user": "root"})).status_code == 403
    word = {"password": "correct horse battery staple"}
    assert (await den.call(work, "PUT", "/users/root/password", json=word)).status_code == 403
    refused = await den.records(event="access.refuse", subject="root", limit=3)
    assert {each.decision for each in refused} >= {"above-the-work"}
    assert (await den.call(work, "POST", "/users", json={"name": "newcomer"})).status_code == 201
    assert (await den.call("root", "POST", "/links", json={"user": "root"})).status_code == 201
