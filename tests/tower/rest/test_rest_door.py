"""The administration API as its callers see it."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from dataclasses import replace
from typing import Any

import httpx
import pytest
from tests.identity_world import ADMIN_SOCKET, HOST, World, app_socket
from tests.rest_world import rest_door

from tower.errors import HTTP_STATUS, Code, Fault, Unauthenticated
from tower.identity.authenticators import MACHINE
from tower.identity.workload import Workload
from tower.policy.actions import check_complete
from tower.rest import faults, shapes
from tower.rest.door import MAX_BODY


class Api:
    """The door with a client in front of it."""

    def __init__(self, world: World) -> None:
        self.world = world
        self.workload: Workload | None = None
        self.door = rest_door(world)

        async def app(scope: Any, receive: Any, send: Any) -> None:
            await self.door({**scope, "state": {"workload": self.workload}}, receive, send)

        self.client = httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url=f"http://{HOST}")

    async def call(self, method: str, path: str, key: str = "", **more: Any) -> httpx.Response:
        headers = {**({"authorization": f"Bearer {key}"} if key else {}), **more.pop("headers", {})}
        return await self.client.request(method, f"/api/v1{path}", headers=headers, **more)


@pytest.fixture
async def api(world: World) -> AsyncIterator[Api]:
    made = Api(world)
    async with made.client:
        yield made


async def test_nobody_gets_anything_without_a_credential(api: Api) -> None:
    for route in api.door.routes:
        _, method, path = route.split(" ")
        if path == "/api/openapi.json":
            continue
        place = path.replace("{name}", "x").replace("{project}", "p").replace("{domain}", "d")
        answer = await api.client.request(method, place)
        assert answer.status_code == 401, route
        assert answer.headers["www-authenticate"] == "Bearer"
        assert answer.json()["error"]["code"] == "unauthenticated"
    assert (await api.client.get("/api/v1/nothing-here")).status_code == 401


async def test_every_route_has_its_row_and_every_row_its_route(api: Api) -> None:
    check_complete(api.door.routes)


async def test_the_description_is_open_and_describes_every_route(api: Api) -> None:
    answer = await api.client.get("/api/openapi.json")
    described = {(path, method) for path, item in answer.json()["paths"].items() for method in item}
    for route in api.door.routes:
        _, method, path = route.split(" ")
        assert path == "/api/openapi.json" or (path, method.lower()) in described


async def test_whoami_tells_the_caller_and_how_they_were_known(api: Api) -> None:
    text = await api.world.person("alice", email="alice@example.org")
    who = (await api.call("GET", "/whoami", text)).json()
    assert (who["subject"], who["email"], who["via_app"]) == ("alice", "alice@example.org", "")
    assert who["credential"]["kind"] == "api_key"
    caller = await api.world.who(bearer=text, audience="gateway")
    api.workload = app_socket()
    token = await api.world.grants.exchange(caller, api.workload.id)
    assert (await api.call("GET", "/whoami", token)).json()["via_app"] == api.workload.id
    api.workload = ADMIN_SOCKET
    assert (await api.call("GET", "/whoami")).json()["subject"] == "machine"


async def test_a_key_is_in_the_answer_of_its_making_and_in_no_other(api: Api) -> None:
    text = await api.world.person("alice", "contributor")
    wanted = {"name": "hook", "role": "viewer", "project": "flytesnacks", "expires_in": "30d"}
    made = await api.call("POST", "/keys", text, json=wanted)
    assert made.status_code == 201
    assert made.headers["cache-control"] == "no-store"
    key = made.json()
    assert {
        "id",
        "name",
        "user",
        "key",
        "role",
        "project",
        "domain",
        "created_at",
        "expires_at",
    } <= key.keys()
    assert (key["user"], key["role"], key["domain"]) == ("alice", "viewer", "*")
    secret = key["key"].split("_", 2)[2]
    for path in ("/keys", "/keys/hook"):
        answer = await api.call("GET", path, text)
        assert answer.status_code == 200
        assert secret not in answer.text
        assert "hash" not in answer.text
    assert (await api.call("GET", "/keys/hook", text)).json()["id"] == key["id"]
    assert (await api.call("POST", "/keys", text, json=wanted)).status_code == 409
    assert (await api.call("GET", "/whoami", key["key"])).status_code == 200
    assert (await api.call("DELETE", "/keys/hook", text)).status_code == 200
    assert (await api.call("GET", "/whoami", key["key"])).status_code == 401
    assert (await api.call("GET", "/keys/hook", text)).status_code == 404
    assert (await api.call("POST", "/keys", text, json=wanted)).status_code == 201  # the name is free again


async def test_the_flyte_form_names_the_endpoint_and_works_as_a_bearer(api: Api) -> None:
    text = await api.world.person("alice")
    key = (await api.call("POST", "/keys", text, json={"name": "b64", "format": "flyte"})).json()["key"]
    assert not key.startswith("twr_")
    assert (await api.call("GET", "/whoami", key)).json()["subject"] == "alice"
    assert (await api.call("POST", "/keys", text, json={"name": "c", "format": "x"})).status_code == 400


async def test_anothers_key_and_no_key_are_the_same_bytes(api: Api) -> None:
    bob = await api.world.person("bob", "contributor")
    await api.world.person("alice")
    for method in ("GET", "DELETE"):
        answers = []
        for name in ("alice-key", "nokey-key"):
            answer = await api.call(method, f"/keys/{name}", bob, headers={"x-request-id": "same"})
            assert answer.status_code == 404
            answers.append(answer.content.replace(name.encode(), b"NAME"))
        assert answers[0] == answers[1]
    assert [key["name"] for key in (await api.call("GET", "/keys", bob)).json()["keys"]] == ["bob-key"]
    assert (await api.call("GET", "/keys?user=alice", bob)).status_code == 403
    made = await api.call("POST", "/keys", bob, json={"name": "mine", "user": "alice"})
    assert made.status_code == 403


async def test_only_admins_of_the_whole_installation_manage_people(api: Api) -> None:
    admin = await api.world.bootstrap()
    scoped = await api.world.person("pat", "admin", "flytesnacks")
    nobody = await api.world.person("dave")
    for key, expected in ((admin, 201), (scoped, 403), (nobody, 403)):
        name = f"new-{expected}-{key[-6:].strip('-_')}"
        assert (await api.call("POST", "/users", key, json={"name": name})).status_code == expected
        assert (await api.call("GET", "/users", key)).status_code == (200 if expected == 201 else 403)
        assert (await api.call("GET", "/audit", key)).status_code == (200 if expected == 201 else 403)
        assert (await api.call("POST", "/links", key, json={"user": "dave"})).status_code == expected


async def test_roles_come_and_go_at_the_next_call(api: Api) -> None:
    admin = await api.world.bootstrap()
    dave = await api.world.person("dave")
    assert (await api.call("GET", "/users", dave)).status_code == 403
    given = await api.call("POST", "/bindings", admin, json={"user": "dave", "role": "admin"})
    assert given.status_code == 201
    assert (await api.call("GET", "/users", dave)).status_code == 200
    assert (await api.call("DELETE", "/bindings?user=dave&role=admin", admin)).status_code == 204
    assert (await api.call("DELETE", "/bindings?user=dave&role=admin", admin)).status_code == 404
    assert (await api.call("GET", "/users", dave)).status_code == 403


async def test_tasks_apps_and_limited_keys_make_no_keys(api: Api) -> None:
    text = await api.world.person("alice", "admin")
    alice = await api.world.who(bearer=text, audience="gateway")
    wanted = {"name": "minted"}
    api.workload = app_socket()
    token = await api.world.grants.exchange(alice, api.workload.id)
    assert (await api.call("POST", "/keys", token, json=wanted)).status_code == 403
    assert (await api.call("POST", "/users", token, json=wanted)).status_code == 403
    api.workload = await api.world.running(alice)
    assert (await api.call("POST", "/keys", json=wanted)).status_code == 403
    assert (await api.call("POST", "/users", json=wanted)).status_code == 403
    assert (await api.call("GET", "/whoami")).json()["subject"] == "alice"
    api.workload = None
    for ceiling in ({"role": "viewer"}, {"role": "admin", "project": "flytesnacks"}, {"domain": "staging"}):
        await api.call("POST", "/keys", text, json={"name": "limited", **ceiling})
        limited = await api.world.key("limited-2", "alice", **ceiling)
        assert (await api.call("POST", "/keys", limited, json=wanted)).status_code == 403
        await api.world.api_keys.delete(MACHINE, "limited")
        await api.world.api_keys.delete(MACHINE, "limited-2")
    refused = await api.world.records(event="access.refuse")
    assert len(refused) == 7
    assert any("run:" in record.actors for record in refused)
    assert any("app:" in record.actors for record in refused)


async def test_a_limited_key_makes_no_way_to_sign_in(api: Api) -> None:
    """T35: a session knows nothing of the limits of the key that would have made its link or password."""
    text = await api.world.person("alice", "admin")
    await api.world.person("bob")
    word = {"password": "correct horse battery staple"}
    for ceiling in ({"actions": ["user:manage", "app:manage"]}, {"role": "admin"}):
        limited = await api.world.key("limited", "alice", **ceiling)
        for person in ("alice", "bob"):
            assert (await api.call("POST", "/links", limited, json={"user": person})).status_code == 403
            put = await api.call("PUT", f"/users/{person}/password", limited, json=word)
            assert put.status_code == 403, put.text
        assert (await api.call("GET", "/users", limited)).status_code == 200
        await api.world.api_keys.delete(MACHINE, "limited")
    refused = await api.world.records(event="access.refuse")
    assert {record.decision for record in refused} == {"above-the-credential"}
    assert (await api.call("POST", "/links", text, json={"user": "bob"})).status_code == 201
    # one that somebody else made has its maker's rights, and no limit besides
    made = await api.call("POST", "/keys", text, json={"name": "theirs", "user": "bob"})
    await api.call("POST", "/bindings", text, json={"user": "bob", "role": "admin"})
    assert (await api.call("POST", "/links", made.json()["key"], json={"user": "bob"})).status_code == 201


async def test_what_a_deleted_person_was_signed_in_with_is_over_for_good(api: Api) -> None:
    admin = await api.world.bootstrap()
    await api.world.person("alice")
    code = await api.world.logins.create_link(MACHINE, "alice")
    session = (await api.world.logins.sign_in(code, host="localhost")).text
    cookie = {"headers": {"cookie": f"tower_session={session}", "host": "localhost"}}
    before = await api.call("GET", "/whoami", **cookie)
    unused = await api.world.logins.create_link(MACHINE, "alice")
    assert (await api.call("DELETE", "/users/alice", admin)).status_code == 204
    assert (await api.call("POST", "/users/alice/enable", admin)).status_code == 200
    after = await api.call("GET", "/whoami", **cookie)
    assert (before.status_code, after.status_code) == (200, 401), (before.text, after.text)
    with pytest.raises(Unauthenticated):
        await api.world.logins.sign_in(unused, host="localhost")


async def test_a_key_made_with_an_expiring_key_ends_with_it(api: Api) -> None:
    await api.world.person("alice")
    brief = await api.world.key("brief", "alice", expires_in=3600)
    for wanted in ({}, {"expires_in": "30d"}):
        made = await api.call("POST", "/keys", brief, json={"name": "child", **wanted})
        row = await api.world.api_keys.get(MACHINE, "child")
        assert row.expires_at == api.world.clock.now() + 3600, made.text
        await api.world.api_keys.delete(MACHINE, "child")
    sooner = await api.call("POST", "/keys", brief, json={"name": "child", "expires_in": 60})
    assert sooner.status_code == 201
    assert (await api.world.api_keys.get(MACHINE, "child")).expires_at == api.world.clock.now() + 60


@pytest.mark.parametrize(
    ("path", "body"),
    [
        ("/users", {"name": ""}),
        ("/users", {"name": "a/b"}),
        ("/users", {"name": "x" * 600}),
        ("/users", {"name": "machine"}),
        ("/users", {"name": "eve", "role": "king"}),
        ("/users", {"name": "eve", "role": "viewer", "domain": "nowhere"}),
        ("/users", {"name": "eve", "email": "nobody"}),
        ("/users", {"name": "eve", "display_name": "a\nb"}),
        ("/users", {"name": "eve", "extra": 1}),
        ("/users", {"nom": "eve"}),
        ("/users", []),
        ("/keys", {"name": "k", "user": "admin", "expires_in": "soon"}),
        ("/keys", {"name": "k", "user": "admin", "expires_in": -1}),
        ("/keys", {"name": "k k", "user": "admin"}),
        ("/keys", {"name": "k", "user": "admin", "role": "king"}),
        ("/keys", {"name": "k", "user": "admin", "project": "nowhere"}),
        ("/bindings", {"user": "admin", "role": ""}),
    ],
)
async def test_malformed_requests_name_the_field_and_change_nothing(
    api: Api, path: str, body: object
) -> None:
    admin = await api.world.bootstrap()
    answer = await api.call("POST", path, admin, json=body)
    assert answer.status_code == 400, answer.text
    assert answer.json()["error"]["code"] == "invalid_argument"
    assert await api.world.records(event="user.create", subject="admin") == []
    assert (await api.call("GET", "/users", admin)).json()["users"][0]["name"] == "admin"


async def test_a_body_that_is_no_json_or_too_large_is_refused(api: Api) -> None:
    admin = await api.world.bootstrap()
    assert (await api.call("POST", "/users", admin, content=b"{")).status_code == 400
    large = await api.call("POST", "/users", admin, content=b"x" * (MAX_BODY + 1))
    assert "larger" in large.json()["error"]["message"]

    async def endless() -> AsyncIterator[bytes]:
        for _ in range(MAX_BODY):
            yield b"x" * 1024

    assert (await api.call("POST", "/users", admin, content=endless())).status_code == 400


async def test_each_change_has_its_record_with_who_and_how_and_no_secret(api: Api) -> None:
    admin = await api.world.bootstrap()
    await api.call(
        "POST", "/users", admin, json={"name": "alice", "role": "viewer"}, headers={"x-request-id": "q1"}
    )
    made = await api.call("POST", "/keys", admin, json={"name": "k", "user": "alice"})
    link = await api.call("POST", "/links", admin, json={"user": "alice"})
    await api.call("POST", "/users/alice/disable", admin)
    await api.call("DELETE", "/keys/k", admin)
    answer = await api.call("GET", "/audit?subject=admin", admin)
    records = answer.json()["records"]
    assert [record["event"] for record in records] == [
        "key.delete",
        "user.disable",
        "link.create",
        "key.create",
        "binding.create",
        "user.create",
    ]
    first = records[-1]
    assert (first["outcome"], first["credential_kind"], first["request_id"]) == ("allowed", "api_key", "q1")
    assert first["credential_id"] == admin.split("_")[1]
    assert first["decision"] == "admins-manage"
    assert made.json()["key"] not in answer.text
    assert link.json()["url"].rsplit("/", 1)[1] not in answer.text
    page = (await api.call("GET", "/audit?limit=2", admin)).json()
    following = (await api.call("GET", f"/audit?limit=2&before={page['next']}", admin)).json()
    assert following["records"][0]["seq"] == page["next"] - 1


async def test_a_bug_shows_a_reference_and_nothing_else(api: Api, monkeypatch: pytest.MonkeyPatch) -> None:
    text = await api.world.person("alice")

    def broken(*_: object, **__: object) -> None:
        raise RuntimeError("secret internals")

    monkeypatch.setattr(shapes.Who, "of", broken)
    answer = await api.call("GET", "/whoami", text, headers={"x-request-id": "ref-1"})
    assert answer.status_code == 500
    assert "secret" not in answer.text
    assert "ref-1" in answer.json()["error"]["message"]
    assert answer.headers["x-request-id"] == "ref-1"
    evil = await api.call("GET", "/whoami", text, headers={"x-request-id": 'a b<"'})
    assert "<" not in evil.text


async def test_unknown_paths_and_methods_have_the_same_shape(api: Api) -> None:
    text = await api.world.person("alice")
    for method, path, status in (
        ("GET", "/nothing", 404),
        ("PATCH", "/users", 405),
        ("GET", "/../../etc", 404),
    ):
        answer = await api.call(method, path, text)
        assert answer.status_code == status
        assert set(answer.json()["error"]) == {"code", "message", "hint", "request_id"}


def test_every_code_has_a_status_and_a_bug_never_shows_its_message() -> None:
    assert set(HTTP_STATUS) == set(Code)

    def every(kind: type[Fault]) -> list[type[Fault]]:
        return [kind, *(each for sub in kind.__subclasses__() for each in every(sub))]

    for kind in every(Fault):
        status, body = faults.answer(kind("the message", hint="the hint", cause="the cause"), request_id="q")
        error = json.loads(body)["error"]
        assert "the cause" not in body.decode()
        assert status == HTTP_STATUS[kind.code]
        assert ("the message" in error["message"]) is (kind.code is not Code.INTERNAL)


async def test_a_disabled_admin_is_out_at_once_and_cannot_disable_themselves(api: Api) -> None:
    admin = await api.world.bootstrap()
    assert (await api.call("POST", "/users/admin/disable", admin)).status_code == 409
    await api.world.identities.set_disabled(MACHINE, "admin", disabled=True)
    assert (await api.call("GET", "/users", admin)).status_code == 401


async def test_a_principal_whose_person_is_gone_is_refused_by_access_too(api: Api) -> None:
    from tower.policy.actions import Action, Resource, ResourceType

    alice = await api.world.who(bearer=await api.world.person("alice", "admin"))
    await api.world.identities.set_disabled(MACHINE, "alice", disabled=True)
    decision = await api.world.access.check(alice, Action.SELF_VIEW, Resource(ResourceType.ORG))
    assert not decision.allowed
    ghost = replace(alice, subject="ghost")
    assert not (await api.world.access.check(ghost, Action.SELF_VIEW, Resource(ResourceType.ORG))).allowed
