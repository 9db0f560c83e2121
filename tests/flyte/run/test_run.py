from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Iterator
from datetime import timedelta
from typing import Any

import pytest
from flyteidl2.core import types_pb2
from flyteidl2.task import task_service_pb2
from flyteidl2.workflow import run_service_pb2
from tests.flyte.plane import Plane, Raw, Refusal, Seen

from flyte import _init, errors, remote
from flyte._run import run, with_runcontext
from flyte.remote._task import kept

TASKS = "/flyteidl2.task.TaskService/"
CREATE = "/flyteidl2.workflow.RunService/CreateRun"
pytestmark = pytest.mark.usefixtures("bare")


class Deployed:
    """A task on the plane, with integer inputs; `versions` are deployed one after the other."""

    def __init__(self, plane: Plane, /, **inputs: int | None) -> None:
        self.plane = plane
        self.versions = {"v1": inputs}
        self.requests: list[Any] = []
        plane.on(f"{TASKS}GetTaskDetails", self._details)
        plane.on(f"{TASKS}ListTasks", self._list)
        plane.on(CREATE, self._create)

    @property
    def latest(self) -> str:
        return list(self.versions)[-1]

    def _details(self, seen: Seen) -> Any:
        asked = seen.message(task_service_pb2.GetTaskDetailsRequest).task_id
        if asked.version and asked.version not in self.versions:
            return Refusal("not_found", status=404)
        if not asked.version and self.plane.version is None:
            return Refusal("invalid_argument")
        answer = task_service_pb2.GetTaskDetailsResponse()
        details = answer.details
        details.task_id.CopyFrom(asked)
        details.task_id.version = asked.version or self.latest
        for name, default in self.versions[details.task_id.version].items():
            variable = details.spec.task_template.interface.inputs.variables.add(key=name).value
            variable.type.simple = types_pb2.SimpleType.INTEGER
            if default is not None:
                given = details.spec.default_inputs.add(name=name).parameter
                given.default.scalar.primitive.integer = default
        return answer

    def _list(self, _: Seen) -> Any:
        answer = task_service_pb2.ListTasksResponse()
        answer.tasks.add().task_id.version = self.latest
        return answer

    def _create(self, seen: Seen) -> Any:
        request = seen.message(run_service_pb2.CreateRunRequest)
        self.requests.append(request)
        version = request.task_id.version or self.latest
        names = {each.name for each in request.inputs.literals}
        declared = self.versions[version]
        if not names <= set(declared) or any(
            value is None and name not in names for name, value in declared.items()
        ):
            return Refusal("invalid_argument", "Those are not its inputs.")
        answer = run_service_pb2.CreateRunResponse()
        answer.run.action.id.run.project = request.project_id.name or request.run_id.project
        answer.run.action.id.run.domain = request.project_id.domain or request.run_id.domain
        answer.run.action.id.run.name = request.run_id.name or f"r{len(self.requests)}"
        answer.run.action.metadata.task.id.version = version
        answer.run.action.metadata.executed_by.user.id.subject = seen.header("authorization") or ""
        return answer

    def sent(self, index: int = -1) -> dict[str, int]:
        return {
            each.name: each.value.scalar.primitive.integer for each in self.requests[index].inputs.literals
        }


@pytest.fixture(autouse=True)
def as_alice(plane: Plane, bare: pytest.MonkeyPatch) -> Iterator[None]:
    kept.clear()
    _init.init_passthrough(endpoint=plane.url, project="p", domain="d")
    with remote.auth_metadata(("authorization", "alice")):
        yield


@pytest.fixture
def deployed(plane: Plane) -> Deployed:
    return Deployed(plane, x=None)


def task(**options: Any) -> remote.Task:
    return remote.Task.get("env.add", **options)


async def test_r10_r12_r14_a_run_is_started_with_inputs_by_name(plane: Plane, deployed: Deployed) -> None:
    started = await run.aio(task(), x=42)
    assert started.name == "r1"
    assert started.url == f"{plane.url}/v2/domain/d/project/p/runs/r1"
    assert started.executed_by == "alice"
    request = deployed.requests[0]
    assert deployed.sent() == {"x": 42}
    assert (request.task_id.name, request.task_id.version, request.task_id.project) == ("env.add", "", "p")
    assert (request.project_id.name, request.project_id.domain) == ("p", "d")


def test_the_blocking_call(deployed: Deployed) -> None:
    assert run(task(), x=1).name == "r1"


async def test_one_request_when_warm(plane: Plane, deployed: Deployed) -> None:
    await run.aio(task(), x=1)
    plane.seen.clear()
    await run.aio(task(), x=2)
    await run.aio(task(version=None, auto_version="latest"), x=3)
    assert plane.paths() == ["CreateRun", "CreateRun"]


async def test_w8_w9_t23_another_caller_fetches_for_himself(plane: Plane, deployed: Deployed) -> None:
    shared = task(version="v1")
    await run.aio(shared, x=1)
    plane.seen.clear()
    with remote.auth_metadata(("authorization", "bob")):
        await run.aio(shared, x=1)
    assert plane.paths() == ["GetTaskDetails", "CreateRun"]
    assert {seen.header("authorization") for seen in plane.seen} == {"bob"}
    plane.on(f"{TASKS}GetTaskDetails", Refusal("not_found", status=404))
    with remote.auth_metadata(("authorization", "mallory")), pytest.raises(errors.RemoteTaskNotFoundError):
        await run.aio(shared, nonsense=1)


async def test_every_name_may_be_an_input(plane: Plane) -> None:
    names = {
        "task": 1,
        "self": 2,
        "name": 3,
        "project": 4,
        "context": 5,
        "inputs": 6,
        "args": 7,
        "version": 8,
    }
    deployed = Deployed(plane, **dict.fromkeys(names))
    await run.aio(task(), **names)
    assert deployed.sent() == names
    await with_runcontext(name="mine").run.aio(task(), **names)
    assert deployed.sent() == names


@pytest.mark.parametrize(
    ("inputs", "message"),
    [({}, "x"), ({"x": 1, "zz": 2}, "zz"), ({"x": "one"}, "x"), ({"x": None}, "x"), ({"y": 1}, "y")],
)
async def test_r19_r22_wrong_inputs_are_refused_before_anything_is_created(
    plane: Plane, deployed: Deployed, inputs: dict[str, Any], message: str
) -> None:
    with pytest.raises(errors.RemoteTaskUsageError, match=message):
        await run.aio(task(), **inputs)
    assert deployed.requests == []


async def test_r19_inputs_by_position_are_refused(plane: Plane, deployed: Deployed) -> None:
    with pytest.raises(errors.RemoteTaskUsageError, match="by name"):
        await run.aio(task(), 42)
    assert plane.seen == []


async def test_what_is_no_task_is_refused(plane: Plane) -> None:
    with pytest.raises(errors.RemoteTaskUsageError, match=r"Task\.get"):
        await run.aio("env.add", x=1)  # type: ignore[arg-type]


async def test_r18_absent_tasks_and_versions(plane: Plane, deployed: Deployed) -> None:
    with pytest.raises(errors.RemoteTaskNotFoundError):
        await run.aio(task(version="v9"), x=1)
    await run.aio(task(), x=1)
    plane.on(CREATE, Refusal("not_found", status=404))
    with pytest.raises(errors.RemoteTaskNotFoundError):
        await run.aio(task(), x=1)


@pytest.mark.parametrize(
    ("code", "kind"),
    [
        ("permission_denied", errors.PermissionDeniedError),
        ("unauthenticated", errors.UnauthenticatedError),
        ("invalid_argument", errors.RemoteTaskUsageError),
        ("already_exists", errors.AlreadyExistsError),
        ("resource_exhausted", errors.ResourceExhaustedError),
        ("internal", errors.ServerError),
    ],
)
async def test_refusals_keep_their_meaning(
    plane: Plane, deployed: Deployed, code: str, kind: type[Exception]
) -> None:
    plane.on(CREATE, Refusal(code, "because", status=400))
    with pytest.raises(kind, match="because"):
        await run.aio(task(), x=1)
    assert plane.paths().count("CreateRun") == 1


async def test_nothing_is_sent_without_a_caller(plane: Plane, deployed: Deployed) -> None:
    with remote._metadata.without_auth_metadata(), pytest.raises(errors.MissingCallerError):
        await run.aio(task(), x=1)
    assert plane.seen == []


async def test_a_new_interface_of_the_latest_version_is_noticed(plane: Plane, deployed: Deployed) -> None:
    await run.aio(task(), x=1)
    deployed.versions["v2"] = {"y": None}
    plane.seen.clear()
    await run.aio(task(), y=2)  # does not fit what is remembered, fits what is deployed
    assert deployed.sent() == {"y": 2}
    assert plane.paths() == ["GetTaskDetails", "CreateRun"]
    deployed.versions["v3"] = {"z": None}
    with pytest.raises(errors.RemoteTaskUsageError, match="z"):
        await run.aio(task(), y=2)  # fits what is remembered, not what is deployed


async def test_the_defaults_are_those_of_the_version_that_runs(plane: Plane) -> None:
    deployed = Deployed(plane, x=None, y=7)
    await run.aio(task(), x=1)
    assert deployed.sent() == {"x": 1}  # the server fills in what the latest version says
    await run.aio(task(version="v1"), x=1)
    assert deployed.sent() == {"x": 1, "y": 7}


async def test_a_run_is_created_once_however_often_the_line_breaks(plane: Plane, deployed: Deployed) -> None:
    plane.on(CREATE, Raw(hang_up=True), Refusal("unavailable", status=503), plane.handlers[CREATE])
    await run.aio(task(), x=1)
    ids = {seen.header("x-request-id") for seen in plane.seen if seen.path == CREATE}
    assert plane.paths().count("CreateRun") == 3
    assert len(ids) == 1


async def test_another_backend_is_not_asked_twice_for_a_run(plane: Plane, deployed: Deployed) -> None:
    plane.version = None
    plane.on(CREATE, Raw(hang_up=True))
    with pytest.raises(errors.UnavailableError):
        await run.aio(task(), x=1)
    assert plane.paths().count("CreateRun") == 1


async def test_another_backend_is_told_the_version_and_all_inputs(plane: Plane) -> None:
    plane.version = None
    deployed = Deployed(plane, x=None, y=7)
    await run.aio(task(), x=1)
    assert (deployed.requests[-1].task_id.version, deployed.sent()) == ("v1", {"x": 1, "y": 7})
    deployed.versions["v2"] = {"x": None, "y": 8}
    await run.aio(task(), x=1)
    assert (deployed.requests[-1].task_id.version, deployed.sent()) == ("v2", {"x": 1, "y": 8})


async def test_settings_of_a_run(deployed: Deployed) -> None:
    context = with_runcontext(
        project="q", domain="prod", name="nightly", env_vars={"A": "1"}, labels={"team": "red"}
    )
    started = await context.run.aio(task(), x=1)
    request = deployed.requests[-1]
    assert (request.run_id.project, request.run_id.domain, request.run_id.name) == ("q", "prod", "nightly")
    assert (request.task_id.project, request.task_id.domain) == ("p", "d")
    assert {each.key: each.value for each in request.run_spec.envs.values} == {"A": "1"}
    assert dict(request.run_spec.labels.values) == {"team": "red"}
    assert (started.project, started.domain, started.name) == ("q", "prod", "nightly")


async def test_a_grant_of_hours_is_asked_for(deployed: Deployed) -> None:
    await with_runcontext(grant=timedelta(hours=6)).run.aio(task(), x=1)
    assert dict(deployed.requests[-1].run_spec.annotations.values) == {"tower/grant": "21600"}
    await run.aio(task(), x=1)
    assert not deployed.requests[-1].run_spec.HasField("annotations")


async def test_a5_the_tasks_own_place_wins_over_the_default(deployed: Deployed) -> None:
    started = await run.aio(task(project="other", domain="staging"), x=1)
    assert (started.project, started.domain) == ("other", "staging")
    assert (await run.aio(task(), x=1)).project == "p"


async def test_m29_many_callers_at_once_each_run_as_himself(deployed: Deployed) -> None:
    async def start(name: str) -> bool:
        with remote.auth_metadata(("authorization", name)):
            runs = await asyncio.gather(*(run.aio(task(), x=1) for _ in range(3)))
        return {each.executed_by for each in runs} == {name}

    assert all(await asyncio.gather(*(start(f"user-{number}") for number in range(60))))


async def test_begun_as_alice_and_awaited_as_bob_is_alices(deployed: Deployed) -> None:
    begun = run.aio(task(), x=1)
    with remote.auth_metadata(("authorization", "bob")):
        assert (await begun).executed_by == "alice"


async def test_a13_without_init(plane: Plane) -> None:
    _init.reset()
    with pytest.raises(errors.NotInitializedError):
        await run.aio(task(), x=1)


async def test_a_cancelled_run_call_leaves_no_trace_of_its_caller(plane: Plane, deployed: Deployed) -> None:
    call = asyncio.create_task(run.aio(task(), x=1))
    await asyncio.sleep(0)
    call.cancel()
    with contextlib.suppress(asyncio.CancelledError):
        await call
    with remote.auth_metadata(("authorization", "bob")):
        assert (await run.aio(task(), x=1)).executed_by == "bob"
