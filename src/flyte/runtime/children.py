"""Calling other tasks from inside a running one: each call is an action of the same run.

The name of an action is made of its parent, its task, its inputs and how often the same was asked for before.
So a parent that is tried again asks for the same names and finds what is there already, finished or not.
"""

from __future__ import annotations

import asyncio
import base64
import contextlib
import hashlib
import threading
import weakref
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from flyteidl2.actions import actions_service_pb2 as actions
from flyteidl2.common import identifier_pb2
from flyteidl2.task import common_pb2, task_definition_pb2

from flyte import _init
from flyte._interface import Interface
from flyte._task import Task
from flyte.errors import FlyteError, NotInitializedError, RemoteNotFoundError, RemoteTaskUsageError
from flyte.runtime.updates import Updates
from flyte.transport.session import Session

_SERVICE = "/flyteidl2.actions.ActionsService/"
_DATA = "data:application/x-protobuf;base64,"
_DIGITS = "0123456789abcdefghijklmnopqrstuvwxyz"
_NAME_LENGTH = 24
_ABORT_SECONDS = 2.0


@dataclass(frozen=True, slots=True)
class Call:
    """A call of a task that is ready to be asked for: `local` is the task if its code is here."""

    identity: task_definition_pb2.TaskIdentifier
    interface: Interface
    inputs: bytes
    local: Task[..., Any] | None

    @property
    def key(self) -> str:
        """The same for the same call."""
        task = self.identity
        digest = hashlib.sha256(self.inputs).hexdigest()
        return f"{task.project}/{task.domain}/{task.name}@{task.version}#{digest}"


class Children:
    """What one attempt asks for. It may be used from several event loops."""

    def __init__(self, project: str, domain: str, run: str, *, action: str, attempt: int) -> None:
        self._run = identifier_pb2.RunIdentifier(project=project, domain=domain, name=run)
        self._parent = action
        self._attempt = attempt
        self._lock = threading.Lock()
        self._asked: Counter[str] = Counter()
        self._updates: weakref.WeakKeyDictionary[asyncio.AbstractEventLoop, Updates] = (
            weakref.WeakKeyDictionary()
        )

    async def submit(self, task: Any, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> Any:
        """Have the task run and give its result.

        Raises RunFailedError, RunAbortedError or RunTimedOutError with the child's message,
        PermissionDeniedError, RemoteTaskUsageError, ResourceExhaustedError for too many or too deep.
        """
        session = _init.ambient_session()
        if session is None:
            raise NotInitializedError
        local = isinstance(task, Task)
        call = _local(task, args, kwargs) if local else await _remote(session, task, args, kwargs)
        return await self.ask(session, call)

    async def ask(self, session: Session, call: Call) -> Any:
        """`submit` for a call that is ready, over this session."""
        number = self._count(call)
        updates = self._following(session)
        name = await self._choose(updates, call, number)
        ending = updates.expect(name)
        try:
            if not ending.done():
                await self._enqueue(session, name, call)
            update = await ending
        except asyncio.CancelledError:
            await self._abort(session, name)
            raise
        finally:
            updates.forget(name)
        outputs = await updates.outputs(update, task=call.identity.name)
        return call.interface.result(outputs)

    def close(self) -> None:
        """Hear of nothing any more on the running loop."""
        with self._lock:
            updates = self._updates.pop(asyncio.get_running_loop(), None)
        if updates is not None:
            updates.close()

    def _count(self, call: Call) -> int:
        with self._lock:
            number = self._asked[call.key]
            self._asked[call.key] += 1
            return number

    async def _choose(self, updates: Updates, call: Call, number: int) -> str:
        """The name: that of what a former attempt asked for, unless that has failed by then."""
        if self._attempt == 1:
            return self.name(call, number)
        before = await updates.before()
        for turn in range(self._attempt):
            name = self.name(call, number, turn)
            if name not in before or not updates.has_failed(before[name]):
                break
        return name

    def name(self, call: Call, number: int, turn: int = 0) -> str:
        """The name of the action for a call that was made so often before, and failed in so many attempts."""
        text = "\0".join((self._parent, call.key, str(number), str(turn)))
        value = int.from_bytes(hashlib.sha256(text.encode()).digest(), "big")
        digits = []
        for _ in range(_NAME_LENGTH):
            value, digit = divmod(value, len(_DIGITS))
            digits.append(_DIGITS[digit])
        return "".join(digits)

    def _following(self, session: Session) -> Updates:
        loop = asyncio.get_running_loop()
        with self._lock:
            updates = self._updates.get(loop)
            if updates is None:
                parent = identifier_pb2.ActionIdentifier(run=self._run, name=self._parent)
                updates = self._updates[loop] = Updates(session, parent)
            return updates

    async def _enqueue(self, session: Session, name: str, call: Call) -> None:
        request = actions.EnqueueRequest()
        action = request.action
        action.action_id.run.CopyFrom(self._run)
        action.action_id.name = name
        action.parent_action_name = self._parent
        action.input_uri = _DATA + base64.b64encode(call.inputs).decode()
        action.task.id.CopyFrom(call.identity)
        try:
            await self._ask(session, request)
        except RemoteNotFoundError as error:
            if call.local is None:
                raise
            # not deployed with the parent: send along what it is
            from flyte._deploy.specs import task_spec

            action.task.spec.CopyFrom(task_spec(call.local, module=call.local.module))
            try:
                await self._ask(session, request)
            except FlyteError as refused:
                refused.hint = (
                    refused.hint or f"Deploy {call.local.environment.name!r} along with the parent."
                )
                raise refused from error

    @staticmethod
    async def _ask(session: Session, request: actions.EnqueueRequest) -> None:
        # by its name a repetition is known
        await session.unary(f"{_SERVICE}Enqueue", request, actions.EnqueueResponse, deduplicated=True)

    async def _abort(self, session: Session, name: str) -> None:
        """Nobody waits for it any more. If this does not reach the platform, the parent's end does it."""
        request = actions.AbortRequest(reason="Its parent does not wait for it any more.")
        request.action_id.run.CopyFrom(self._run)
        request.action_id.name = name
        with contextlib.suppress(FlyteError, TimeoutError):
            async with asyncio.timeout(_ABORT_SECONDS):
                await session.unary(f"{_SERVICE}Abort", request, actions.AbortResponse, idempotent=True)


def _local(task: Task[..., Any], args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> Call:
    """A task of this code: where it is deployed and in which version, the platform knows from the parent."""
    inputs = task.interface.encode_inputs(args, **kwargs)
    identity = task_definition_pb2.TaskIdentifier(name=task.name)
    return Call(identity, task.interface, _packed(inputs), task)


async def _remote(session: Session, task: Any, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> Call:
    from flyte.remote import Task as RemoteTask
    from flyte.remote import _task

    if not isinstance(task, RemoteTask):
        raise RemoteTaskUsageError(f"A {type(task).__name__} is no task.")
    if args:
        raise _task.positional(task.name)
    with _init.use_session(session):
        details = await _task.details(session, task)
    inputs = details.interface.encode_inputs((), **kwargs)
    identity = _task.identifier(_task.key_of(session, task), task.version or "")
    return Call(identity, details.interface, _packed(inputs), None)


def _packed(inputs: common_pb2.Inputs) -> bytes:
    packed: bytes = inputs.SerializeToString(deterministic=True)
    return packed
