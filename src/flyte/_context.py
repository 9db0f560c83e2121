"""What belongs to the present call and not to the process: session, caller, task.

The only context variables of the package live here. They follow asyncio tasks, `asyncio.to_thread` and the
thread pools of web frameworks by themselves. They do not follow a bare `threading.Thread`: wrap its target in
`carry_context`.
"""

from __future__ import annotations

import contextlib
import contextvars
import functools
import inspect
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, ParamSpec, Protocol, TypeVar, cast

P = ParamSpec("P")
R = TypeVar("R")

Pairs = tuple[tuple[str, str], ...]
"""Caller metadata: header names in lower case, each at most once, and their values."""


class Submitter(Protocol):
    """What a task call inside a run is handed to: it starts a sub-run and answers with its result."""

    async def submit(self, task: Any, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> Any: ...


@dataclass(frozen=True, slots=True)
class Executor:
    """Whom a task runs as.

    :ivar subject: the name that rights and records go by.
    :ivar name: the person's own name; empty where none is known.
    """

    subject: str
    name: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class TaskContext:
    """The attempt in which this process runs: what `flyte.ctx()` gives inside a task. It cannot be changed.

    All of it is public and nothing in here is a credential. It tells; what the executor may do is decided
    elsewhere, at each call.

    :ivar executor: whom the task runs as.
    :ivar action: `a0` for the run itself, another name for a task that a task called.
    :ivar task: the qualified name, `<environment>.<function>`.
    :ivar task_project: where the task is deployed, which may be elsewhere than it runs; so task_domain.
    :ivar version: the version that runs; empty where the platform did not say.
    :ivar attempt: counts from 1.
    :ivar image: the name of the image.
    :ivar code_digest: the SHA-256 of the code bundle; empty where the code is part of the image.
    :ivar via_app: `project/domain/name` of the app that the run came through; empty for a direct call.
    :ivar submitter: where calls of other tasks go; None runs them here, as plain functions.
    """

    project: str
    domain: str
    run: str
    action: str = "a0"
    org: str = ""
    executor: Executor = Executor("")
    task: str = ""
    task_project: str = ""
    task_domain: str = ""
    version: str = ""
    attempt: int = 1
    image: str = ""
    code_digest: str = ""
    via_app: str = ""
    submitter: Submitter | None = field(default=None, repr=False)


_session: contextvars.ContextVar[object | None] = contextvars.ContextVar("flyte_session", default=None)
_caller: contextvars.ContextVar[Pairs | None] = contextvars.ContextVar("flyte_caller", default=None)
_task: contextvars.ContextVar[TaskContext | None] = contextvars.ContextVar("flyte_task", default=None)

# A task process runs one attempt and nothing else, so this holds for its bare threads, too.
_process_task: TaskContext | None = None


def session_override() -> object | None:
    """The session that a `use_session` block put in force, or None."""
    return _session.get()


@contextlib.contextmanager
def session_scope(session: object) -> Iterator[None]:
    """Put `session` in force inside the block, in this context alone."""
    token = _session.set(session)
    try:
        yield
    finally:
        _session.reset(token)


def caller() -> Pairs | None:
    """The caller metadata in force, or None."""
    return _caller.get()


@contextlib.contextmanager
def caller_scope(pairs: Pairs | None) -> Iterator[None]:
    """Put caller metadata in force inside the block: it replaces an outer set, which returns afterwards."""
    token = _caller.set(pairs)
    try:
        yield
    finally:
        _caller.reset(token)


def enter_caller(pairs: Pairs | None) -> contextvars.Token[Pairs | None]:
    """The first half of `caller_scope`, for a place that is passed once a request."""
    return _caller.set(pairs)


def leave_caller(entered: contextvars.Token[Pairs | None]) -> None:
    """The second half, in the same context."""
    _caller.reset(entered)


def task() -> TaskContext | None:
    """The attempt that this code belongs to, or None outside tasks."""
    return _task.get() or _process_task


def ctx() -> TaskContext | None:
    """The facts of the running task: executor, run, attempt, task, version, image; None outside of tasks."""
    return task()


@contextlib.contextmanager
def task_scope(context: TaskContext) -> Iterator[None]:
    """Make the code of the block part of that attempt."""
    token = _task.set(context)
    try:
        yield
    finally:
        _task.reset(token)


def enter_task(context: TaskContext | None) -> None:
    """Declare the whole process part of one attempt. The in-task runtime calls this once."""
    global _process_task  # noqa: PLW0603 - one process, one attempt
    _process_task = context


@dataclass(frozen=True, slots=True)
class Snapshot:
    """The three values as they were at one moment."""

    session: object | None
    caller: Pairs | None
    task: TaskContext | None

    @contextlib.contextmanager
    def applied(self) -> Iterator[None]:
        """Put these values in force inside the block."""
        tokens = (_session.set(self.session), _caller.set(self.caller), _task.set(self.task))
        try:
            yield
        finally:
            _task.reset(tokens[2])
            _caller.reset(tokens[1])
            _session.reset(tokens[0])


def capture() -> Snapshot:
    """Remember session, caller and task of this moment."""
    return Snapshot(_session.get(), _caller.get(), _task.get())


def carry_context(function: Callable[P, R]) -> Callable[P, R]:
    """Tie `function` to the session, caller and task of this moment, wherever it is called later.

    Use it for bare threads, which start without any context::

        threading.Thread(target=flyte.remote.carry_context(work)).start()

    Works for functions and for coroutine functions. Whoever holds the result can act as the caller, for as
    long as the caller's credential is valid.
    """
    snapshot = capture()
    if inspect.iscoroutinefunction(function):

        @functools.wraps(function)
        async def carried_coroutine(*args: P.args, **kwargs: P.kwargs) -> Any:
            with snapshot.applied():
                return await function(*args, **kwargs)

        return cast("Callable[P, R]", carried_coroutine)

    @functools.wraps(function)
    def carried(*args: P.args, **kwargs: P.kwargs) -> R:
        with snapshot.applied():
            return function(*args, **kwargs)

    return carried
