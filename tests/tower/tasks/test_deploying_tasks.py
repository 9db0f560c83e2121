"""Versions that never change, the latest, and what may be declared."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from connectrpc.code import Code
from flyteidl2.common import list_pb2
from flyteidl2.task import task_service_pb2
from tests.rpc_world import Caller, RpcWorld, listing, project_id, refused, task_id, task_spec

from tower.identity.authenticators import MACHINE
from tower.store import definitions

F = list_pb2.Filter.Function


async def _details(caller: Caller, name: str = "env.main", version: str = "") -> object:
    answer = await caller.tasks.get_task_details(
        task_service_pb2.GetTaskDetailsRequest(task_id=task_id(name, version)), headers=caller.headers
    )
    return answer.details


async def _names(caller: Caller, **request: object) -> list[tuple[str, str]]:
    answer = await caller.tasks.list_tasks(
        task_service_pb2.ListTasksRequest(project_id=project_id(), request=listing(**request)),
        headers=caller.headers,
    )
    return [(task.task_id.name, task.task_id.version) for task in answer.tasks]


async def _send(caller: Caller, spec: object, version: str = "v1", name: str = "env.main") -> None:
    request = task_service_pb2.DeployTaskRequest(task_id=task_id(name, version), spec=spec)
    await caller.tasks.deploy_task(request, headers=caller.headers)


async def test_a_version_is_stored_with_its_deployer(rpc: RpcWorld) -> None:
    alice = rpc.caller(await rpc.world.person("alice", "contributor"))
    await rpc.deploy(alice)
    details = await _details(alice)
    assert details.metadata.deployed_by.user.id.subject == "alice"
    assert details.metadata.environment_name == "env"
    assert details.metadata.HasField("deployed_at")
    assert details.spec.task_template.id.version == "v1"
    (record,) = await rpc.world.records(event="task.deploy")
    assert record.subject == "alice"


async def test_the_same_again_changes_nothing_and_other_content_is_refused(rpc: RpcWorld) -> None:
    alice = rpc.caller(await rpc.world.person("alice", "contributor"))
    bob = rpc.caller(await rpc.world.person("bob", "contributor"))
    await rpc.deploy(alice)
    await asyncio.gather(*(rpc.deploy(bob) for _ in range(5)))
    assert (await _details(bob)).metadata.deployed_by.user.id.subject == "alice"
    assert len(await rpc.world.records(event="task.deploy")) == 1
    with refused(Code.ALREADY_EXISTS, "v1"):
        await rpc.deploy(bob, default="other")


async def test_the_latest_is_seen_at_once_by_everyone(rpc: RpcWorld) -> None:
    alice = rpc.caller(await rpc.world.person("alice", "contributor"))
    await rpc.deploy(alice, version="b")
    assert (await _details(alice)).task_id.version == "b"
    await rpc.deploy(alice, version="a")
    assert (await _details(alice)).task_id.version == "a"
    await rpc.deploy(alice, version="b")  # a repeat does not make it the latest
    assert (await _details(alice)).task_id.version == "a"


async def test_lists_show_the_latest_of_each_and_versions_show_all(rpc: RpcWorld) -> None:
    alice = rpc.caller(await rpc.world.person("alice", "contributor"))
    for name, version in (("env.a", "1"), ("env.b", "1"), ("env.a", "2"), ("other.c", "1")):
        await rpc.deploy(alice, name=name, version=version)
    newest = ("created_at", list_pb2.Sort.DESCENDING)
    assert await _names(alice, sort=newest) == [("other.c", "1"), ("env.a", "2"), ("env.b", "1")]
    assert await _names(alice, limit=1, sort=newest, filters=[(F.EQUAL, "name", "env.a")]) == [("env.a", "2")]
    assert await _names(alice, filters=[(F.CONTAINS, "name", "env.")], sort=("name", 1)) == [
        ("env.a", "2"),
        ("env.b", "1"),
    ]
    assert await _names(alice, filters=[(F.EQUAL, "name", "env.none")]) == []
    assert await _names(alice, filters=[(F.EQUAL, "version", "1"), (F.EQUAL, "name", "env.a")]) == [
        ("env.a", "1")
    ]
    versions = await alice.tasks.list_versions(
        task_service_pb2.ListVersionsRequest(task_name=_task_name("env.a"), request=listing()),
        headers=alice.headers,
    )
    assert [each.version for each in versions.versions] == ["2", "1"]
    with refused(Code.INVALID_ARGUMENT):
        await _names(alice, sort=("spec", list_pb2.Sort.ASCENDING))


async def _counts(caller: Caller, **request: object) -> tuple[int, int]:
    answer = await caller.tasks.list_tasks(
        task_service_pb2.ListTasksRequest(project_id=project_id(), request=listing(**request)),
        headers=caller.headers,
    )
    return answer.metadata.total, answer.metadata.filtered_total


async def test_counts_are_of_what_the_caller_may_view(rpc: RpcWorld) -> None:
    alice = rpc.caller(await rpc.world.person("alice", "contributor"))
    for name, version in (("env.a", "1"), ("env.b", "1"), ("env.a", "2"), ("other.c", "1")):
        await rpc.deploy(alice, name=name, version=version)
    assert await _counts(alice) == (3, 3)
    assert await _counts(alice, limit=1) == (3, 3), "of all pages"
    assert await _counts(alice, filters=[(F.CONTAINS, "name", "env.")]) == (3, 2)
    assert await _counts(alice, filters=[(F.EQUAL, "version", "1"), (F.EQUAL, "name", "env.a")]) == (4, 1)
    assert await _counts(alice, filters=[(F.NOT_EQUAL, "version", "none")]) == (4, 4), "of all versions"
    dave = rpc.caller(await rpc.world.person("dave"))
    assert await _counts(dave) == (0, 0)
    await rpc.world.identities.add_binding(
        MACHINE,
        subject="dave",
        role="viewer",
        project=project_id().name,
        domain=project_id().domain,
        kind="task",
        name="env.b",
    )
    assert await _counts(dave) == (1, 1)
    assert await _counts(dave, filters=[(F.CONTAINS, "name", "other")]) == (1, 0)


async def test_only_what_a_page_does_not_tell_is_counted(
    rpc: RpcWorld, monkeypatch: pytest.MonkeyPatch
) -> None:
    alice = rpc.caller(await rpc.world.person("alice", "contributor"))
    for name in ("env.a", "env.b", "env.c"):
        await rpc.deploy(alice, name=name)
    counts = []
    count_tasks = definitions.count_tasks

    def counting(*arguments: Any, **options: Any) -> int:
        counts.append(count_tasks(*arguments, **options))
        return counts[-1]

    monkeypatch.setattr(definitions, "count_tasks", counting)
    few = [(F.NOT_EQUAL, "name", "env.b")]
    assert (await _counts(alice), counts) == ((3, 3), [])
    assert (await _counts(alice, filters=few), counts) == ((3, 2), [3])
    counts.clear()
    assert (await _counts(alice, limit=2), counts) == ((3, 3), [3])
    first = await alice.tasks.list_tasks(
        task_service_pb2.ListTasksRequest(project_id=project_id(), request=listing(limit=2)),
        headers=alice.headers,
    )
    assert await _counts(alice, limit=2, token=first.token) == (3, 3), "of the last page too"


async def test_hidden_tasks_are_not_there(rpc: RpcWorld) -> None:
    alice = rpc.caller(await rpc.world.person("alice", "contributor"))
    dave = rpc.caller(await rpc.world.person("dave"))
    await rpc.deploy(alice)
    assert await _names(dave) == []
    with refused(Code.NOT_FOUND, "env.main"):
        await _details(dave)
    with refused(Code.NOT_FOUND):
        request = task_service_pb2.ListVersionsRequest(task_name=_task_name("env.main"))
        await dave.tasks.list_versions(request, headers=dave.headers)
    with refused(Code.NOT_FOUND):
        await rpc.deploy(dave, version="v2")


async def test_a_viewer_may_not_deploy(rpc: RpcWorld) -> None:
    carol = rpc.caller(await rpc.world.person("carol", "viewer"))
    with refused(Code.PERMISSION_DENIED, "task:register"):
        await rpc.deploy(carol)


@pytest.mark.parametrize(
    ("change", "code", "word"),
    [
        (lambda s: s.task_template.ClearField("container"), Code.UNIMPLEMENTED, "container"),
        (
            lambda s: s.task_template.container.env.add(key="FLYTE_AGENT_SOCKET", value="/x"),
            None,
            "FLYTE_AGENT",
        ),
        (lambda s: s.task_template.container.env.add(key="A=B", value="/x"), None, "variable"),
        (
            lambda s: setattr(s.task_template.metadata, "code_bundle_uri", "file:///etc/passwd"),
            None,
            "bundle",
        ),
        (
            lambda s: setattr(
                s.task_template.metadata,
                "code_bundle_uri",
                f"tower://bundles/other/development/{'0' * 32}/x.tar.gz",
            ),
            None,
            "another project",
        ),
        (
            lambda s: setattr(
                s.task_template.metadata,
                "code_bundle_uri",
                f"tower://bundles/flytesnacks/development/{'0' * 32}/x.tar.gz",
            ),
            None,
            "not there",
        ),
        (lambda s: setattr(s.task_template.metadata.retries, "retries", 10_000), None, "at most"),
        (lambda s: setattr(s, "short_name", "x" * 64), None, "63"),
        (
            lambda s: setattr(s.task_template.security_context.run_as, "k8s_service_account", "root"),
            Code.UNIMPLEMENTED,
            "run_as",
        ),
        (lambda s: s.task_template.security_context.secrets.add(key="k"), Code.INVALID_ARGUMENT, "secret k"),
        (
            lambda s: setattr(s.documentation, "short_description", "x" * 2_000_000),
            Code.RESOURCE_EXHAUSTED,
            "larger",
        ),
    ],
)
async def test_what_may_not_be_declared(rpc: RpcWorld, change, code, word) -> None:  # type: ignore[no-untyped-def]
    alice = rpc.caller(await rpc.world.person("alice", "contributor"))
    spec = task_spec()
    change(spec)
    with refused(code or Code.INVALID_ARGUMENT, word):
        await _send(alice, spec)
    assert await _names(alice) == []


@pytest.mark.parametrize(
    ("name", "version"),
    [("", "v1"), ("a/b", "v1"), ("x" * 300, "v1"), ("e.m", ""), ("e.m", "v 1"), ("e.m", "../x")],
)
async def test_names_and_versions_are_plain(rpc: RpcWorld, name: str, version: str) -> None:
    alice = rpc.caller(await rpc.world.person("alice", "contributor"))
    with refused(Code.INVALID_ARGUMENT):
        await _send(alice, task_spec(), version=version, name=name)


async def test_an_unknown_project_takes_no_tasks(rpc: RpcWorld) -> None:
    root = rpc.caller(await rpc.world.person("root", "admin"))
    with refused(Code.NOT_FOUND, "project nowhere"):
        await rpc.deploy(root, project="nowhere")
    with refused(Code.INVALID_ARGUMENT, "development"):
        await rpc.deploy(root, domain="moon")


async def test_the_identifier_inside_the_specification_is_towers(rpc: RpcWorld) -> None:
    alice = rpc.caller(await rpc.world.person("alice", "contributor"))
    spec = task_spec()
    spec.task_template.id.project = "forged"
    await _send(alice, spec)
    assert (await _details(alice)).spec.task_template.id.project == "flytesnacks"


def _task_name(name: str) -> object:
    from flyteidl2.task import task_definition_pb2

    return task_definition_pb2.TaskName(project="flytesnacks", domain="development", name=name)
