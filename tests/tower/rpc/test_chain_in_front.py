"""The chain before the services: ids, refusals, limits, and nothing private in an answer."""

from __future__ import annotations

import asyncio
import gzip
import json
import struct

import pytest
import structlog
from connectrpc.code import Code
from flyteidl2.auth import auth_service_pb2, identity_pb2
from flyteidl2.cluster import payload_pb2
from flyteidl2.project import project_service_pb2
from flyteidl2.workflow import run_service_pb2
from tests.rpc_world import RpcWorld, action_id, create_run, problem, refused, task_id

from tower.errors import Code as Class
from tower.policy import actions
from tower.rpc import codes

INFO = "auth.IdentityService/UserInfo"


def test_every_class_of_fault_and_every_code_has_its_place() -> None:
    assert set(codes.WIRE) == set(Class)
    assert set(codes.HTTP) == set(Code)
    assert {wire.value for wire in codes.WIRE.values()} == {code.value for code in Class}


async def test_the_caller_is_who_the_key_says(rpc: RpcWorld) -> None:
    alice = rpc.caller(await rpc.world.person("alice", "viewer", email="a@example.org"))
    answer = await alice.identity.user_info(identity_pb2.UserInfoRequest(), headers=alice.headers)
    assert (answer.subject, answer.name, answer.email) == ("alice", "alice", "a@example.org")
    assert answer.additional_claims["credential_kind"] == "api_key"


@pytest.mark.parametrize(
    "headers",
    [
        {},
        {"authorization": "Bearer nonsense"},
        {"authorization": "Basic YTpi"},
        {"x_forwarded_user": "alice"},
        {"cookie": "tower_session=zzz"},
    ],
)
async def test_without_a_good_credential_every_method_says_401(
    rpc: RpcWorld, headers: dict[str, str]
) -> None:
    for path, row in actions.METHODS.items():
        answer = await rpc.post(path.removeprefix("/flyteidl2."), **headers)
        if row.anonymous:
            assert answer.status_code == 200
        else:
            assert answer.status_code == 401, path
            assert problem(answer)[0] == "unauthenticated"
            assert answer.headers["www-authenticate"] == "Bearer"


async def test_a_refused_stream_says_so_in_its_last_envelope(rpc: RpcWorld) -> None:
    answer = await rpc.http.post(
        f"{rpc.url}/flyteidl2.workflow.RunService/WatchActionDetails",
        headers={"content-type": "application/connect+proto"},
    )
    assert answer.status_code == 200
    assert answer.headers["content-type"] == "application/connect+proto"
    flags, size = struct.unpack(">BI", answer.content[:5])
    assert flags == 2
    assert json.loads(answer.content[5 : 5 + size])["error"]["code"] == "unauthenticated"
    nobody = rpc.caller()
    with refused(Code.UNAUTHENTICATED):
        request = run_service_pb2.WatchActionDetailsRequest(action_id=action_id("r1"))
        async for _ in nobody.runs.watch_action_details(request):
            pass


async def test_anyone_may_ask_which_header_to_send(rpc: RpcWorld) -> None:
    answer = await rpc.post("auth.AuthMetadataService/GetPublicClientConfig")
    config = auth_service_pb2.GetPublicClientConfigResponse.FromString(answer.content)
    assert config.authorization_metadata_key == "authorization"


async def test_select_cluster_never_sends_a_client_elsewhere(rpc: RpcWorld) -> None:
    key = await rpc.world.person("alice")
    answer = await rpc.post("cluster.ClusterService/SelectCluster", authorization=f"Bearer {key}")
    assert not payload_pb2.SelectClusterResponse.FromString(answer.content).cluster_endpoint


async def test_the_request_id_comes_back_when_it_is_sane(rpc: RpcWorld) -> None:
    key = await rpc.world.person("alice")
    bearer = f"Bearer {key}"
    answer = await rpc.post(INFO, authorization=bearer, x_request_id="abc-1")
    assert answer.headers["x-request-id"] == "abc-1"
    assert answer.headers["x-tower"] == "test"
    for odd in ("a b", "x" * 129, ""):
        answer = await rpc.post(INFO, authorization=bearer, x_request_id=odd)
        assert answer.headers["x-request-id"] not in {odd, ""}
    assert (await rpc.post(INFO)).headers["x-request-id"]


async def test_methods_that_are_not_offered_say_so_to_known_callers(rpc: RpcWorld) -> None:
    bearer = f"Bearer {await rpc.world.person('alice', 'admin')}"
    for path, row in actions.METHODS.items():
        if row.action is None and not row.anonymous:
            answer = await rpc.post(path.removeprefix("/flyteidl2."), authorization=bearer)
            assert problem(answer)[0] == "unimplemented", path
    assert (await rpc.post("auth.IdentityService/Nope", authorization=bearer)).status_code == 404


async def test_only_the_protocols_own_requests_are_read(rpc: RpcWorld) -> None:
    bearer = f"Bearer {await rpc.world.person('alice')}"
    assert (await rpc.post(INFO, authorization=bearer, content_type="text/plain")).status_code == 415
    assert (await rpc.post(INFO, authorization=bearer, content_type="application/grpc")).status_code == 415
    url = f"{rpc.url}/flyteidl2.{INFO}?message=e30&encoding=json"
    assert (await rpc.http.get(url, headers={"authorization": bearer})).status_code == 405


@pytest.mark.parametrize("body", [b"\xff\xff\xff", b"\x0a\xff"])
async def test_bytes_that_are_no_message_are_the_callers_mistake(rpc: RpcWorld, body: bytes) -> None:
    bearer = f"Bearer {await rpc.world.person('alice')}"
    answer = await rpc.post("workflow.RunService/CreateRun", body, authorization=bearer)
    assert problem(answer)[0] == "invalid_argument"
    answer = await rpc.post(
        "workflow.RunService/CreateRun", b"{" * 5000, authorization=bearer, content_type="application/json"
    )
    assert problem(answer)[0] == "invalid_argument"


@pytest.mark.parametrize("packed", [False, True], ids=["as it is", "gzip"])
async def test_t45_a_message_as_json_has_few_parts(rpc: RpcWorld, packed: bool) -> None:
    """JSON is read in the time of everybody: a million parts would be seconds for all."""
    bearer = f"Bearer {await rpc.world.person('alice')}"
    headers = {"authorization": bearer, "content_type": "application/json"}
    for part in (b"{}", b"[]"):
        body = b'{"inputs": {"literals": [' + b",".join([part] * 100_000) + b"]}}"
        if packed:
            headers["content_encoding"], body = "gzip", gzip.compress(body, mtime=0)
        answer = await rpc.post("workflow.RunService/CreateRun", body, **headers)
        assert problem(answer)[0] == "resource_exhausted", answer.text
    few = b'{"inputs": {"literals": [' + b",".join([b"{}"] * 100) + b"]}}"
    headers.pop("content_encoding", None)
    assert problem(await rpc.post("workflow.RunService/CreateRun", few, **headers))[0] == "invalid_argument"


async def test_t45_an_answer_as_json_is_no_long_one(rpc: RpcWorld, monkeypatch: pytest.MonkeyPatch) -> None:
    alice = rpc.caller(await rpc.world.person("alice", "contributor"))
    await rpc.deploy(alice)
    monkeypatch.setattr("tower.rpc.wire.LONGEST_ANSWER", 20)
    path, body = "task.TaskService/ListTasks", b"{}"
    answer = await rpc.post(path, body, content_type="application/json", **alice.headers)
    assert problem(answer)[0] == "resource_exhausted", answer.text
    assert (await rpc.post(path, **alice.headers)).status_code == 200


async def test_a_deeply_nested_message_is_the_callers_mistake(rpc: RpcWorld) -> None:
    bearer = f"Bearer {await rpc.world.person('alice')}"
    nested = b""
    for _ in range(2000):  # Literal.collection.literals[0] again and again
        inner = b"\x0a" + _varint(len(nested)) + nested
        nested = b"\x12" + _varint(len(inner)) + inner
    literal = b"\x0a\x01x\x12" + _varint(len(nested)) + nested
    inputs = b"\x0a" + _varint(len(literal)) + literal
    body = b"\x22" + _varint(len(inputs)) + inputs
    answer = await rpc.post("workflow.RunService/CreateRun", body, authorization=bearer)
    assert problem(answer)[0] == "invalid_argument"


async def test_unknown_fields_are_tolerated(rpc: RpcWorld) -> None:
    alice = rpc.caller(await rpc.world.person("alice", "contributor"))
    await rpc.deploy(alice)
    body = create_run(inputs={"x": 1}).SerializeToString() + b"\xfa\x3f\x03new"
    answer = await rpc.post("workflow.RunService/CreateRun", body, **alice.headers)
    assert answer.status_code == 200


class TestSizes:
    @pytest.fixture
    async def rpc(self, tmp_path):  # type: ignore[no-untyped-def]
        async with RpcWorld.opened(tmp_path, max_body=4096) as opened:
            yield opened

    async def test_a_large_body_is_refused(self, rpc: RpcWorld) -> None:
        bearer = f"Bearer {await rpc.world.person('alice')}"
        answer = await rpc.post("workflow.RunService/CreateRun", b"x" * 5000, authorization=bearer)
        assert problem(answer)[0] == "resource_exhausted"

    async def test_a_large_body_of_unknown_length_is_refused(self, rpc: RpcWorld) -> None:
        bearer = f"Bearer {await rpc.world.person('alice')}"

        async def chunks():  # type: ignore[no-untyped-def]
            for _ in range(10):
                yield b"x" * 1000

        answer = await rpc.http.post(
            f"{rpc.url}/flyteidl2.workflow.RunService/CreateRun",
            content=chunks(),
            headers={"content-type": "application/proto", "authorization": bearer},
        )
        assert problem(answer)[0] == "resource_exhausted"

    async def test_a_gzip_bomb_is_refused(self, rpc: RpcWorld) -> None:
        bearer = f"Bearer {await rpc.world.person('alice')}"
        bomb = gzip.compress(bytes(3_000_000))
        assert len(bomb) < 4096
        answer = await rpc.post(
            "workflow.RunService/CreateRun", bomb, authorization=bearer, content_encoding="gzip"
        )
        assert problem(answer)[0] == "resource_exhausted"

    @pytest.mark.parametrize(
        "body",
        [b"no gzip", gzip.compress(b"", mtime=0)[:-3], gzip.compress(b"", mtime=0) * 2],
        ids=["foreign", "cut", "twice"],
    )
    async def test_broken_gzip_is_the_callers_mistake(self, rpc: RpcWorld, body: bytes) -> None:
        bearer = f"Bearer {await rpc.world.person('alice')}"
        answer = await rpc.post(
            "workflow.RunService/CreateRun", body, authorization=bearer, content_encoding="gzip"
        )
        assert problem(answer)[0] == "invalid_argument"


async def test_a_bug_shows_a_reference_and_nothing_else(
    rpc: RpcWorld, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def broken(*_: object, **__: object) -> None:
        raise RuntimeError("secret path /srv/x")

    bearer = f"Bearer {await rpc.world.person('alice', 'contributor')}"
    monkeypatch.setattr(rpc.runs, "launch", broken)
    with structlog.testing.capture_logs() as logs:
        body = create_run(inputs={"x": 1}).SerializeToString()
        answer = await rpc.post("workflow.RunService/CreateRun", body, authorization=bearer)
    code, message = problem(answer)
    assert code == "internal"
    assert "secret" not in answer.text
    entry = next(log for log in logs if log["event"] == "broken")
    assert entry["reference"] in message


async def test_each_call_leaves_one_outcome_and_no_credential(rpc: RpcWorld) -> None:
    key = await rpc.world.person("alice", "contributor")
    alice = rpc.caller(key)
    with structlog.testing.capture_logs() as logs:
        await rpc.deploy(alice)
        run = await rpc.run(alice)
        with refused(Code.NOT_FOUND):
            await rpc.run(alice, name="env.absent")
        await rpc.post(INFO)
        request = run_service_pb2.WatchActionDetailsRequest(action_id=run.action.id)
        stream = alice.runs.watch_action_details(request, headers=alice.headers)
        await anext(stream)
        await stream.aclose()
        async with asyncio.timeout(60):
            while not any(log.get("outcome") == "cancelled" for log in logs):
                await asyncio.sleep(0.01)
    outcomes = [
        (log["method"].rpartition("/")[2], log["outcome"], log["code"])
        for log in logs
        if log["event"] == "rpc"
    ]
    assert outcomes == [
        ("DeployTask", "ok", "ok"),
        ("CreateRun", "ok", "ok"),
        ("CreateRun", "fault", "not_found"),
        ("UserInfo", "fault", "unauthenticated"),
        ("WatchActionDetails", "cancelled", "canceled"),
    ]
    assert key not in repr(logs)
    assert key.split("_", 2)[2] not in repr(logs)


async def test_a_stream_ends_when_its_key_is_deleted(rpc: RpcWorld) -> None:
    from tower.identity.authenticators import MACHINE
    from tower.states import Phase

    alice = rpc.caller(await rpc.world.person("alice", "contributor"))
    await rpc.deploy(alice)
    run = await rpc.run(alice)
    request = run_service_pb2.WatchActionDetailsRequest(action_id=run.action.id)
    stream = alice.runs.watch_action_details(request, headers=alice.headers)
    await anext(stream)
    await rpc.world.api_keys.delete(MACHINE, "alice-key")
    await rpc.move(run.action.id.run.name, Phase.RUNNING)
    with refused(Code.UNAUTHENTICATED):
        await anext(stream)


async def test_gzip_both_ways(rpc: RpcWorld) -> None:
    bearer = f"Bearer {await rpc.world.person('alice')}"
    answer = await rpc.post(
        INFO,
        gzip.compress(b""),
        authorization=bearer,
        content_encoding="gzip",
        accept_encoding="gzip,identity",
    )
    assert answer.headers["content-encoding"] == "gzip"
    assert identity_pb2.UserInfoResponse.FromString(answer.content).subject == "alice"


async def test_the_words_that_make_the_official_client_call_again_are_kept_for_401(rpc: RpcWorld) -> None:
    carol = rpc.caller(await rpc.world.person("carol", "viewer"))
    alice = rpc.caller(await rpc.world.person("alice", "contributor"))
    await rpc.deploy(alice)
    answers = [
        await rpc.post(
            "workflow.RunService/CreateRun", create_run(inputs={"x": 1}).SerializeToString(), **carol.headers
        ),
        await rpc.post(
            "task.TaskService/GetTaskDetails",
            b"\x0a" + bytes([len(t := task_id("none.x").SerializeToString())]) + t,
            **carol.headers,
        ),
        await rpc.post("workflow.RunService/CreateRun", b"", **carol.headers),
    ]
    for answer in answers:
        assert answer.status_code != 401
        assert "unauthorized" not in answer.text.lower()
        assert "unauthenticated" not in answer.text.lower()
        assert problem(answer)[0] not in {"unknown", "internal"}


async def test_projects(rpc: RpcWorld) -> None:
    root = rpc.caller(await rpc.world.person("root", "admin"))
    alice = rpc.caller(await rpc.world.person("alice", "contributor", "flytesnacks"))
    dave = rpc.caller(await rpc.world.person("dave"))
    create = project_service_pb2.CreateProjectRequest(
        project=project_service_pb2.Project(id="science", description="Numbers")
    )
    with refused(Code.PERMISSION_DENIED):
        await alice.projects.create_project(create, headers=alice.headers)
    await root.projects.create_project(create, headers=root.headers)
    with refused(Code.ALREADY_EXISTS, "science"):
        await root.projects.create_project(create, headers=root.headers)

    async def names(caller: object, **more: str) -> list[str]:
        request = project_service_pb2.ListProjectsRequest(**more)
        answer = await caller.projects.list_projects(request, headers=caller.headers)  # type: ignore[attr-defined]
        return [project.id for project in answer.projects.projects]

    assert await names(root) == ["flytesnacks", "science"]
    assert await names(alice, filters="eq(state, 0)") == ["flytesnacks"]
    assert await names(dave) == []
    with refused(Code.NOT_FOUND, "science"):
        request = project_service_pb2.GetProjectRequest(id="science")
        await alice.projects.get_project(request, headers=alice.headers)
    with refused(Code.INVALID_ARGUMENT):
        await names(root, filters="eq(name, 'x') OR 1=1")

    update = project_service_pb2.UpdateProjectRequest(
        project=project_service_pb2.Project(id="science", state=project_service_pb2.PROJECT_STATE_ARCHIVED)
    )
    await root.projects.update_project(update, headers=root.headers)
    assert await names(root) == ["flytesnacks"]
    assert await names(root, filters="eq(state, 1)") == ["science"]
    with refused(Code.FAILED_PRECONDITION, "archived"):
        await rpc.deploy(root, project="science")


def _varint(number: int) -> bytes:
    out = bytearray()
    while number > 0x7F:
        out.append(number & 0x7F | 0x80)
        number >>= 7
    return bytes([*out, number])
