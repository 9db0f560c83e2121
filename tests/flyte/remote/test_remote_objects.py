from __future__ import annotations

import asyncio
from collections.abc import Iterator

import pytest
from flyteidl2.app import app_definition_pb2, app_logs_payload_pb2, app_payload_pb2
from flyteidl2.auth import identity_pb2
from flyteidl2.core import types_pb2
from flyteidl2.dataproxy import dataproxy_service_pb2
from flyteidl2.project import project_service_pb2
from flyteidl2.task import task_service_pb2
from flyteidl2.workflow import run_definition_pb2, run_service_pb2
from tests.flyte.plane import Plane, Raw, Refusal, Seen, Stream

from flyte import _context, _init, errors, remote
from flyte.remote._task import kept

RUNS = "/flyteidl2.workflow.RunService/"
DATA = "/flyteidl2.dataproxy.DataProxyService/"
TASKS = "/flyteidl2.task.TaskService/"
APPS = "/flyteidl2.app.AppService/"
ME = "/flyteidl2.auth.IdentityService/UserInfo"
pytestmark = pytest.mark.usefixtures("bare")


@pytest.fixture(autouse=True)
def as_alice(plane: Plane, bare: pytest.MonkeyPatch) -> Iterator[None]:
    """Passthrough to the plane, as alice."""
    kept.clear()
    _init.init_passthrough(endpoint=plane.url, project="p", domain="d")
    plane.on(ME, lambda seen: identity_pb2.UserInfoResponse(subject=who(seen), name=""))
    with remote.auth_metadata(("authorization", "alice")):
        yield


def who(seen: Seen) -> str:
    return seen.header("authorization") or ""


def action(phase: str = "RUNNING", *, attempts: int = 1) -> run_definition_pb2.ActionDetails:
    details = run_definition_pb2.ActionDetails()
    run = details.id.run
    run.project, run.domain, run.name = "p", "d", "r1"
    details.id.name = "a0"
    details.metadata.executed_by.user.id.subject = "alice"
    details.metadata.task.id.name, details.metadata.task.id.version = "env.add", "v1"
    details.status.phase = remote.Phase[phase].number
    details.status.attempts = attempts
    details.status.start_time.FromJsonString("2026-01-01T00:00:00Z")
    if remote.Phase[phase].is_terminal:
        details.status.end_time.FromJsonString("2026-01-01T00:00:09Z")
    if phase == "FAILED":
        details.error_info.message = "ValueError: no"
    if phase == "ABORTED":
        details.abort_info.reason = "enough"
    integer = types_pb2.LiteralType(simple=types_pb2.SimpleType.INTEGER)
    interface = details.task.task_template.interface
    interface.inputs.variables.add(key="x").value.type.CopyFrom(integer)
    interface.outputs.variables.add(key="o0").value.type.CopyFrom(integer)
    return details


def on_run(plane: Plane, phase: str = "RUNNING", *, attempts: int = 1) -> None:
    details = action(phase, attempts=attempts)
    whole = run_definition_pb2.RunDetails(action=details)
    whole.run_spec.labels.values["team"] = "red"
    plane.on(f"{RUNS}GetRunDetails", run_service_pb2.GetRunDetailsResponse(details=whole))
    plane.on(f"{RUNS}GetActionDetails", run_service_pb2.GetActionDetailsResponse(details=details))


def states(*phases: str) -> list[run_service_pb2.WatchActionDetailsResponse]:
    return [run_service_pb2.WatchActionDetailsResponse(details=action(phase)) for phase in phases]


async def test_r1_r6_the_user(plane: Plane) -> None:
    user = await remote.User.get.aio()
    assert (user.subject(), user.name(), user.email()) == ("alice", "", "")
    assert user.to_dict() == {"subject": "alice"}
    with remote.auth_metadata(("authorization", "bob")):
        assert (await remote.User.get.aio()).subject() == "bob"


def test_r2_the_user_without_a_loop() -> None:
    assert remote.User.get().subject() == "alice"


async def test_r4_a_bad_credential_raises(plane: Plane) -> None:
    plane.on(ME, Refusal("unauthenticated", status=401))
    with pytest.raises(errors.UnauthenticatedError):
        await remote.User.get.aio()
    assert len(plane.seen) == 1


async def test_a_run_as_it_stands(plane: Plane) -> None:
    on_run(plane, "SUCCEEDED")
    run = await remote.Run.get.aio("r1")
    assert run.name == "r1"
    assert run.phase == "SUCCEEDED"
    assert run.phase is remote.Phase.SUCCEEDED
    assert run.url == f"{plane.url}/v2/domain/d/project/p/runs/r1"
    assert (run.task, run.version, run.executed_by) == ("env.add", "v1", "alice")
    assert run.labels == {"team": "red"}
    assert str(run.created_at) == "2026-01-01 00:00:00+00:00"
    assert str(run.ended_at) == "2026-01-01 00:00:09+00:00"
    assert run.raise_for_status() is run


@pytest.mark.parametrize("code", ["not_found"])
async def test_an_absent_run(plane: Plane, code: str) -> None:
    plane.on(f"{RUNS}GetRunDetails", Refusal(code, status=404))
    with pytest.raises(errors.RemoteRunNotFoundError, match="r9"):
        await remote.Run.get.aio("r9")


async def test_waiting_ends_with_the_run(plane: Plane) -> None:
    on_run(plane)
    run = await remote.Run.get.aio("r1")
    plane.on(f"{RUNS}WatchActionDetails", Stream(states("QUEUED", "RUNNING", "SUCCEEDED")))
    assert (await run.wait.aio()).phase == "SUCCEEDED"
    plane.on(f"{RUNS}WatchActionDetails", Stream(states("RUNNING", "FAILED")))
    seen = [each.phase async for each in run.watch.aio()]
    assert seen == ["RUNNING", "FAILED"]
    with pytest.raises(errors.RunFailedError, match="ValueError: no") as caught:
        run.raise_for_status()
    assert caught.value.run == "r1"


async def test_a_broken_watch_is_taken_up_again_as_the_same_caller(plane: Plane) -> None:
    on_run(plane)
    run = await remote.Run.get.aio("r1")
    plane.on(
        f"{RUNS}WatchActionDetails",
        Stream(states("QUEUED"), hang_up=True),
        Stream(states("RUNNING")),
        Raw(503),
        Stream(states("SUCCEEDED")),
    )
    assert (await run.wait.aio()).done
    assert {who(seen) for seen in plane.seen} == {"alice"}


async def test_a_watch_that_always_breaks_gives_up(plane: Plane) -> None:
    on_run(plane)
    run = await remote.Run.get.aio("r1")
    plane.on(f"{RUNS}WatchActionDetails", Stream([]))
    with pytest.raises(errors.UnavailableError):
        await run.wait.aio()
    assert len(plane.seen) == 7


async def test_a_watch_ends_when_the_credential_does(plane: Plane) -> None:
    on_run(plane)
    run = await remote.Run.get.aio("r1")
    plane.on(
        f"{RUNS}WatchActionDetails",
        Stream(states("RUNNING"), hang_up=True),
        Refusal("unauthenticated", status=401),
    )
    with pytest.raises(errors.UnauthenticatedError):
        await run.wait.aio()
    assert len(plane.seen) == 3


async def test_waiting_has_a_limit(plane: Plane) -> None:
    on_run(plane)
    run = await remote.Run.get.aio("r1")
    plane.on(f"{RUNS}WatchActionDetails", Stream(states("RUNNING")))
    with pytest.raises(TimeoutError):
        await run.wait.aio(timeout=0)


async def test_inputs_and_outputs(plane: Plane) -> None:
    on_run(plane, "SUCCEEDED")
    answer = dataproxy_service_pb2.GetActionDataResponse()
    answer.inputs.literals.add(name="x").value.scalar.primitive.integer = 4
    answer.outputs.literals.add(name="o0").value.scalar.primitive.integer = 5
    plane.on(f"{DATA}GetActionData", answer)
    run = await remote.Run.get.aio("r1")
    assert await run.inputs.aio() == {"x": 4}
    outputs = await run.outputs.aio()
    assert outputs == (5,)
    assert outputs.named == {"o0": 5}
    whole = await run.to_dict.aio()
    assert (whole["outputs"], whole["phase"], whole["error"]) == ({"o0": 5}, "SUCCEEDED", None)
    assert {"name", "url", "task", "version", "executed_by", "via_app", "created_at", "started_at"} <= set(
        whole
    )
    plane.on(f"{DATA}GetActionData", Refusal("permission_denied", status=403))
    with remote.auth_metadata(("authorization", "bob")), pytest.raises(errors.PermissionDeniedError):
        await run.outputs.aio()


@pytest.mark.parametrize(
    ("phase", "error"),
    [
        ("FAILED", errors.RunFailedError),
        ("ABORTED", errors.RunAbortedError),
        ("TIMED_OUT", errors.RunTimedOutError),
        ("RUNNING", errors.FailedPreconditionError),
    ],
)
async def test_outputs_of_what_did_not_succeed(plane: Plane, phase: str, error: type[Exception]) -> None:
    on_run(plane, phase)
    run = await remote.Run.get.aio("r1")
    with pytest.raises(error):
        await run.outputs.aio()


def tail(*texts: str) -> dataproxy_service_pb2.TailLogsResponse:
    answer = dataproxy_service_pb2.TailLogsResponse()
    batch = answer.logs.add()
    for text in texts:
        batch.lines.add(message=text, originator=1)
    return answer


async def test_logs(plane: Plane) -> None:
    on_run(plane, "SUCCEEDED", attempts=2)
    plane.on(f"{DATA}TailLogs", Stream([tail("one\n", "two\n"), tail("three")]))
    run = await remote.Run.get.aio("r1")
    lines = [line async for line in run.logs.aio()]
    assert [str(line) for line in lines] == ["one", "two", "three"]
    assert lines[0].source == "user"
    assert plane.seen[-1].message(dataproxy_service_pb2.TailLogsRequest).attempt == 2
    assert [str(line) for line in run.logs(attempt=1)] == ["one", "two", "three"]


async def test_what_a_run_has_written_so_far(plane: Plane, monkeypatch: pytest.MonkeyPatch) -> None:
    """The server may take its time: a mark says that this is all, not a pause."""
    monkeypatch.setattr("flyte.remote._logs._QUIET_SECONDS", 0.0)
    on_run(plane, "RUNNING")
    mark = dataproxy_service_pb2.TailLogsResponse()
    plane.on(f"{DATA}TailLogs", Stream([tail("one\n"), tail("two\n"), mark], stays=True))
    run = await remote.Run.get.aio("r1")
    async with asyncio.timeout(60):
        assert [str(line) async for line in run.logs.aio(follow=False)] == ["one", "two"]
    plane.on(f"{DATA}TailLogs", Stream([tail("one\n"), mark, tail("two\n")]))
    assert [str(line) async for line in run.logs.aio()] == ["one", "two"]


async def test_another_server_has_no_mark(plane: Plane, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("flyte.remote._logs._QUIET_SECONDS", 0.0)
    plane.version = None
    on_run(plane, "RUNNING")
    plane.on(f"{DATA}TailLogs", Stream([tail("one\n")], stays=True))
    run = await remote.Run.get.aio("r1")
    async with asyncio.timeout(60):
        assert [str(line) async for line in run.logs.aio(follow=False)] in ([], ["one"])


async def test_logs_of_a_run_that_has_not_begun(plane: Plane) -> None:
    on_run(plane, "QUEUED", attempts=0)
    plane.on(f"{DATA}TailLogs", Stream([tail("one")]))
    plane.on(f"{RUNS}WatchActionDetails", Stream(states("RUNNING", "SUCCEEDED")))
    run = await remote.Run.get.aio("r1")
    assert [line async for line in run.logs.aio(follow=False)] == []
    assert [str(line) async for line in run.logs.aio()] == ["one"]


async def test_abort(plane: Plane) -> None:
    on_run(plane)
    plane.on(f"{RUNS}AbortRun", run_service_pb2.AbortRunResponse())
    run = await remote.Run.get.aio("r1")
    await run.abort.aio("too late")
    request = plane.seen[-1].message(run_service_pb2.AbortRunRequest)
    assert (request.run_id.name, request.reason) == ("r1", "too late")


def listing(plane: Plane) -> None:
    def page(seen: Seen) -> run_service_pb2.ListRunsResponse:
        request = seen.message(run_service_pb2.ListRunsRequest).request
        start = int(request.token or 0)
        answer = run_service_pb2.ListRunsResponse(token=str(start + 2) if start < 4 else "")
        for number in range(start, start + min(2, request.limit)):
            answer.runs.add().action.id.run.name = f"r{number}"
        return answer

    plane.on(f"{RUNS}ListRuns", page)


async def test_g12_listing_runs(plane: Plane) -> None:
    listing(plane)
    assert [run.name async for run in remote.Run.listall.aio()] == [f"r{number}" for number in range(6)]
    assert [run.name for run in remote.Run.listall(limit=3)] == ["r0", "r1", "r2"]
    found = [
        run async for run in remote.Run.listall.aio(only_mine=True, phase=["RUNNING", "queued"], limit=1)
    ]
    assert len(found) == 1
    request = plane.seen[-1].message(run_service_pb2.ListRunsRequest)
    filters = {each.field: list(each.values) for each in request.request.filters}
    assert filters == {"created_by": ["alice"], "phase": ["4", "1"]}
    assert (request.project_id.name, request.project_id.domain) == ("p", "d")
    assert [run async for run in remote.Run.listall.aio(only_mine=True, created_by="bob")] == []


@pytest.mark.parametrize("phase", ["DONE", [], ["RUNNING", "x"]])
async def test_a_phase_that_is_none(phase: object) -> None:
    with pytest.raises(ValueError, match="QUEUED"):
        _ = [run async for run in remote.Run.listall.aio(phase=phase)]  # type: ignore[arg-type]


def on_task(plane: Plane, version: str = "v1") -> None:
    def details(seen: Seen) -> task_service_pb2.GetTaskDetailsResponse:
        asked = seen.message(task_service_pb2.GetTaskDetailsRequest).task_id
        answer = task_service_pb2.GetTaskDetailsResponse()
        answer.details.task_id.CopyFrom(asked)
        answer.details.task_id.version = asked.version or version
        return answer

    plane.on(f"{TASKS}GetTaskDetails", details)


def test_r7_r8_r9_naming_a_task_does_nothing() -> None:
    _init.reset()
    assert remote.Task.get("env.add").version is None
    assert remote.Task.get(project="p", domain="d", name="env.add", version="v1").version == "v1"
    assert remote.Task.get("env.add", version=None, auto_version="latest").version is None
    assert remote.Task.get("env.add", version="").version is None
    with pytest.raises(ValueError, match="not both"):
        remote.Task.get("env.add", version="v1", auto_version="latest")
    with pytest.raises(ValueError, match="latest"):
        remote.Task.get("env.add", auto_version="newest")
    with pytest.raises(ValueError, match="inside of a task"):
        remote.Task.get("env.add", auto_version="current")
    with pytest.raises(ValueError, match="name"):
        remote.Task.get("")
    context = _context.TaskContext(project="p", domain="d", run="r", version="v7")
    with _context.task_scope(context):
        assert remote.Task.get("env.add", auto_version="current").version == "v7"


async def test_the_details_of_a_task(plane: Plane) -> None:
    on_task(plane)
    details = await remote.Task.get("env.add").fetch.aio()
    assert (details.name, details.version, details.project, details.domain) == ("env.add", "v1", "p", "d")
    assert details.interface.inputs == ()
    request = plane.seen[0].message(task_service_pb2.GetTaskDetailsRequest)
    assert request.task_id.version == ""
    assert (await remote.Task.get("env.add", version="v0", project="q").fetch.aio()).version == "v0"


async def test_r18_r21_an_absent_task(plane: Plane) -> None:
    plane.on(f"{TASKS}GetTaskDetails", Refusal("not_found", status=404))
    with pytest.raises(errors.RemoteTaskNotFoundError, match=r"env.add in version v9 in p/d"):
        await remote.Task.get("env.add", version="v9").fetch.aio()
    with pytest.raises(errors.RemoteTaskNotFoundError):
        remote.Task.get("env.add").fetch()


async def test_the_latest_version_on_another_backend(plane: Plane) -> None:
    plane.version = None
    on_task(plane)
    listed = task_service_pb2.ListTasksResponse()
    listed.tasks.add().task_id.version = "v5"
    plane.on(f"{TASKS}GetTaskDetails", Refusal("invalid_argument"), plane.handlers[f"{TASKS}GetTaskDetails"])
    plane.on(f"{TASKS}ListTasks", listed)
    task = remote.Task.get("env.add")
    assert (await task.fetch.aio()).version == "v5"
    assert (await task.fetch.aio()).version == "v5"
    assert plane.paths() == ["GetTaskDetails", "ListTasks", "GetTaskDetails", "ListTasks"]
    plane.on(f"{TASKS}ListTasks", task_service_pb2.ListTasksResponse())
    with pytest.raises(errors.RemoteTaskNotFoundError):
        await task.fetch.aio()


async def test_calling_a_deployed_task_as_a_function() -> None:
    with pytest.raises(errors.RemoteTaskUsageError, match=r"flyte\.run"):
        remote.Task.get("env.add")(x=1)


async def test_listing_tasks(plane: Plane) -> None:
    listed = task_service_pb2.ListTasksResponse()
    each = listed.tasks.add()
    each.task_id.name, each.task_id.version, each.task_id.project = "env.add", "v1", "p"
    each.metadata.deployed_by.user.id.subject = "alice"
    plane.on(f"{TASKS}ListTasks", listed)
    (task,) = [each async for each in remote.Task.listall.aio(by_task_env="env")]
    assert (task.name, task.version, task.to_dict()["deployed_by"]) == ("env.add", "v1", "alice")
    (one,) = plane.seen[-1].message(task_service_pb2.ListTasksRequest).request.filters
    assert (one.field, list(one.values)) == ("name", ["env."])


def an_app(status: str = "ACTIVE") -> app_definition_pb2.App:
    app = app_definition_pb2.App()
    app.metadata.id.project, app.metadata.id.domain, app.metadata.id.name = "p", "d", "webhook"
    app.metadata.revision = 3
    app.spec.profile.short_description = "runs tasks"
    app.status.ingress.public_url = "http://webhook.apps.localhost"
    condition = app.status.conditions.add(message="so it is")
    condition.deployment_status = app_definition_pb2.Status.DeploymentStatus.Value(
        f"DEPLOYMENT_STATUS_{status}"
    )
    return app


async def test_p12_apps(plane: Plane) -> None:
    plane.on(f"{APPS}Get", app_payload_pb2.GetResponse(app=an_app()))
    plane.on(f"{APPS}List", app_payload_pb2.ListResponse(apps=[an_app()]))
    plane.on(
        f"{APPS}Update",
        lambda seen: app_payload_pb2.UpdateResponse(app=seen.message(app_payload_pb2.UpdateRequest).app),
    )
    plane.on(f"{APPS}Delete", app_payload_pb2.DeleteResponse())
    app = await remote.App.get.aio("webhook")
    assert (app.name, app.status, app.description, app.revision) == ("webhook", "ACTIVE", "runs tasks", 3)
    assert app.requires_auth
    assert app.endpoint == "http://webhook.apps.localhost"
    assert [each.name async for each in remote.App.listall.aio()] == ["webhook"]
    await app.stop.aio()
    assert app.desired_state == "STOPPED"
    await app.delete.aio()
    assert plane.paths() == ["Get", "List", "Get", "Update", "Delete"]


async def test_waiting_for_an_app(plane: Plane) -> None:
    plane.on(f"{APPS}Get", app_payload_pb2.GetResponse(app=an_app("PENDING")))
    app = await remote.App.get.aio("webhook")

    def events(*statuses: str) -> Stream:
        first = app_payload_pb2.WatchResponse(
            create_event=app_payload_pb2.CreateEvent(app=an_app(statuses[0]))
        )
        later = [
            app_payload_pb2.WatchResponse(update_event=app_payload_pb2.UpdateEvent(updated_app=an_app(each)))
            for each in statuses[1:]
        ]
        return Stream([first, *later])

    plane.on(f"{APPS}Watch", events("PENDING", "DEPLOYING", "ACTIVE"))
    assert (await app.wait.aio()).status == "ACTIVE"
    plane.on(f"{APPS}Watch", events("PENDING", "FAILED"))
    with pytest.raises(errors.DeploymentError, match="so it is"):
        await app.wait.aio()


async def test_the_logs_of_an_app(plane: Plane) -> None:
    plane.on(f"{APPS}Get", app_payload_pb2.GetResponse(app=an_app()))
    answer = app_logs_payload_pb2.TailLogsResponse()
    batch = answer.batches.logs.add()
    batch.structured_lines.add(message="hello\n")
    plane.on("/flyteidl2.app.AppLogsService/TailLogs", Stream([answer]))
    app = await remote.App.get.aio("webhook")
    assert [str(line) async for line in app.logs.aio()] == ["hello"]
    assert [str(line) async for line in app.logs.aio(follow=False)] == ["hello"]


async def test_what_an_app_has_written_so_far(plane: Plane, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("flyte.remote._logs._QUIET_SECONDS", 0.0)
    plane.on(f"{APPS}Get", app_payload_pb2.GetResponse(app=an_app()))
    answer, mark = app_logs_payload_pb2.TailLogsResponse(), app_logs_payload_pb2.TailLogsResponse()
    answer.batches.logs.add().structured_lines.add(message="hello\n")
    mark.batches.SetInParent()
    plane.on("/flyteidl2.app.AppLogsService/TailLogs", Stream([answer, mark], stays=True))
    app = await remote.App.get.aio("webhook")
    async with asyncio.timeout(60):
        assert [str(line) async for line in app.logs.aio(follow=False)] == ["hello"]


async def test_an_absent_app(plane: Plane) -> None:
    plane.on(f"{APPS}Get", Refusal("not_found", status=404))
    with pytest.raises(errors.RemoteAppNotFoundError):
        await remote.App.get.aio("nothing")


async def test_projects(plane: Plane) -> None:
    project = project_service_pb2.Project(id="flytesnacks", name="Snacks")
    project.domains.add(id="development")
    service = "/flyteidl2.project.ProjectService/"
    plane.on(f"{service}GetProject", project_service_pb2.GetProjectResponse(project=project))
    listed = project_service_pb2.ListProjectsResponse()
    listed.projects.projects.append(project)
    plane.on(f"{service}ListProjects", listed)
    assert (await remote.Project.get.aio("flytesnacks")).domains == ("development",)
    assert [each.name for each in remote.Project.listall()] == ["flytesnacks"]
