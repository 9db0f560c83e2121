"""A control plane for the command line: a few runs and tasks, API keys, and a record of what was asked.

It speaks the wire itself: Connect calls and streams, and the JSON of the administration API.
"""

from __future__ import annotations

import json
import struct
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from flyteidl2.app import app_payload_pb2
from flyteidl2.auth import identity_pb2
from flyteidl2.core import interface_pb2, literals_pb2, types_pb2
from flyteidl2.dataproxy import dataproxy_service_pb2 as data
from flyteidl2.task import common_pb2, task_definition_pb2, task_service_pb2
from flyteidl2.workflow import run_definition_pb2, run_service_pb2

RUNS = "/flyteidl2.workflow.RunService/"
TASKS = "/flyteidl2.task.TaskService/"
PHASES = {"SUCCEEDED": 5, "FAILED": 6, "ABORTED": 7, "RUNNING": 4}

Reply = tuple[int, bytes, str]


class RefusalError(Exception):
    """An answer with a status and a code."""

    def __init__(self, status: int, code: str, message: str) -> None:
        super().__init__(message)
        self.status, self.code, self.message = status, code, message


def missing(what: str) -> RefusalError:
    return RefusalError(404, "not_found", f"{what} does not exist.")


@dataclass
class FakeTower:
    """The state, and the ASGI app over it. Keys are named after who they belong to."""

    callers: dict[str, str] = field(
        default_factory=lambda: {"twr_alice_key": "alice", "twr_carol_key": "carol"}
    )
    runs: dict[str, str] = field(default_factory=lambda: {"r1": "SUCCEEDED", "r2": "FAILED"})
    keys: dict[str, dict[str, Any]] = field(default_factory=dict)
    asked: list[tuple[str, Any]] = field(default_factory=list)
    url: str = ""

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] == "lifespan":
            while True:
                message = await receive()
                await send({"type": f"{message['type']}.complete"})
                if message["type"] == "lifespan.shutdown":
                    return
        body, more = b"", True
        while more:
            message = await receive()
            body, more = body + message.get("body", b""), message.get("more_body", False)
        headers = {key.decode(): value.decode() for key, value in scope["headers"]}
        try:
            caller = self.callers.get(headers.get("authorization", "").removeprefix("Bearer "))
            if caller is None:
                raise RefusalError(401, "unauthenticated", "The credential is not known.")
            status, content, kind = self._answer(scope["method"], scope["path"], body, caller)
        except RefusalError as refusal:
            told: dict[str, Any] = {"code": refusal.code, "message": refusal.message}
            if scope["path"].startswith("/api/"):
                told = {"error": {**told, "hint": "", "request_id": "x"}}
            status, content, kind = refusal.status, json.dumps(told).encode(), "application/json"
        start = [
            (b"content-type", kind.encode()),
            (b"x-tower", b"0"),
            (b"content-length", str(len(content)).encode()),
        ]
        await send({"type": "http.response.start", "status": status, "headers": start})
        await send({"type": "http.response.body", "body": content})

    def _answer(self, method: str, path: str, body: bytes, caller: str) -> Reply:
        if path.startswith("/api/v1/keys"):
            return self._rest(method, path.removeprefix("/api/v1/keys").strip("/"), body, caller)
        request, work, streams = self._calls(caller)[path]
        parsed = request.FromString(body[5:] if streams else body)
        self.asked.append((path.rpartition("/")[2], parsed))
        answer = work(parsed)
        if not streams:
            return 200, answer.SerializeToString(), "application/proto"
        frames = b"".join(_frame(0, each.SerializeToString()) for each in answer) + _frame(2, b"{}")
        return 200, frames, "application/connect+proto"

    def _calls(self, caller: str) -> dict[str, tuple[Any, Callable[[Any], Any], bool]]:
        def create(request: Any) -> Any:
            if caller == "carol":
                raise RefusalError(403, "permission_denied", "carol may not run tasks here.")
            self.runs["r9"] = "FAILED" if request.task_id.name.endswith("fails") else "SUCCEEDED"
            return run_service_pb2.CreateRunResponse(run=self._run("r9"))

        def listed(request: Any) -> Any:
            return run_service_pb2.ListRunsResponse(runs=[self._run(name) for name in self.runs])

        def abort(request: Any) -> Any:
            self._known(request.run_id.name)
            return run_service_pb2.AbortRunResponse()

        return {
            "/flyteidl2.auth.IdentityService/UserInfo": (
                identity_pb2.UserInfoRequest,
                lambda _: identity_pb2.UserInfoResponse(subject=caller, name=caller.title()),
                False,
            ),
            f"{TASKS}GetTaskDetails": (
                task_definition_pb2.GetTaskDetailsRequest
                if hasattr(task_definition_pb2, "GetTaskDetailsRequest")
                else task_service_pb2.GetTaskDetailsRequest,
                lambda request: task_service_pb2.GetTaskDetailsResponse(details=_details(request.task_id)),
                False,
            ),
            f"{TASKS}ListTasks": (
                task_service_pb2.ListTasksRequest,
                lambda _: task_service_pb2.ListTasksResponse(),
                False,
            ),
            f"{RUNS}CreateRun": (run_service_pb2.CreateRunRequest, create, False),
            f"{RUNS}ListRuns": (run_service_pb2.ListRunsRequest, listed, False),
            f"{RUNS}AbortRun": (run_service_pb2.AbortRunRequest, abort, False),
            f"{RUNS}GetRunDetails": (
                run_service_pb2.GetRunDetailsRequest,
                lambda request: run_service_pb2.GetRunDetailsResponse(
                    details=run_definition_pb2.RunDetails(action=self._action(request.run_id.name))
                ),
                False,
            ),
            f"{RUNS}GetActionDetails": (
                run_service_pb2.GetActionDetailsRequest,
                lambda request: run_service_pb2.GetActionDetailsResponse(
                    details=self._action(request.action_id.run.name)
                ),
                False,
            ),
            f"{RUNS}WatchActionDetails": (
                run_service_pb2.WatchActionDetailsRequest,
                lambda request: [
                    run_service_pb2.WatchActionDetailsResponse(
                        details=self._action(request.action_id.run.name)
                    )
                ],
                True,
            ),
            "/flyteidl2.dataproxy.DataProxyService/GetActionData": (
                data.GetActionDataRequest,
                lambda _: data.GetActionDataResponse(
                    outputs=common_pb2.Outputs(
                        literals=[common_pb2.NamedLiteral(name="o0", value=_text("hello 42"))]
                    )
                ),
                False,
            ),
            "/flyteidl2.dataproxy.DataProxyService/TailLogs": (data.TailLogsRequest, self._logs, True),
            "/flyteidl2.dataproxy.DataProxyService/CreateUploadLocation": (
                data.CreateUploadLocationRequest,
                lambda _: data.CreateUploadLocationResponse(native_url="tower://bundles/one"),
                False,
            ),
            f"{TASKS}DeployTask": (
                task_service_pb2.DeployTaskRequest,
                lambda _: self._deployed(caller),
                False,
            ),
            "/flyteidl2.app.AppService/Create": (app_payload_pb2.CreateRequest, self._app, False),
            "/flyteidl2.app.AppService/List": (
                app_payload_pb2.ListRequest,
                lambda _: app_payload_pb2.ListResponse(),
                False,
            ),
        }

    def _rest(self, method: str, name: str, body: bytes, caller: str) -> Reply:
        self.asked.append((f"{method} {name}".strip(), json.loads(body) if body else None))
        status = 200
        answer: Any = None
        if method == "POST":
            asked = json.loads(body)
            if caller == "carol" and asked.get("user"):
                raise RefusalError(403, "permission_denied", "Only administrators make keys for others.")
            number = len(self.asked)
            key = {"id": f"id{number}", "name": asked["name"], "user": asked.get("user") or caller}
            key |= {"role": asked.get("role"), "project": asked.get("project", "*")}
            self.keys[key["name"]] = key
            status, answer = 201, {**key, "key": f"twr_made{number}_secret"}
        elif not name:
            answer = {"keys": list(self.keys.values())}
        elif name not in self.keys:
            raise missing(f"The key {name}")
        else:
            answer = self.keys.pop(name) if method == "DELETE" else self.keys[name]
        return status, json.dumps(answer).encode(), "application/json"

    def _deployed(self, caller: str) -> Any:
        if caller == "carol":
            raise RefusalError(403, "permission_denied", "carol may not register tasks here.")
        return task_service_pb2.DeployTaskResponse()

    def _app(self, request: Any) -> Any:
        app = request.app
        app.metadata.revision = 1
        app.status.ingress.public_url = "http://hello.apps.localhost"
        app.status.conditions.add(deployment_status=7)
        return app_payload_pb2.CreateResponse(app=app)

    def _known(self, name: str) -> str:
        if name not in self.runs:
            raise missing(f"The run {name}")
        return self.runs[name]

    def _run(self, name: str) -> Any:
        details = self._action(name)
        run = run_definition_pb2.Run(
            action=run_definition_pb2.Action(id=details.id, metadata=details.metadata, status=details.status)
        )
        run.labels["tower/via-app"] = "flytesnacks/development/webhook-runner"
        return run

    def _action(self, name: str) -> Any:
        details = run_definition_pb2.ActionDetails()
        phase = self._known(name)
        details.id.name = "a0"
        run = details.id.run
        run.project, run.domain, run.name = "flytesnacks", "development", name
        details.metadata.task.id.name, details.metadata.task.id.version = "my_env.my_task", "v1"
        details.metadata.executed_by.user.id.subject = "alice"
        details.status.phase, details.status.attempts = PHASES[phase], 1
        details.status.start_time.seconds, details.status.end_time.seconds = 1_700_000_000, 1_700_000_005
        if phase == "FAILED":
            details.error_info.message = "ValueError: no"
        details.task.CopyFrom(_spec())
        return details

    def _logs(self, request: Any) -> list[Any]:
        answer = data.TailLogsResponse()
        batch = answer.logs.add()
        for text in ("first\n", "second\n"):
            batch.lines.add(message=text)
        return [answer]


def _details(identity: Any) -> Any:
    if identity.name not in {"my_env.my_task", "my_env.fails"}:
        raise missing(f"The task {identity.name}")
    details = task_definition_pb2.TaskDetails(task_id=identity, spec=_spec())
    details.task_id.version = identity.version or "v1"
    return details


def _spec() -> Any:
    spec = task_definition_pb2.TaskSpec()
    simple = types_pb2.SimpleType
    for name, kind in (("x", simple.INTEGER), ("y", simple.STRING)):
        spec.task_template.interface.inputs.variables.append(_variable(name, kind))
    spec.task_template.interface.outputs.variables.append(_variable("o0", simple.STRING))
    default = spec.default_inputs.add(name="y")
    default.parameter.default.CopyFrom(_text("hello"))
    return spec


def _variable(name: str, kind: Any) -> Any:
    variable = interface_pb2.Variable(type=types_pb2.LiteralType(simple=kind))
    return interface_pb2.VariableEntry(key=name, value=variable)


def _text(text: str) -> Any:
    literal = literals_pb2.Literal()
    literal.scalar.primitive.string_value = text
    return literal


def _frame(flags: int, content: bytes) -> bytes:
    return struct.pack(">BI", flags, len(content)) + content
