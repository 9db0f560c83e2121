"""QueueService, StateService and ActionsService: two spellings of the same three calls of a running task."""

from __future__ import annotations

import json
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import aclosing
from typing import Any

from flyteidl2.actions import actions_service_pb2
from flyteidl2.common import identifier_pb2
from flyteidl2.core import execution_pb2
from flyteidl2.task import common_pb2
from flyteidl2.workflow import queue_service_pb2, state_service_pb2

from tower.control.subactions import Ask, SubActions
from tower.control.traces import Traced
from tower.control.watching import ActionKey, ActionRow
from tower.errors import Denied, Exhausted, Invalid, Precondition, Unsupported
from tower.rpc import actions
from tower.rpc.caller import Call, current
from tower.states import Phase

_KINDS = {"user": execution_pb2.ExecutionError.USER, "system": execution_pb2.ExecutionError.SYSTEM}


class QueueService:
    """flyteidl2.workflow.QueueService."""

    def __init__(self, subactions: SubActions) -> None:
        self._subactions = subactions

    async def enqueue_action(self, request: Any, ctx: Any) -> Any:
        """Accept a child of the calling task."""
        await _enqueue(self._subactions, request)
        return queue_service_pb2.EnqueueActionResponse()

    async def abort_queued_action(self, request: Any, ctx: Any) -> Any:
        """End a child of the calling task."""
        await _abort(self._subactions, request)
        return queue_service_pb2.AbortQueuedActionResponse()

    async def abort_queued_run(self, request: Any, ctx: Any) -> Any:
        """Not offered: RunService has it."""
        raise Unsupported("Runs are aborted by the run service.")


class StateService:
    """flyteidl2.workflow.StateService."""

    def __init__(self, subactions: SubActions) -> None:
        self._subactions = subactions

    async def watch(self, request: Any, ctx: Any) -> AsyncIterator[Any]:
        """The children of the calling task, a sentinel, then each change."""
        follow = _follow(self._subactions, request, state_service_pb2.WatchResponse)
        async with aclosing(follow) as answers:
            async for answer in answers:
                yield answer

    async def put(self, request: Any, ctx: Any) -> Any:
        """Not offered: the state of an action is Tower's alone."""
        raise Unsupported("The state of an action is set by Tower alone.")

    async def get(self, request: Any, ctx: Any) -> Any:
        """Not offered."""
        raise Unsupported("The state of an action is followed by Watch.")


class ActionsService:
    """flyteidl2.actions.ActionsService."""

    def __init__(self, subactions: SubActions) -> None:
        self._subactions = subactions

    async def enqueue(self, request: Any, ctx: Any) -> Any:
        """Accept a child of the calling task."""
        await _enqueue(self._subactions, request.action)
        return actions_service_pb2.EnqueueResponse()

    async def watch_for_updates(self, request: Any, ctx: Any) -> AsyncIterator[Any]:
        """The children of the calling task, a sentinel, then each change."""
        follow = _follow(self._subactions, request, actions_service_pb2.WatchForUpdatesResponse)
        async with aclosing(follow) as answers:
            async for answer in answers:
                yield answer

    async def abort(self, request: Any, ctx: Any) -> Any:
        """End a child of the calling task."""
        await _abort(self._subactions, request)
        return actions_service_pb2.AbortResponse()

    async def update(self, request: Any, ctx: Any) -> Any:
        """Not offered: the state of an action is Tower's alone."""
        raise Unsupported("The state of an action is set by Tower alone.")

    async def signal(self, request: Any, ctx: Any) -> Any:
        """Not offered."""
        raise Unsupported("Conditions are not offered by this Tower.")


async def _enqueue(subactions: SubActions, asked: Any) -> None:
    """`asked` is an EnqueueActionRequest or an Action; who it claims to be for is not read (T10, T38)."""
    call = current()
    try:
        await _accept(subactions, asked, call)
    except (Denied, Exhausted, Precondition, Unsupported) as fault:
        if not subactions.hosted(call.principal):
            raise
        # the official client asks again, for minutes or for ever, after every other code
        raise Invalid(fault.message, hint=fault.hint, cause=fault.cause) from fault


async def _accept(subactions: SubActions, asked: Any, call: Call) -> None:
    kind = asked.WhichOneof("spec")
    if kind == "trace":
        key = actions.key_of(asked.action_id)
        step = Traced(key.action, asked.trace.phase, asked.trace.outputs.output_uri)
        await subactions.trace(call.principal, key, asked.parent_action_name, step=step)
        return
    if kind != "task":
        raise Unsupported("Conditions are not offered by this Tower.")
    named = asked.task.id
    template = asked.task.spec.task_template
    ask = Ask(
        key=actions.key_of(asked.action_id),
        parent=asked.parent_action_name,
        task=(named.project, named.domain, named.name or template.id.name),
        version=named.version,
        spec=asked.task.spec if asked.task.HasField("spec") else None,
        inputs_uri=asked.input_uri,
    )
    await subactions.enqueue(call.principal, ask, request_id=call.request_id)


async def _abort(subactions: SubActions, request: Any) -> None:
    call = current()
    await subactions.abort(
        call.principal,
        actions.key_of(request.action_id),
        reason=request.reason,
        request_id=call.request_id,
    )


async def _follow(subactions: SubActions, request: Any, answer: Any) -> AsyncGenerator[Any, None]:
    call = current()
    named = actions.key_of(request.parent_action_id)
    follow = subactions.follow(call.principal, named, request_id=call.request_id)
    async with aclosing(follow) as updates:
        async for update in updates:
            made = answer()
            if update is None:
                made.control_message.sentinel = True
            elif isinstance(update, Traced):
                _tell(update, named, made.action_update)
            else:
                _describe(update.row, update.outputs, made.action_update)
                if subactions.hosted(call.principal) and update.row.phase is Phase.SUCCEEDED:
                    made.action_update.ClearField("value")
                    made.action_update.output_uri = await subactions.hand_over(call.principal, update.row)
            yield made


def _tell(step: Traced, parent: ActionKey, update: Any) -> None:
    """A step of the caller's own, as it told it."""
    identity = update.action_id
    identity.name = step.action
    identity.run.project, identity.run.domain, identity.run.name = parent[:3]
    update.phase = step.phase
    update.output_uri = step.outputs_uri


def _describe(row: ActionRow, outputs: bytes | None, update: Any) -> None:
    """A child as it stands. Small outputs come along as `value`, a map by name: no further call is needed."""
    identity = update.action_id
    identity.name = row.action
    run: identifier_pb2.RunIdentifier = identity.run
    run.project, run.domain, run.name = row.project, row.domain, row.run
    update.phase = int(row.phase)
    update.output_uri = row.outputs_uri
    if outputs is not None:
        values = update.value.map.literals
        update.value.map.SetInParent()
        for each in common_pb2.Outputs.FromString(outputs).literals:
            values[each.name].CopyFrom(each.value)
    if row.abort_reason:
        update.error.message = row.abort_reason
    elif row.error:
        error = json.loads(row.error)
        update.error.message = error.get("message", "")
        update.error.code = error.get("code", "")
        update.error.kind = _KINDS.get(error.get("kind", ""), execution_pb2.ExecutionError.UNKNOWN)
