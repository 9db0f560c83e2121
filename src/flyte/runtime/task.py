"""One attempt: read the inputs, call the function, leave the outputs or the error.

As a program (`python -m flyte.runtime.task`) it reads its start message from standard input; a template
process calls `run` in a forked child instead.
"""

from __future__ import annotations

import asyncio
import gc
import json
import os
import signal
import sys
import threading
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from types import FrameType
from typing import Any

from flyteidl2.task import common_pb2
from google.protobuf.message import DecodeError

from flyte import _context
from flyte._task import Task
from flyte.errors import NonRecoverableError, RemoteTaskUsageError, RuntimeUserError
from flyte.runtime import loader, report, secrets
from flyte.runtime.children import Children
from flyte.runtime.start import MessageError, Start

EXIT_OK = 0
EXIT_FAILED = 1
EXIT_BAD_MESSAGE = 2
EXIT_TERMINATED = 128 + signal.SIGTERM
INPUTS = "inputs.pb"


class _Stopped(BaseException):
    """SIGTERM came: let `finally` blocks run, then end."""


def run(start: Start) -> int:
    """Run one attempt in this process and answer its exit code.

    0 when outputs or an error were written; 1 when not even the error could be. SIGTERM ends the function as
    cancellation (async) or as an exception (sync) would, and then the process, by that signal.
    """
    _enter(start)
    stopped = False
    own = os.getpid()

    def stop(_number: int, _frame: FrameType | None) -> None:
        nonlocal stopped
        if os.getpid() != own:
            forked()
            signal.raise_signal(signal.SIGTERM)
            return
        stopped = True
        # asyncio turns an interrupt into the cancellation of the main task; elsewhere it is an exception
        signal.raise_signal(signal.SIGINT)

    def forked() -> None:
        # whoever asks a fork of the user's to end means just that, as `multiprocessing` does with its workers
        if signal.getsignal(signal.SIGTERM) is stop:
            signal.signal(signal.SIGTERM, signal.SIG_DFL)

    _at_fork(forked)
    signal.signal(signal.SIGINT, signal.default_int_handler)
    signal.signal(signal.SIGTERM, stop)
    try:
        return _attempt(start, lambda: stopped)
    except (_Stopped, KeyboardInterrupt):
        signal.signal(signal.SIGTERM, signal.SIG_DFL)
        _flush()
        signal.raise_signal(signal.SIGTERM)
        return EXIT_TERMINATED  # the first process of a process table does not hear its own signal
    finally:
        signal.signal(signal.SIGTERM, signal.SIG_DFL)
        _flush()


def _at_fork(in_child: Callable[[], None]) -> None:
    """Call something in each fork, with SIGTERM waiting until then: one that came earlier would be lost."""
    before = threading.local()

    def hold() -> None:
        before.mask = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTERM})

    def release() -> None:
        signal.pthread_sigmask(signal.SIG_SETMASK, before.mask)

    def begin() -> None:
        in_child()
        release()

    os.register_at_fork(before=hold, after_in_parent=release, after_in_child=begin)


def _attempt(start: Start, stopped: Any) -> int:
    fatal = True
    try:
        secrets.enter(start.env, directory=start.directory)
        task = loader.task(start.module, start.task)
        values = _inputs(start.directory, task)
        fatal = False
        outputs = _outputs(task, _call(task, values))
    except BaseException as raised:  # noqa: BLE001 - whatever user code raises is its result
        if stopped():
            raise _Stopped from None
        return _failed(start, raised, recoverable=not fatal and report.is_recoverable(raised))
    try:
        report.write(start.directory, report.OUTPUTS, outputs)
    except OSError as fault:
        return _failed(start, fault, recoverable=True)
    return EXIT_OK


def _enter(start: Start) -> None:
    """Be the attempt: its environment, its directory, its place in the context."""
    settle(start)
    _context.enter_task(_facts(start))


def settle(start: Start) -> None:
    """Be in the attempt's directory, with its environment and its code at hand."""
    # most of it is there already in a fork: to clear and to fill it all takes longer than to run a small task
    for name in [name for name in os.environ if name not in start.env]:
        del os.environ[name]
    for name, value in start.env.items():
        if os.environ.get(name) != value:
            os.environ[name] = value
    os.chdir(start.directory)
    loader.enter(start.bundle)


def _facts(start: Start) -> _context.TaskContext:
    told = json.loads(start.env.get("FLYTE_ATTEMPT_FACTS") or "{}")
    project = start.env.get("FLYTE_INTERNAL_EXECUTION_PROJECT", "")
    domain = start.env.get("FLYTE_INTERNAL_EXECUTION_DOMAIN", "")
    run, action = start.env.get("RUN_NAME", ""), start.env.get("ACTION_NAME", "a0")
    attempt = _number(start.env.get("FLYTE_ATTEMPT_NUMBER", "1"))
    # without a socket there is nobody to ask: then other tasks are functions
    reached = bool(start.env.get("FLYTE_AGENT_SOCKET") and run)
    return _context.TaskContext(
        project=project,
        domain=domain,
        org=start.env.get("_U_ORG_NAME", ""),
        run=run,
        action=action,
        executor=_context.Executor(told.get("subject", ""), told.get("name", "")),
        task=start.task,
        task_project=told.get("task_project", project),
        task_domain=told.get("task_domain", domain),
        version=start.env.get("FLYTE_TASK_VERSION", ""),
        attempt=attempt,
        image=told.get("image", ""),
        code_digest=told.get("code_digest", ""),
        via_app=told.get("via_app", ""),
        submitter=Children(project, domain, run, action=action, attempt=attempt) if reached else None,
    )


def _inputs(directory: Path, task: Task[..., Any]) -> dict[str, Any]:
    try:
        raw = (directory / INPUTS).read_bytes()
    except FileNotFoundError:
        raw = b""
    try:
        inputs = common_pb2.Inputs.FromString(raw)
    except DecodeError as fault:
        raise NonRecoverableError("The inputs of this attempt are damaged.") from fault
    return task.interface.decode_inputs(inputs)


def _call(task: Task[..., Any], values: dict[str, Any]) -> Any:
    """The function's result; an async function gets an event loop of its own."""
    if task.is_async:
        return asyncio.run(task.function(**values))
    return task.function(**values)


def _outputs(task: Task[..., Any], result: Any) -> common_pb2.Outputs:
    interface = task.interface
    if not interface.outputs and result is not None:
        print(  # noqa: T201 - the run's log is where its author looks
            f"{task.name} returned a {type(result).__name__}, but declares no result: it is dropped.",
            file=sys.stderr,
        )
        result = None
    try:
        return interface.encode_outputs(result)
    except RemoteTaskUsageError as fault:
        raise RuntimeUserError(f"{task.name}: {fault.message}") from None


def _failed(start: Start, raised: BaseException, *, recoverable: bool) -> int:
    gc.collect()  # after a MemoryError there may be room again
    if isinstance(raised, SystemExit):
        raised = RuntimeUserError(
            f"The task ended its process (exit status {raised.code!r}).", code="SystemExit"
        )
    message = report.describe(raised, bundle=start.bundle)
    with suppress(OSError, ValueError):
        print(message, file=sys.stderr)  # noqa: T201 - into the run's log
    document = report.error_document(raised, bundle=start.bundle, recoverable=recoverable)
    try:
        report.write(start.directory, report.ERROR, document)
    except OSError:
        return EXIT_FAILED
    return EXIT_OK


def _number(text: str) -> int:
    return int(text) if text.isdigit() else 1


def _flush() -> None:
    if "logging" in sys.modules:
        sys.modules["logging"].shutdown()
    for stream in (sys.stdout, sys.stderr):
        with suppress(OSError, ValueError, AttributeError):
            stream.flush()


def main() -> None:
    """Run the attempt that standard input describes, in this fresh interpreter."""
    try:
        start = Start.parse(sys.stdin.buffer.read())
    except MessageError as fault:
        print(f"flyte.runtime.task: {fault}", file=sys.stderr)  # noqa: T201
        sys.exit(EXIT_BAD_MESSAGE)
    null = os.open(os.devnull, os.O_RDONLY)
    os.dup2(null, 0)
    os.close(null)
    os._exit(run(start))


if __name__ == "__main__":
    main()
