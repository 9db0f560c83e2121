"""The RPC door over real rooms: SQLite, keys, policy, blobs, and a uvicorn on loopback in the test's loop."""

from __future__ import annotations

import asyncio
import hashlib
import json
import socket
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import httpx
import pytest
import uvicorn
from connectrpc.code import Code
from connectrpc.errors import ConnectError
from flyteidl2.auth.identity_connect import IdentityServiceClient
from flyteidl2.common import identifier_pb2, list_pb2
from flyteidl2.core import interface_pb2, literals_pb2, types_pb2
from flyteidl2.dataproxy.dataproxy_service_connect import DataProxyServiceClient
from flyteidl2.project.project_service_connect import ProjectServiceClient
from flyteidl2.task import common_pb2, task_definition_pb2, task_service_pb2
from flyteidl2.task.task_service_connect import TaskServiceClient
from flyteidl2.trigger.trigger_service_connect import TriggerServiceClient
from flyteidl2.workflow import run_service_pb2
from flyteidl2.workflow.run_service_connect import RunServiceClient
from sqlalchemy import insert, update
from tests.connections import cut
from tests.identity_world import World

from tower import rpc
from tower.control.data import Data
from tower.control.definitions import Definitions
from tower.control.events import Events
from tower.control.firing import Firing
from tower.control.inputs import Inputs
from tower.control.projects import Projects
from tower.control.runs import Runs
from tower.control.schedules import Schedules
from tower.control.tailing import Line, Tailing
from tower.control.tasks import Tasks
from tower.control.watching import Watching
from tower.direct import Piecewise
from tower.rpc.caller import Origin
from tower.rpc.transfer import Transfer
from tower.states import Phase
from tower.store.blobs import Blobs
from tower.store.schema import actions, attempts

PROJECT, DOMAIN = "flytesnacks", "development"
SIMPLE = types_pb2.SimpleType


@dataclass
class Caller:
    """The generated clients of one person."""

    runs: RunServiceClient
    tasks: TaskServiceClient
    data: DataProxyServiceClient
    projects: ProjectServiceClient
    identity: IdentityServiceClient
    triggers: TriggerServiceClient
    headers: dict[str, str]


class RpcWorld:
    """Everything behind the RPC door, and the door."""

    def __init__(self, world: World, port: int) -> None:
        self.world = world
        self.url = f"http://127.0.0.1:{port}"
        self.http = httpx.AsyncClient(verify=False, timeout=60.0)
        self.events = Events()
        self.blobs = Blobs(world.home / "blobs", db=world.db)
        self.inputs = Inputs(blobs=self.blobs, limit=world.settings.max_inputs)
        db, access, settings = world.db, world.access, world.settings
        self.projects = Projects(db=db, access=access)
        self.definitions = Definitions(db=db)
        self.tasks = Tasks(
            db=db,
            access=access,
            blobs=self.blobs,
            projects=self.projects,
            definitions=self.definitions,
            settings=settings,
        )
        self.runs = Runs(
            db=db,
            clock=world.clock,
            access=access,
            events=self.events,
            definitions=self.definitions,
            tasks=self.tasks,
            projects=self.projects,
            inputs=self.inputs,
            settings=settings,
        )
        self.schedules = Schedules(
            db=db,
            clock=world.clock,
            access=access,
            events=self.events,
            definitions=self.definitions,
            inputs=self.inputs,
            projects=self.projects,
            settings=settings,
        )
        self.firing = Firing(
            db=db,
            clock=world.clock,
            access=access,
            directory=world.directory,
            runs=self.runs,
            settings=settings,
        )
        self.watching = Watching(
            db=db,
            access=access,
            events=self.events,
            definitions=self.definitions,
            projects=self.projects,
        )
        self.data = Data(
            db=db,
            access=access,
            blobs=self.blobs,
            grants=world.grants,
            inputs=self.inputs,
            definitions=self.definitions,
            projects=self.projects,
            watching=self.watching,
            settings=settings,
        )
        self.logs: dict[str, list[Line]] = {}
        self.tailing = Tailing(watching=self.watching, events=self.events, read=self._read_log)
        self.door = rpc.build(
            chain=world.chain,
            origin=Origin("http", "127.0.0.1", port),
            settings=settings,
            version="test",
            tasks=self.tasks,
            schedules=self.schedules,
            runs=self.runs,
            watching=self.watching,
            data=self.data,
            tailing=self.tailing,
            projects=self.projects,
            gave_up=access.gave_up,
        )
        self.transfer = Transfer(self.data, version="test")

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        data = scope["type"] == "http" and scope["path"].startswith(self.transfer.prefixes)
        await (self.transfer if data else self.door)(scope, receive, send)

    def direct(self, scope: Any, body: bytes) -> Any:
        """Requests that come in one piece: as behind the listener."""
        return self.door.direct(scope, body)

    @classmethod
    @asynccontextmanager
    async def opened(cls, home: Path, **settings: Any) -> AsyncIterator[RpcWorld]:
        async with World.opened(home) as world:
            world.settings = replace(world.settings, **settings)
            # with the protocol named asyncio sets TCP_NODELAY; without, each answer waits 40 ms
            listener = socket.socket(socket.AF_INET, socket.SOCK_STREAM, socket.IPPROTO_TCP)
            listener.bind(("127.0.0.1", 0))
            try:
                made = cls(world, listener.getsockname()[1])
            except BaseException:
                listener.close()
                raise
            config = uvicorn.Config(made, http=Piecewise, lifespan="off", log_config=None, access_log=False)
            server = uvicorn.Server(config)
            serving = asyncio.create_task(server.serve(sockets=[listener]))
            try:
                yield made
            finally:
                await made.http.aclose()
                server.should_exit = server.force_exit = True
                await serving
                await cut(server.server_state)
                listener.close()

    def caller(self, key: str = "", **headers: str) -> Caller:
        """Clients that present this key."""
        sent = {name.replace("_", "-"): value for name, value in headers.items()}
        if key:
            sent["authorization"] = f"Bearer {key}"
        return Caller(
            *(
                client(self.url)
                for client in (
                    RunServiceClient,
                    TaskServiceClient,
                    DataProxyServiceClient,
                    ProjectServiceClient,
                    IdentityServiceClient,
                    TriggerServiceClient,
                )
            ),
            headers=sent,
        )

    async def post(self, method: str, body: bytes = b"", **headers: str) -> httpx.Response:
        """One RPC as raw HTTP."""
        sent = {"content-type": "application/proto", **{n.replace("_", "-"): v for n, v in headers.items()}}
        return await self.http.post(f"{self.url}/flyteidl2.{method}", content=body, headers=sent)

    async def deploy(
        self, caller: Caller, name: str = "env.main", version: str = "v1", **more: Any
    ) -> task_definition_pb2.TaskSpec:
        """Deploy a task that takes x: int and y: str (default "hello")."""
        spec = task_spec(**more)
        await caller.tasks.deploy_task(
            task_service_pb2.DeployTaskRequest(task_id=task_id(name, version, **_scope(more)), spec=spec),
            headers=caller.headers,
        )
        return spec

    async def run(self, caller: Caller, *, name: str = "env.main", version: str = "", **inputs: Any) -> Any:
        """Ask for a run; what comes back."""
        request = create_run(name=name, version=version, inputs=inputs or {"x": 1})
        answer = await caller.runs.create_run(request, headers=caller.headers)
        return answer.run

    async def move(self, run: str, phase: Phase, *, attempt: bool = True, **values: Any) -> None:
        """What reconcile does: the run, and its first attempt, are in another phase now."""
        at = self.world.clock.now()
        ended = {"ended_at": at} if phase.terminal else {}

        def write(tx: Any) -> None:
            tx.execute(
                update(actions)
                .where(actions.c.run == run)
                .values(phase=int(phase), attempts=1, **ended, **values)
            )
            if attempt:
                found = tx.execute(
                    update(attempts)
                    .where(attempts.c.run == run)
                    .values(phase=int(phase), has_logs=True, **ended)
                )
                if not found.rowcount:
                    tx.execute(
                        insert(attempts).values(
                            project=PROJECT,
                            domain=DOMAIN,
                            run=run,
                            action="a0",
                            attempt=1,
                            phase=int(phase),
                            created_at=at,
                            started_at=at,
                            has_logs=True,
                        )
                    )

        await self.world.db.write(write)
        self.events.publish(("action", PROJECT, DOMAIN, run, "a0"), ("runs", PROJECT, DOMAIN))

    def write_log(self, run: str, *lines: str, attempt: int = 1) -> None:
        """More output of an attempt."""
        log_id = f"{PROJECT}/{DOMAIN}/{run}/a0/{attempt}"
        at = self.world.clock.now()
        self.logs.setdefault(log_id, []).extend(Line(at, text) for text in lines)
        self.events.publish(("log", log_id))

    async def _read_log(self, log_id: str, offset: int) -> tuple[list[Line], int]:
        lines = self.logs.get(log_id, [])[offset:]
        return lines, offset + len(lines)


def _scope(more: dict[str, Any]) -> dict[str, str]:
    return {name: more.pop(name) for name in ("project", "domain") if name in more}


def task_id(
    name: str = "env.main", version: str = "", *, project: str = PROJECT, domain: str = DOMAIN
) -> task_definition_pb2.TaskIdentifier:
    """A task's identifier, with an organisation that Tower must tolerate."""
    return task_definition_pb2.TaskIdentifier(
        org="127", project=project, domain=domain, name=name, version=version
    )


def project_id(project: str = PROJECT, domain: str = DOMAIN) -> identifier_pb2.ProjectIdentifier:
    """A scope."""
    return identifier_pb2.ProjectIdentifier(organization="127", name=project, domain=domain)


def run_id(name: str) -> identifier_pb2.RunIdentifier:
    """A run."""
    return identifier_pb2.RunIdentifier(project=PROJECT, domain=DOMAIN, name=name)


def action_id(name: str, action: str = "a0") -> identifier_pb2.ActionIdentifier:
    """An action of a run."""
    return identifier_pb2.ActionIdentifier(run=run_id(name), name=action)


def task_spec(
    *,
    env: dict[str, str] | None = None,
    bundle: str = "",
    retries: int = 0,
    default: str = "hello",
    extra: dict[str, int] | None = None,
    **_: Any,
) -> task_definition_pb2.TaskSpec:
    """x: int, y: str with a default, and as many other inputs of simple types as asked for."""
    spec = task_definition_pb2.TaskSpec(short_name="main")
    template = spec.task_template
    template.type = "python"
    template.metadata.code_bundle_uri = bundle
    template.metadata.retries.retries = retries
    template.container.image = "tower/0123456789ab"
    template.container.args.extend(["flyte-runtime", "task", "--module", "m", "--task", "env.main"])
    for key, value in (env or {}).items():
        template.container.env.add(key=key, value=value)
    types = {"x": SIMPLE.INTEGER, "y": SIMPLE.STRING, **(extra or {})}
    for name, simple in types.items():
        template.interface.inputs.variables.add(
            key=name, value=interface_pb2.Variable(type=types_pb2.LiteralType(simple=simple))
        )
    spec.default_inputs.add(name="y").parameter.default.CopyFrom(literal(default))
    spec.environment.name = "env"
    return spec


def literal(value: Any) -> literals_pb2.Literal:
    """A literal of a plain Python value."""
    made = literals_pb2.Literal()
    primitive = made.scalar.primitive
    match value:
        case bool():
            primitive.boolean = value
        case int():
            primitive.integer = value
        case float():
            primitive.float_value = value
        case str():
            primitive.string_value = value
        case None:
            made.scalar.none_type.SetInParent()
        case list():
            made.collection.SetInParent()
            made.collection.literals.extend(literal(each) for each in value)
    return made


def named(inputs: dict[str, Any]) -> common_pb2.Inputs:
    """Inputs by name."""
    made = common_pb2.Inputs()
    for name, value in inputs.items():
        made.literals.add(name=name).value.CopyFrom(literal(value))
    return made


def create_run(
    *, inputs: dict[str, Any], name: str = "env.main", version: str = "", project: str = PROJECT
) -> run_service_pb2.CreateRunRequest:
    """A request as the SDK sends it."""
    return run_service_pb2.CreateRunRequest(
        project_id=project_id(project), task_id=task_id(name, version), inputs=named(inputs)
    )


def listing(**values: Any) -> list_pb2.ListRequest:
    """A list request; `filters` as (function, field, *values)."""
    filters = [
        list_pb2.Filter(function=function, field=field, values=given)
        for function, field, *given in values.pop("filters", ())
    ]
    sort = values.pop("sort", None)
    request = list_pb2.ListRequest(filters=filters, **values)
    if sort is not None:
        request.sort_by.key, request.sort_by.direction = sort
    return request


@contextmanager
def refused(code: Code, *words: str) -> Iterator[None]:
    """The block fails with this code and a message that has these words."""
    with pytest.raises(ConnectError) as caught:
        yield
    assert caught.value.code is code, f"{caught.value.code}: {caught.value.message}"
    for word in words:
        assert word in caught.value.message, caught.value.message


def md5(data: bytes) -> bytes:
    """The digest that an upload announces."""
    return hashlib.md5(data, usedforsecurity=False).digest()


def problem(response: httpx.Response) -> tuple[str, str]:
    """Code and message of a unary refusal."""
    content = json.loads(response.content)
    return content["code"], content["message"]
