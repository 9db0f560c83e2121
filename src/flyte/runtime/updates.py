"""How the children of a running task stand, from one stream that stays open for as long as it is needed."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Mapping
from typing import Any

from flyteidl2.actions import actions_service_pb2 as actions
from flyteidl2.common import identifier_pb2
from flyteidl2.dataproxy import dataproxy_service_pb2 as data
from flyteidl2.task import common_pb2

from flyte.errors import (
    FlyteError,
    PermissionDeniedError,
    RunAbortedError,
    RunFailedError,
    RunTimedOutError,
    UnavailableError,
)
from flyte.remote import Phase
from flyte.transport import connect
from flyte.transport.session import Session

_WATCH = "/flyteidl2.actions.ActionsService/WatchForUpdates"
_DATA = "/flyteidl2.dataproxy.DataProxyService/GetActionData"
_MAX_BREAKS = 8
_NOT_PERMITTED = "NotPermitted"


class Updates:
    """The stream of one parent on one event loop; it begins with the first question."""

    def __init__(self, session: Session, parent: identifier_pb2.ActionIdentifier) -> None:
        self._session = session
        self._parent = parent
        self._ended: dict[str, Any] = {}
        self._expected: dict[str, asyncio.Future[Any]] = {}
        self._before: dict[str, Phase] = {}
        self._complete = asyncio.Event()
        self._fault: FlyteError | None = None
        self._reading: asyncio.Task[None] | None = None

    async def before(self) -> Mapping[str, Phase]:
        """What was there when the stream began: the children of former attempts."""
        self._begin()
        await self._complete.wait()
        if self._fault is not None:
            raise self._fault
        return self._before

    @staticmethod
    def has_failed(phase: Phase) -> bool:
        """Whether a child gives no result in this state."""
        return phase.is_terminal and not phase.is_good

    def expect(self, name: str) -> asyncio.Future[Any]:
        """The last update of a child, once it has ended."""
        self._begin()
        future = self._expected.get(name)
        if future is None:
            future = self._expected[name] = asyncio.get_running_loop().create_future()
            if name in self._ended:
                future.set_result(self._ended[name])
            elif self._fault is not None:
                future.set_exception(self._fault)
        return future

    def forget(self, name: str) -> None:
        """Nobody waits for that child any more."""
        future = self._expected.pop(name, None)
        if future is None or future.cancelled():
            return
        if future.done():
            future.exception()  # looked at, whether somebody wanted it or not
        else:
            future.cancel()

    def close(self) -> None:
        """Read no further."""
        if self._reading is not None:
            self._reading.cancel()

    async def outputs(self, update: Any, *, task: str) -> common_pb2.Outputs:
        """The outputs of a child that has ended. Raises the error that says why there are none."""
        phase = Phase.of(update.phase)
        if not phase.is_good:
            raise _failure(phase, update, task=task)
        if update.value.HasField("map"):
            values = update.value.map.literals
            outputs = common_pb2.Outputs()
            for name in values:
                outputs.literals.add(name=name).value.CopyFrom(values[name])
            return outputs
        request = data.GetActionDataRequest(action_id=update.action_id)
        answer = await self._session.unary(_DATA, request, data.GetActionDataResponse, idempotent=True)
        return answer.outputs

    def _begin(self) -> None:
        if self._reading is None:
            self._reading = asyncio.get_running_loop().create_task(self._read())

    async def _read(self) -> None:
        """Read the stream; one that breaks is taken up again, and then tells everything once more."""
        breaks = 0
        while True:
            try:
                request = actions.WatchForUpdatesRequest(parent_action_id=self._parent)
                stream = self._session.stream(_WATCH, request, actions.WatchForUpdatesResponse)
                async with contextlib.aclosing(stream) as answers:
                    async for answer in answers:
                        breaks = 0
                        self._take(answer)
                fault: FlyteError = UnavailableError("The control plane does not tell how the tasks go on.")
            except UnavailableError as error:
                fault = error
            except FlyteError as error:
                self._fail(error)
                return
            breaks += 1
            if breaks > _MAX_BREAKS:
                self._fail(fault)
                return
            await asyncio.sleep(connect.backoff(breaks))

    def _take(self, answer: Any) -> None:
        if answer.WhichOneof("message") == "control_message":
            self._complete.set()
            return
        update = answer.action_update
        name, phase = str(update.action_id.name), Phase.of(update.phase)
        if not self._complete.is_set():
            self._before[name] = phase
        if not phase.is_terminal:
            return
        future = self._expected.get(name)
        if future is None:
            self._ended[name] = update
        elif not future.done():
            future.set_result(update)

    def _fail(self, error: FlyteError) -> None:
        self._fault = error
        self._complete.set()
        for future in self._expected.values():
            if not future.done():
                future.set_exception(error)


def _failure(phase: Phase, update: Any, *, task: str) -> FlyteError:
    message, run = str(update.error.message), str(update.action_id.run.name)
    detail = f": {message}" if message else "."
    match phase:
        case Phase.ABORTED:
            return RunAbortedError(f"The task {task} was aborted{detail}", run=run)
        case Phase.TIMED_OUT:
            return RunTimedOutError(f"The task {task} took too long{detail}", run=run)
        case _ if update.error.code == _NOT_PERMITTED:
            return PermissionDeniedError(f"The task {task} was not let run{detail}")
        case _:
            return RunFailedError(f"The task {task} failed{detail}", run=run)
