"""Runs: what was started, how it stands, what it gave."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncGenerator, AsyncIterator, Iterable, Iterator, Sequence
from typing import Any

from flyteidl2.common import identifier_pb2, list_pb2
from flyteidl2.dataproxy import dataproxy_service_pb2 as data
from flyteidl2.workflow import run_definition_pb2 as wire
from flyteidl2.workflow import run_service_pb2 as service

from flyte._init import current_session
from flyte._interface import Interface
from flyte._syncify import syncify, syncify_class
from flyte.errors import (
    FailedPreconditionError,
    RemoteNotFoundError,
    RemoteRunNotFoundError,
    UnavailableError,
)
from flyte.remote._filters import run_filters
from flyte.remote._logs import LogLine, what_is_there
from flyte.remote._outcome import Outputs
from flyte.remote._standing import Standing
from flyte.remote._user import User
from flyte.remote._wire import newest_first, pages
from flyte.transport import connect
from flyte.transport.session import Session

_SERVICE = "/flyteidl2.workflow.RunService/"
_DATA = "/flyteidl2.dataproxy.DataProxyService/"
_MAX_BREAKS = 5
_DRAIN_SECONDS = 0.5


class Run(Standing):
    """A run as it stood when last asked for. `wait`, `watch` and `sync` ask again, as the caller of then.

    Values are never kept here: `inputs()`, `outputs()` and `logs()` ask the control plane each time.
    """

    @syncify_class
    @classmethod
    async def get(cls, name: str, project: str | None = None, domain: str | None = None) -> Run:
        """One run. Raises RemoteRunNotFoundError when there is none that the caller may see."""
        session = current_session()
        project, domain = session.scope(project, domain)
        identity = identifier_pb2.RunIdentifier(org=session.org, project=project, domain=domain, name=name)
        answer = await _run_details(session, identity)
        run = cls(
            session,
            identity=answer.action.id.run,
            metadata=answer.action.metadata,
            status=answer.action.status,
            labels=answer.run_spec.labels.values,
        )
        run._take(answer)
        return run

    @syncify_class
    @classmethod
    async def listall(
        cls,
        *,
        project: str | None = None,
        domain: str | None = None,
        only_mine: bool = False,
        created_by: str | None = None,
        phase: str | Iterable[str] | None = None,
        task_name: str | None = None,
        task_version: str | None = None,
        limit: int | None = 100,
    ) -> AsyncIterator[Run]:
        """The runs that the caller may see, newest first.

        :param only_mine: those that run as the caller.
        :param created_by: those that run as this subject.
        :param phase: the name of a phase, or several.
        :param limit: None gives all.
        """
        session = current_session()
        project, domain = session.scope(project, domain)
        if only_mine:
            mine = (await User.get.aio()).subject()
            if created_by not in (None, mine):
                return
            created_by = mine
        filters = run_filters(
            created_by=created_by, phase=phase, task_name=task_name, task_version=task_version
        )

        async def fetch(size: int, token: str) -> tuple[Sequence[wire.Run], str]:
            request = service.ListRunsRequest(
                request=list_pb2.ListRequest(
                    limit=size, token=token, sort_by=newest_first(), filters=filters
                ),
                project_id=identifier_pb2.ProjectIdentifier(
                    organization=session.org, name=project, domain=domain
                ),
            )
            answer = await session.unary(
                f"{_SERVICE}ListRuns", request, service.ListRunsResponse, idempotent=True
            )
            return answer.runs, answer.token

        async for each in pages(fetch, limit=limit):
            yield cls.from_wire(session, each)

    @syncify
    async def sync(self) -> Run:
        """Ask how it stands, as the caller of this moment. Gives the run itself."""
        self._take(await _run_details(current_session(), self._id))
        return self

    @syncify
    async def watch(self) -> AsyncIterator[Run]:
        """The run itself, at once and after each change, until it has ended."""
        async with contextlib.aclosing(self._changes(current_session())) as changes:
            async for _ in changes:
                yield self

    @syncify
    async def wait(self, *, timeout: float | None = None) -> Run:  # noqa: ASYNC109 - what users expect here
        """Wait until it has ended, however. Gives the run itself; `raise_for_status` tells how.

        :param timeout: seconds; TimeoutError afterwards, and the run goes on.
        """
        session = current_session()
        async with asyncio.timeout(timeout):
            async for _ in self._changes(session):
                pass
        return self

    @syncify
    async def inputs(self) -> dict[str, Any]:
        """The values it was started with, by name, defaults included."""
        session = current_session()
        interface = await self._interface(session)
        return interface.decode_inputs((await self._data(session)).inputs)

    @syncify
    async def outputs(self) -> Outputs:
        """What it gave. Raises RunError when it ended otherwise, FailedPreconditionError while it goes on."""
        session = current_session()
        interface = await self._interface(session)
        error = self._failure()
        if error is not None:
            raise error
        if not self.done:
            raise FailedPreconditionError(
                f"The run {self.name} is {self.phase} and has no outputs yet.", hint="Call run.wait() first."
            )
        return Outputs(interface.decode_outputs((await self._data(session)).outputs))

    @syncify
    async def logs(self, *, attempt: int | None = None, follow: bool = True) -> AsyncIterator[LogLine]:
        """What an attempt wrote, line by line.

        :param attempt: counts from 1; None is the last one.
        :param follow: go on until the attempt has ended; otherwise only what it has written so far.
        """
        session = current_session()
        await self._begun(session, follow=follow)
        number = attempt or self.attempts
        if number < 1 or (attempt is None and not self._has_begun()):
            return
        request = data.TailLogsRequest(action_id=self._action(), attempt=number)
        source = session.stream(f"{_DATA}TailLogs", request, data.TailLogsResponse)
        to_the_end = follow or self.done
        answers = source if to_the_end else what_is_there(source, session, lines=lambda each: len(each.logs))
        with _as_run(self._id):
            async for answer in answers:
                for batch in answer.logs:
                    for line in batch.lines:
                        yield LogLine.of(line)

    @syncify
    async def abort(self, reason: str = "") -> None:
        """End it. Raises FailedPreconditionError when it has ended, PermissionDeniedError."""
        request = service.AbortRunRequest(run_id=self._id, reason=reason or None)
        with _as_run(self._id):
            await current_session().unary(
                f"{_SERVICE}AbortRun", request, service.AbortRunResponse, idempotent=True
            )

    @syncify
    async def to_dict(self) -> dict[str, Any]:
        """Everything that scripts ask for: asks for the details and, once it succeeded, the outputs."""
        await self.sync.aio()
        outputs = dict((await self.outputs.aio()).named) if self.phase.is_good else None
        return {**self.summary(), "error": self.error or None, "outputs": outputs}

    async def _changes(self, session: Session) -> AsyncGenerator[None, None]:
        """Each state from now on, the last one being terminal. A broken stream is taken up again."""
        request = service.WatchActionDetailsRequest(action_id=self._action())
        breaks = 0
        while True:
            stream = session.stream(
                f"{_SERVICE}WatchActionDetails", request, service.WatchActionDetailsResponse
            )
            try:
                async with contextlib.aclosing(stream) as answers:
                    with _as_run(self._id):
                        async for answer in answers:
                            breaks = 0
                            self._take_action(answer.details)
                            yield
                            if self.done:
                                await _drain(answers)
                                return
            except UnavailableError:
                if breaks >= _MAX_BREAKS:
                    raise
            # The stream ended before the run did.
            breaks += 1
            if breaks > _MAX_BREAKS:
                raise UnavailableError(f"The control plane does not tell how the run {self.name} goes on.")
            await asyncio.sleep(connect.backoff(breaks))

    async def _begun(self, session: Session, *, follow: bool) -> None:
        """Ask how it stands; with `follow`, wait until an attempt has begun."""
        await self.sync.aio()
        if not follow or self._has_begun():
            return
        async with contextlib.aclosing(self._changes(session)) as changes:
            async for _ in changes:
                if self._has_begun():
                    return

    async def _interface(self, session: Session) -> Interface:
        known = self._details
        if known is not None and self.done and known.HasField("task"):  # nothing of it changes any more
            spec = known.task
            return Interface.from_wire(spec.task_template.interface, spec.default_inputs)
        request = service.GetActionDetailsRequest(action_id=self._action())
        with _as_run(self._id):
            answer = await session.unary(
                f"{_SERVICE}GetActionDetails", request, service.GetActionDetailsResponse, idempotent=True
            )
        self._take_action(answer.details)
        spec = answer.details.task
        return Interface.from_wire(spec.task_template.interface, spec.default_inputs)

    async def _data(self, session: Session) -> data.GetActionDataResponse:
        request = data.GetActionDataRequest(action_id=self._action())
        with _as_run(self._id):
            return await session.unary(
                f"{_DATA}GetActionData", request, data.GetActionDataResponse, idempotent=True
            )


async def _run_details(session: Session, identity: identifier_pb2.RunIdentifier) -> wire.RunDetails:
    request = service.GetRunDetailsRequest(run_id=identity)
    with _as_run(identity):
        answer = await session.unary(
            f"{_SERVICE}GetRunDetails", request, service.GetRunDetailsResponse, idempotent=True
        )
    return answer.details


async def _drain(answers: AsyncGenerator[Any, None]) -> None:
    """Read the end of a stream that has nothing more to say, so that its connection can serve again."""
    with contextlib.suppress(TimeoutError, UnavailableError):
        async with asyncio.timeout(_DRAIN_SECONDS):
            async for _ in answers:
                pass


@contextlib.contextmanager
def _as_run(identity: identifier_pb2.RunIdentifier) -> Iterator[None]:
    """Say of what is not found that it is this run."""
    try:
        yield
    except RemoteNotFoundError as error:
        raise RemoteRunNotFoundError(
            f"There is no run {identity.name} in {identity.project}/{identity.domain}, "
            "or none that you may see.",
            code=error.code,
        ) from error
