"""Runs and apps with everything real but the image: the interpreter of the tests plays its environment."""

from __future__ import annotations

import asyncio
import gzip
import hashlib
import io
import json
import sys
import tarfile
import textwrap
from collections.abc import AsyncIterator, Callable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path

import pytest
import uvloop
from flyteidl2.core import literals_pb2, tasks_pb2
from flyteidl2.task import common_pb2, run_pb2, task_definition_pb2

from tower.agent import AgentSockets
from tower.agent.sockets import App, listening
from tower.control.definitions import Definitions
from tower.control.events import Events
from tower.control.handovers import Handovers
from tower.control.inputs import Inputs
from tower.control.rawdata import RawData
from tower.control.reconcile import Ahead, Bundles, Ground, LoopTimers, Parts, Reconcile, Rooms
from tower.control.reconcile.parts import Handle
from tower.executors.process import ProcessExecutor
from tower.images.port import Environment, ImageSpec, Progress
from tower.settings import Settings
from tower.states import Phase
from tower.store import runs
from tower.store.blobs import Blobs
from tower.store.database import Database
from tower.store.runs import ActionKey, ActionRow, AttemptRow

CODE = """
import os, signal, subprocess, sys, time
import flyte

env = flyte.TaskEnvironment(name="e")

@env.task
async def add(x: int, y: int) -> int:
    return x + y

@env.task
def repeat(text: str, times: int) -> str:
    return text * times

@env.task
def say(text: str) -> None:
    print(text, flush=True)

@env.task
def env_of() -> dict[str, str]:
    return dict(os.environ)

@env.task
def fail(kind: str) -> int:
    if kind == "for good":
        raise flyte.errors.NonRecoverableError("never again")
    if kind == "exit":
        os._exit(9)
    if kind == "killed":
        os.kill(os.getpid(), signal.SIGKILL)
    if kind == "segv":
        os.kill(os.getpid(), signal.SIGSEGV)
    if kind == "link":
        os.symlink("/etc/passwd", "outputs.pb")
        os._exit(0)
    if kind == "nothing":
        os._exit(0)
    if kind == "garbage":
        open("outputs.pb", "wb").write(b"\\xff" * 100)
        os._exit(0)
    raise ValueError("not this time")

@env.task
def second_time() -> int:
    if os.environ["FLYTE_ATTEMPT_NUMBER"] == "1":
        raise ValueError("once more")
    return 2

@env.task
def wait() -> int:
    print("waiting", os.getpid(), flush=True)
    signal.pause()
    return 1

@env.task
def stays() -> str:
    from flyteidl2.task import common_pb2
    outputs = common_pb2.Outputs()
    outputs.literals.add(name="o0").value.scalar.primitive.string_value = "early"
    open("outputs.pb", "wb").write(outputs.SerializeToString())
    print("stays", os.getpid(), flush=True)
    for descriptor in range(3, 20):  # one of them is the pipe on which the runtime says "done"
        try:
            os.write(descriptor, b"x")
        except OSError:
            pass
    while True:
        signal.pause()

@env.task
def who() -> str:
    return subprocess.check_output([sys.executable, "-c", '''
import os, socket
s = socket.socket(socket.AF_UNIX)
s.connect(os.environ["FLYTE_AGENT_SOCKET"])
lines = "GET / HTTP/1.1", "host: a", "x-flyte-agent: 1", "connection: close", "", ""
s.sendall((chr(13) + chr(10)).join(lines).encode())
print(s.makefile().read().split()[-1], end="")
''']).decode()
"""


@dataclass
class FakeClock:
    """A clock that stands still until it is moved, with the timers that were set on it."""

    time: float = 1000.0
    timers: list[tuple[float, Callable[[], object]]] = field(default_factory=list)
    names: int = 0

    def now(self) -> float:
        return self.time

    def name(self, prefix: str) -> str:
        self.names += 1
        return f"{prefix}{self.names:019}"

    def later(self, seconds: float, call: Callable[[], object], /) -> Handle:
        entry = (self.time + seconds, call)
        self.timers.append(entry)
        return _Timer(self, entry)

    def advance(self, seconds: float) -> None:
        """Move the time and fire what is due, in order."""
        end = self.time + seconds
        while due := sorted((entry for entry in self.timers if entry[0] <= end), key=lambda entry: entry[0]):
            self.timers.remove(due[0])
            self.time = max(self.time, due[0][0])
            due[0][1]()
        self.time = end


@dataclass
class _Timer:
    clock: FakeClock
    entry: tuple[float, Callable[[], object]]

    def cancel(self) -> None:
        if self.entry in self.clock.timers:
            self.clock.timers.remove(self.entry)


class HereImages:
    """Every image is the interpreter of the tests."""

    def __init__(self) -> None:
        self.fault: Exception | None = None
        self.asked: list[ImageSpec] = []

    async def ready(self, spec: ImageSpec, *, progress: Progress) -> Environment:
        self.asked.append(spec)
        if self.fault is not None:
            raise self.fault
        return Environment("here", Path(sys.executable), dict(spec.env_vars))


async def _tell_workload(scope: object, receive: object, send: object) -> None:
    body = str(scope["state"]["workload"]).encode()  # type: ignore[index]
    headers = [(b"content-length", str(len(body)).encode())]
    await send({"type": "http.response.start", "status": 200, "headers": headers})  # type: ignore[operator]
    await send({"type": "http.response.body", "body": body})  # type: ignore[operator]


class House:
    """All parts over one home."""

    def __init__(
        self, home: Path, clock: FakeClock, *, real_time: bool = False, app: App = _tell_workload
    ) -> None:
        self.home = home
        self.clock = clock
        self.settings = Settings(home=home, parallel_attempts=2, drain_seconds=0.0)
        self.db = Database.open(home / "tower.db", clock=clock)
        self.events = Events()
        self.blobs = Blobs(home / "blobs", db=self.db)
        self.inputs = Inputs(blobs=self.blobs, limit=1 << 20)
        self.images = HereImages()
        self.agent = AgentSockets(app, name=lambda kind, id_, pid: id_)
        self.executor = ProcessExecutor()
        rooms = Rooms(home)
        self.refusal = ""
        self.gone = ""
        self.parts = Parts(
            db=self.db,
            clock=clock,
            events=self.events,
            settings=self.settings,
            blobs=self.blobs,
            inputs=self.inputs,
            definitions=Definitions(db=self.db),
            executor=self.executor,
            images=self.images,
            agent=self.agent,
            bundles=Bundles(home, blobs=self.blobs),
            rooms=rooms,
            ahead=Ahead(rooms=rooms, executor=self.executor, listening=listening),
            permit=self._permit,
            watch=self._watch,
            ground=lambda: Ground(
                endpoint="http://127.0.0.1:8080",
                org="tower",
                reserved=self.settings.reserved_env,
                output=self.settings.max_log,
            ),
            timers=LoopTimers() if real_time else clock,
            handovers=Handovers(blobs=self.blobs),
            rawdata=RawData(db=self.db, blobs=self.blobs, access=None, attempts=None, limit=1),  # type: ignore[arg-type]
            grace=0.2,
        )
        self.reconcile = Reconcile(self.parts)

    async def _watch(self, attempt: str) -> str:
        return self.gone

    async def _permit(self, row: ActionRow, attempt: int) -> str:
        return self.refusal

    def settle(self, **changes: object) -> None:
        """Other settings, before the start."""
        self.settings = replace(self.settings, **changes)  # type: ignore[arg-type]
        self.parts = replace(self.parts, settings=self.settings)
        self.reconcile = Reconcile(self.parts)

    async def close(self) -> None:
        await self.reconcile.stop()
        await self.executor.close()
        await self.agent.close_all()
        await self.parts.rooms.close()
        await self.db.close()

    async def bundle(self, files: Mapping[str, str]) -> tuple[str, str]:
        """Store a code bundle; its URI and digest."""
        buffer = io.BytesIO()
        with tarfile.open(fileobj=buffer, mode="w") as archive:
            for name, text in files.items():
                data = textwrap.dedent(text).encode()
                member = tarfile.TarInfo(name)
                member.size = len(data)
                archive.addfile(member, io.BytesIO(data))
        data = gzip.compress(buffer.getvalue())
        digest = hashlib.sha256(data).hexdigest()
        key = f"bundles/p/development/x/{digest}.tar.gz"
        await self.blobs.put_stream(key, _once(data), limit=len(data))
        return f"tower://{key}", digest

    async def launch(
        self,
        task: str,
        inputs: Mapping[str, object] | None = None,
        *,
        spec: Callable[[task_definition_pb2.TaskSpec], object] = lambda _: None,
        env: Mapping[str, str] | None = None,
        **columns: object,
    ) -> ActionKey:
        """Queue a run of one of the functions above, as CreateRun does."""
        uri, digest = await self.bundle({"code_of_e.py": CODE})
        declared = task_definition_pb2.TaskSpec()
        container = declared.task_template.container
        container.args.extend(["flyte-runtime", "task", "--module", "code_of_e", "--task", f"e.{task}"])
        declared.task_template.metadata.code_bundle_uri = uri
        spec(declared)
        literals = [
            common_pb2.NamedLiteral(name=name, value=_literal(value))
            for name, value in (inputs or {}).items()
        ]
        data = common_pb2.Inputs(literals=literals).SerializeToString()
        kept = await self.inputs.keep("p", "development", data)
        run_spec = run_pb2.RunSpec()
        for name, value in (env or {}).items():
            run_spec.envs.values.add(key=name, value=value)
        row = ActionRow(
            project="p",
            domain="development",
            run=self.clock.name("r"),
            action="a0",
            parent=None,
            task_project="p",
            task_domain="development",
            task_name=f"e.{task}",
            task_version="v1",
            spec=declared.SerializeToString(),
            code_digest=digest,
            inputs_uri=kept.uri,
            inputs_hash=kept.digest,
            run_spec=run_spec.SerializeToString(),
            labels="{}",
            executed_by="alice",
            via_app="",
            credential_kind="api_key",
            credential_id="abc",
            actors="[]",
            ceilings="[]",
            decision="p1",
            policy_revision="r1",
            request_id=None,
            phase=Phase.QUEUED,
            attempts=0,
            max_attempts=1,
            queue_timeout=100.0,
            run_timeout=50.0,
            created_at=self.clock.now(),
            queued_at=self.clock.now(),
            started_at=None,
            ended_at=None,
            outputs_uri="",
            error="",
            abort_reason="",
            aborted_by="",
        )
        row = replace(row, **columns)  # type: ignore[arg-type]

        def insert(tx: object) -> None:
            self.inputs.store(tx, kept)  # type: ignore[arg-type]
            runs.insert(tx, row)  # type: ignore[arg-type]
            tx.after_commit(lambda: self.events.publish(("queue",)))  # type: ignore[attr-defined]

        await self.db.write(insert)
        return row.key

    def row(self, key: ActionKey) -> ActionRow:
        found = self.db.read_now(lambda reader: runs.get(reader, key))
        assert found is not None
        return found

    def attempts(self, key: ActionKey) -> list[AttemptRow]:
        return self.db.read_now(lambda reader: runs.attempts_of(reader, key))

    async def until(self, key: ActionKey, *phases: Phase) -> ActionRow:
        """Wait until an action is in one of the phases, by default until it has ended."""
        with self.events.subscribe(("action", *key)) as changed:
            async with asyncio.timeout(120):
                while True:
                    changed.clear()
                    row = self.row(key)
                    if row.phase in phases or (not phases and row.phase.terminal):
                        return row
                    await changed.wait()

    async def printed(self, key: ActionKey, text: str, attempt: int = 1) -> str:
        """Wait until an attempt has printed something; its whole output."""
        from tower.store import logs

        log_id = "/".join((*key, str(attempt)))
        with self.events.subscribe(("log", log_id)) as changed:
            async with asyncio.timeout(120):
                while True:
                    changed.clear()
                    lines, _ = logs.read(logs.attempt_path(self.home, log_id))
                    output = "".join(line.text for line in lines)
                    if text in output:
                        return output
                    await changed.wait()

    async def output(self, row: ActionRow) -> object:
        """The first output as a Python value."""
        data = await self.blobs.get(row.outputs_key, limit=1 << 20)
        (named,) = common_pb2.Outputs.FromString(data).literals
        return _python(named.value)


async def _once(data: bytes) -> AsyncIterator[bytes]:
    yield data


def _literal(value: object) -> literals_pb2.Literal:
    primitive = literals_pb2.Primitive()
    if isinstance(value, int):
        primitive.integer = value
    else:
        primitive.string_value = str(value)
    return literals_pb2.Literal(scalar=literals_pb2.Scalar(primitive=primitive))


def _python(literal: literals_pb2.Literal) -> object:
    if literal.scalar.HasField("primitive"):
        primitive = literal.scalar.primitive
        return getattr(primitive, primitive.WhichOneof("value"))
    if literal.scalar.HasField("binary"):
        import msgpack

        return msgpack.unpackb(literal.scalar.binary.value)
    if literal.HasField("map"):
        return {name: _python(value) for name, value in literal.map.literals.items()}
    raise AssertionError(literal)


def error_of(row: ActionRow | AttemptRow) -> dict[str, str]:
    found: dict[str, str] = json.loads(row.error)
    return found


def limit(spec: task_definition_pb2.TaskSpec, name: str, value: str) -> None:
    spec.task_template.container.resources.limits.add(
        name=tasks_pb2.Resources.ResourceName.Value(name), value=value
    )


def pytest_asyncio_loop_factories(
    config: pytest.Config, item: pytest.Item
) -> Mapping[str, Callable[[], asyncio.AbstractEventLoop]]:
    """The loop that Tower runs on."""
    return {"uvloop": uvloop.new_event_loop}


@pytest.fixture
def clock() -> FakeClock:
    return FakeClock()


@pytest.fixture
async def idle(tmp_path: Path, clock: FakeClock) -> AsyncIterator[House]:
    """A house whose loop was not started."""
    house = House(tmp_path, clock)
    yield house
    async with asyncio.timeout(300):  # a test that failed may have kept what the end waits for
        await house.close()


@pytest.fixture
async def house(idle: House) -> House:
    """A house at work."""
    await idle.reconcile.start()
    return idle
