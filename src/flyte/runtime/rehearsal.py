"""What every attempt does, done in the template for nobody, before any code of the user is there.

A forked child shares the template's memory until it writes there. What the interpreter and the libraries
learn when a function runs the first times (caches in its code, descriptors, tables) is then learnt once, not
again in each child. It opens nothing that stays and names nobody.
"""

from __future__ import annotations

import asyncio
import contextlib
import gc
import json
import shutil
import tempfile
from pathlib import Path

from flyteidl2.actions import actions_service_pb2 as actions
from flyteidl2.common import phase_pb2
from flyteidl2.task import common_pb2, task_definition_pb2

from flyte import _config
from flyte._interface import Interface
from flyte.runtime import report
from flyte.runtime.children import Call, Children
from flyte.runtime.start import Start
from flyte.transport import _envelope
from flyte.transport.credentials import Workload
from flyte.transport.session import Session

_TIMES = 12
"""The interpreter adapts a function's code after it has run eight times."""

_WATCH = b"WatchForUpdates"


def rehearse() -> None:
    """Go through an attempt some times. Whatever fails here only makes the attempts slower."""
    with contextlib.suppress(Exception):
        act(_TIMES)
    gc.collect()


def act(times: int) -> None:
    """Go through an attempt so many times."""
    folder = Path(tempfile.mkdtemp(prefix="rehearsal-"))
    try:
        interface = Interface.of(_example)
        for _ in range(times):
            _attempt(interface, folder)
    finally:
        shutil.rmtree(folder, ignore_errors=True)


async def _example(x: int, y: str = "") -> int:
    return x + len(y)


def _attempt(interface: Interface, folder: Path) -> None:
    message = {
        "op": "start",
        "id": "a/b/c/a0/1",
        "module": "m",
        "task": "t",
        "directory": str(folder),
        "env": {"ACTION_NAME": "a0"},
        "limits": {},
    }
    Start.parse(json.dumps(message).encode())
    inputs = interface.encode_inputs((1,), y="z").SerializeToString()
    values = interface.decode_inputs(common_pb2.Inputs.FromString(inputs))
    # a loop made by hand touches no policy and is nobody's current one: the attempt finds all that unused
    with asyncio.Runner(loop_factory=asyncio.SelectorEventLoop) as runner:
        result = runner.run(_example(**values))
        runner.run(_talk(folder, interface, inputs))
    report.write(folder, report.OUTPUTS, interface.encode_outputs(result))


async def _talk(folder: Path, interface: Interface, inputs: bytes) -> None:
    """Ask for another task and hear of its end, from somebody who answers as Tower does."""
    path = folder / "agent"
    settings = _config.Settings(endpoint=_config.Endpoint.parse("http://127.0.0.1:1", insecure=True))
    session = Session(settings, Workload("rehearsal"), socket=str(path))
    children = Children("p", "d", "r", action="a0", attempt=1)
    call = Call(task_definition_pb2.TaskIdentifier(name="t"), interface, inputs, None)
    updates = _updates(children.name(call, 0))
    serving: set[asyncio.Task[None] | None] = set()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        serving.add(asyncio.current_task())
        with contextlib.suppress(asyncio.IncompleteReadError, ConnectionError):
            while True:
                head = await reader.readuntil(b"\r\n\r\n")
                length = int(head.lower().partition(b"content-length:")[2].partition(b"\r\n")[0] or 0)
                await reader.readexactly(length)
                writer.write(updates if _WATCH in head else _ACCEPTED)
        writer.close()

    async with await asyncio.start_unix_server(serve, path) as server:
        await children.ask(session, call)
        children.close()
        await session.aclose()
        server.close()
        await asyncio.gather(*(task for task in serving if task is not None))
    path.unlink(missing_ok=True)


def _updates(name: str) -> bytes:
    """The stream of a parent whose only child has ended."""
    ended = actions.WatchForUpdatesResponse()
    ended.action_update.action_id.name = name
    ended.action_update.phase = phase_pb2.ACTION_PHASE_SUCCEEDED
    value = ended.action_update.value.map.literals["o0"]
    value.scalar.primitive.integer = 1
    return _STREAM + _chunk(_SENTINEL) + _chunk(ended)


def _chunk(message: actions.WatchForUpdatesResponse) -> bytes:
    framed = _envelope.envelope(message.SerializeToString())
    return b"%x\r\n%b\r\n" % (len(framed), framed)


_ACCEPTED = b"HTTP/1.1 200 OK\r\ncontent-type: application/proto\r\ncontent-length: 0\r\nx-tower: 1\r\n\r\n"
_STREAM = b"HTTP/1.1 200 OK\r\ncontent-type: application/connect+proto\r\ntransfer-encoding: chunked\r\n\r\n"
_SENTINEL = actions.WatchForUpdatesResponse()
_SENTINEL.control_message.sentinel = True
