"""Secrets as those see them who write them, and as those do who look at what is stored."""

from __future__ import annotations

import base64
import sqlite3
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from flyteidl2.secret import definition_pb2, payload_pb2
from tests.tower.secrets.conftest import PLACE, Den

from tower.control.secrets import SecretPlace, context, sealed
from tower.errors import Broken, NotFound, Precondition
from tower.identity.authenticators import MACHINE
from tower.identity.sealing import SealingKeys
from tower.main.house import compose
from tower.policy.rulebook import Written
from tower.rpc import caller
from tower.rpc.secrets import SecretService
from tower.settings import Settings
from tower.store import secrets as store

VALUE = b"correct-horse-battery-staple"


def contents(home: Path) -> Iterator[bytes]:
    return (path.read_bytes() for path in home.rglob("*") if path.is_file())


async def test_no_answer_and_no_file_has_the_value(den: Den) -> None:
    """It can be written, replaced, listed and looked at: what is in it never comes out, nor lies anywhere."""
    text = base64.b64encode(VALUE).decode()
    made = await den.keep("root", "token", VALUE, **PLACE)
    assert made.status_code == 201
    answers = [
        made,
        await den.call("alice", "GET", "/secrets"),
        await den.call("alice", "GET", "/secrets/token", params=PLACE),
        await den.call("root", "PUT", "/secrets/token", params=PLACE, json={"value": text}),
        await den.keep("root", "token", VALUE, **PLACE),
        await den.call("root", "PUT", "/secrets/nothing", params=PLACE, json={"value": text}),
        await den.call("root", "POST", "/secrets", json={"name": 5, "value": text}),
        await den.call("root", "GET", "/audit"),
    ]
    assert [answer.status_code for answer in answers] == [201, 200, 200, 200, 409, 404, 400, 200]
    assert not any(text in answer.text or VALUE.decode() in answer.text for answer in answers)
    assert answers[3].json()["version"] == 2
    home = den.house.settings.home
    assert (home / "secrets.key").stat().st_mode & 0o777 == 0o600
    assert not any(VALUE in content or text.encode() in content for content in contents(home))
    key = base64.b64decode((home / "secrets.key").read_bytes().split()[1])
    assert not any(key in content for content in contents(home))


async def test_who_may_not_see_it_is_told_that_there_is_none(den: Den) -> None:
    await den.keep("root", "token", VALUE, **PLACE)
    body = {"value": base64.b64encode(b"x").decode()}
    for who in ("carol", "dave"):
        answers = [
            await den.call(who, "GET", "/secrets/token", params=PLACE),
            await den.call(who, "GET", "/secrets/nothing", params=PLACE),
            await den.call(who, "PUT", "/secrets/token", params=PLACE, json=body),
            await den.call(who, "DELETE", "/secrets/token", params=PLACE),
            await den.keep(who, "other", b"x", **PLACE),
        ]
        assert [answer.status_code for answer in answers] == [404] * 5, who
        told = {answer.json()["error"]["message"].replace("nothing", "token") for answer in answers[:4]}
        assert len(told) == 1
        assert (await den.call(who, "GET", "/secrets")).json()["secrets"] == []
    # who works there sees the name, and cannot change it
    assert (await den.call("alice", "GET", "/secrets/token", params=PLACE)).status_code == 200
    assert (await den.call("alice", "DELETE", "/secrets/token", params=PLACE)).status_code == 403
    assert (await den.keep("alice", "other", b"x", **PLACE)).status_code == 403
    refused = await den.records(event="access.refuse", subject="alice")
    assert {each.action for each in refused} == {"secret:delete", "secret:create"}
    assert (await den.call("root", "DELETE", "/secrets/token", params=PLACE)).status_code == 204
    assert (await den.call("alice", "GET", "/secrets/token", params=PLACE)).status_code == 404


async def test_a_right_counts_where_it_reaches_as_far_as_the_secret(den: Den) -> None:
    await den.keep("root", "token", VALUE)
    await den.keep("root", "token", VALUE, project="flytesnacks")
    await den.keep("root", "token", VALUE, **PLACE)
    await den.person("erin", "contributor", "flytesnacks", "development")
    levels = {
        who: [each["level"] for each in (await den.call(who, "GET", "/secrets")).json()["secrets"]]
        for who in ("root", "alice", "erin")
    }
    assert levels == {
        "root": ["org", "project", "domain"],
        "alice": ["project", "domain"],
        "erin": ["domain"],
    }


async def test_what_is_somebodys_own_is_nobody_elses(den: Den) -> None:
    assert (await den.keep("alice", "token", VALUE, personal=True)).status_code == 201
    assert (await den.keep("bob", "token", VALUE, personal=True)).status_code == 201
    own = {"personal": True}
    for who, status in (("alice", 200), ("bob", 200), ("root", 404), ("carol", 404)):
        found = await den.call(who, "GET", "/secrets/token", params=own)
        assert found.status_code == status, who
    for who in ("root", "carol"):
        assert (await den.call(who, "GET", "/secrets")).json()["secrets"] == []
        assert (await den.call(who, "DELETE", "/secrets/token", params=own)).status_code == 404
        # as one of the installation it is not there either
        assert (await den.call(who, "GET", "/secrets/token")).status_code == 404
    place = SecretPlace("token", owner="alice")
    with pytest.raises(NotFound):
        await den.house.confidences.secrets.get(await den.who("root"), place)
    with pytest.raises(NotFound):
        await den.house.confidences.secrets.delete(MACHINE, place)
    low = await den.key("low", "alice", role="contributor", project="flytesnacks")
    assert (await den.call(low, "GET", "/secrets/token", params=own)).status_code == 404
    assert (await den.call("alice", "DELETE", "/secrets/token", params=own)).status_code == 204
    assert (await den.call("bob", "GET", "/secrets/token", params=own)).status_code == 200


async def test_a_policy_may_be_about_one_secret(den: Den) -> None:
    await den.keep("root", "hidden", VALUE, **PLACE)
    await den.keep("root", "shown", VALUE, **PLACE)
    text = 'forbid (principal, action == Action::"secret:list", resource is Secret) when '
    rule = Written("p", text + '{ resource.name == "hidden" };', "flytesnacks")
    await den.house.governance.policies.put_policy(MACHINE, rule, create=True)
    listed = (await den.call("alice", "GET", "/secrets")).json()["secrets"]
    assert [each["name"] for each in listed] == ["shown"]
    assert (await den.call("alice", "GET", "/secrets/hidden", params=PLACE)).status_code == 404


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"name": ""}, "name"),
        ({"name": "../x"}, "name"),
        ({"name": ".x"}, "name"),
        ({"name": "x" * 129}, "name"),
        ({"value": ""}, "missing"),
        ({"value": "!"}, "base64"),
        ({"value": base64.b64encode(b"x" * 65537).decode()}, "value"),
        ({"project": ""}, "domain stands in a project"),
        ({"project": "nowhere"}, "nowhere"),
        ({"domain": "moon"}, "domain"),
        ({"personal": True}, "personal"),
    ],
)
async def test_what_cannot_be_kept(den: Den, change: dict[str, object], words: str) -> None:
    body = {"name": "n", "value": base64.b64encode(VALUE).decode(), **PLACE, **change}
    answer = await den.call("root", "POST", "/secrets", json=body)
    assert answer.status_code in {400, 404}
    assert words in answer.text
    assert (await den.call("root", "GET", "/secrets")).json()["secrets"] == []


async def test_the_largest_value_fits(den: Den) -> None:
    assert (await den.keep("root", "n", bytes(65536), **PLACE)).status_code == 201


async def test_running_work_writes_no_secrets(den: Den) -> None:
    """T1: neither a task nor an app of the most powerful person creates, replaces or deletes one."""
    await den.keep("root", "token", VALUE, **PLACE)
    await den.deploy("alice")
    workload = await den.attempt("root")
    body = {"value": base64.b64encode(b"trojan").decode()}
    answers = [
        await den.call(workload, "POST", "/secrets", json={"name": "other", **body, **PLACE}),
        await den.call(workload, "POST", "/secrets", json={"name": "other", **body, "personal": True}),
        await den.call(workload, "PUT", "/secrets/token", params=PLACE, json=body),
        await den.call(workload, "DELETE", "/secrets/token", params=PLACE),
        await den.call(workload, "POST", "/sealing-keys/rotate"),
    ]
    assert [answer.status_code for answer in answers] == [403, 403, 403, 403, 403]
    assert (await den.call("root", "GET", "/secrets/token", params=PLACE)).json()["version"] == 1
    refused = await den.records(event="access.refuse", subject="root")
    assert {each.run for each in refused} == {"flytesnacks/development/r1"}


async def test_a_value_moved_to_another_row_does_not_open(den: Den) -> None:
    """Who can write the database cannot have one secret given out in place of another, or an old version."""
    await den.keep("root", "mine", b"worthless", **PLACE)
    await den.keep("root", "theirs", VALUE, **PLACE)
    house = den.house
    keys = SealingKeys.load_or_create(house.settings.home / "secrets.key")
    mine, theirs = (
        house.db.read_now(lambda reader, name=name: store.at(reader, SecretPlace(name, *PLACE.values())))
        for name in ("mine", "theirs")
    )
    assert mine is not None
    assert theirs is not None
    assert keys.open(sealed(theirs), context=context(theirs)) == VALUE
    for changed in (
        replace(theirs, name="mine"),
        replace(theirs, id=mine.id),
        replace(theirs, project="", domain=""),
        replace(theirs, owner="mallory"),
        replace(theirs, version=2),
        replace(theirs, content=mine.content),
        replace(theirs, wrapped=mine.wrapped),
        replace(theirs, content=theirs.content[:-1] + bytes([theirs.content[-1] ^ 1])),
        replace(theirs, key_id="0" * 16),
    ):
        with pytest.raises(Broken):
            keys.open(sealed(changed), context=context(changed))


async def test_the_key_is_changed_and_the_former_one_opens_nothing(den: Den) -> None:
    for number in range(250):
        place = SecretPlace(f"n{number}", *PLACE.values())
        await den.house.confidences.secrets.create(MACHINE, place, f"value {number}".encode())
    home = den.house.settings.home
    before = (home / "secrets.key").read_bytes()
    assert (await den.call("root", "POST", "/sealing-keys/rotate")).status_code == 403
    made = await den.house.confidences.secrets.rotate_key(MACHINE)
    after = (home / "secrets.key").read_bytes()
    assert after.startswith(made.encode())
    assert len(after.splitlines()) == 1
    assert before != after
    (home / "former").write_bytes(before)
    (home / "former").chmod(0o600)
    new, old = SealingKeys.load_or_create(home / "secrets.key"), SealingKeys.load_or_create(home / "former")
    rows = den.house.db.read_now(store.everything)
    assert len(rows) == 250
    for row in rows:
        assert new.open(sealed(row), context=context(row)).startswith(b"value ")
        with pytest.raises(Broken):
            old.open(sealed(row), context=context(row))
    (record,) = await den.records(event="sealing-key.rotate")
    assert made in record.detail


async def test_a_change_of_the_key_that_was_cut_short_is_finished_at_the_next_start(tmp_path: Path) -> None:
    settings = Settings(home=tmp_path)
    place = SecretPlace("n", *PLACE.values())
    async with compose(settings) as house:
        await house.confidences.secrets.create(MACHINE, place, VALUE)
    SealingKeys.load_or_create(tmp_path / "secrets.key").rotate()
    assert len((tmp_path / "secrets.key").read_bytes().splitlines()) == 2
    async with compose(settings) as house:
        (line,) = (tmp_path / "secrets.key").read_text().splitlines()
        row = house.db.read_now(lambda reader: store.at(reader, place))
        assert row is not None
        assert row.key_id == line.split()[0]
        assert (
            SealingKeys.load_or_create(tmp_path / "secrets.key").open(sealed(row), context=context(row))
            == VALUE
        )


async def test_without_the_key_there_is_no_start(tmp_path: Path) -> None:
    settings = Settings(home=tmp_path)
    async with compose(settings) as house:
        await house.confidences.secrets.create(MACHINE, SecretPlace("n"), VALUE)
    key = tmp_path / "secrets.key"
    kept = key.read_bytes()
    key.unlink()
    with pytest.raises(Precondition, match="key that is not there"):
        async with compose(settings):
            pass
    key.write_bytes(kept)
    key.chmod(0o644)
    with pytest.raises(Broken, match="read by others"):
        async with compose(settings):
            pass
    key.chmod(0o600)
    async with compose(settings):
        pass


async def test_the_rpc_of_the_official_sdk(den: Den) -> None:
    """Its messages in, names and times out; values are in none of the answers."""
    service = SecretService(den.house.confidences.secrets)
    where = definition_pb2.SecretIdentifier(name="token", **PLACE, organization="tower")
    spec = definition_pb2.SecretSpec(string_value=VALUE.decode())
    entered = caller.enter(caller.Call(await den.who("root"), "rpc", ""))
    try:
        await service.create_secret(payload_pb2.CreateSecretRequest(id=where, secret_spec=spec), None)
        binary = definition_pb2.SecretSpec(binary_value=b"\x00\xff")
        await service.update_secret(payload_pb2.UpdateSecretRequest(id=where, secret_spec=binary), None)
        found = await service.get_secret(payload_pb2.GetSecretRequest(id=where), None)
        for name in ("b", "c"):
            other = definition_pb2.SecretIdentifier(name=name, **PLACE)
            await service.create_secret(payload_pb2.CreateSecretRequest(id=other, secret_spec=spec), None)
        names, token = [], ""
        while True:
            asked = payload_pb2.ListSecretsRequest(**PLACE, limit=2, token=token)
            page = await service.list_secrets(asked, None)
            names += [each.id.name for each in page.secrets]
            token = page.token
            if not token:
                break
        await service.delete_secret(payload_pb2.DeleteSecretRequest(id=where), None)
        with pytest.raises(NotFound):
            await service.get_secret(payload_pb2.GetSecretRequest(id=where), None)
    finally:
        caller.leave(entered)
    assert found.secret.id.name == "token"
    assert found.secret.secret_metadata.created_time.seconds > 0
    assert found.secret.secret_metadata.secret_status.overall_status == definition_pb2.FULLY_PRESENT
    assert names == ["b", "c", "token"]
    assert VALUE not in found.SerializeToString() + page.SerializeToString()


async def test_the_database_has_no_column_for_a_value(den: Den) -> None:
    await den.keep("root", "token", VALUE, **PLACE)
    with sqlite3.connect(den.house.settings.database) as database:
        (row,) = database.execute("select * from secrets").fetchall()
    assert not any(VALUE in (cell if isinstance(cell, bytes) else str(cell).encode()) for cell in row)


async def test_with_a_person_go_the_secrets_of_their_own(den: Den) -> None:
    await den.keep("alice", "token", VALUE, personal=True)
    await den.house.identities.delete_user(MACHINE, "alice")
    assert den.house.db.read_now(lambda reader: store.everything(reader, owner="alice")) == []
