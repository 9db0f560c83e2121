"""Starting a run of a deployed task, or of one declared here."""

from __future__ import annotations

import contextlib
from collections.abc import Coroutine, Mapping
from dataclasses import dataclass, field
from datetime import timedelta
from typing import TYPE_CHECKING, Any

from flyte import _context
from flyte._init import current_session
from flyte._syncify import syncify
from flyte._task import Task as LocalTask
from flyte.errors import (
    RemoteNotFoundError,
    RemoteTaskUsageError,
    RemoteUsageError,
)

if TYPE_CHECKING:
    from flyteidl2.task import common_pb2
    from flyteidl2.workflow import run_service_pb2

    from flyte.remote import Run, Task, TaskDetails
    from flyte.transport.session import Session

_CREATE_RUN = "/flyteidl2.workflow.RunService/CreateRun"
GRANT = "tower/grant"
"""The annotation with the seconds of a grant."""


@dataclass(frozen=True, slots=True, kw_only=True)
class RunContext:
    """How a run is to be started. Made by `with_runcontext`; `None` leaves the choice to the task.

    :ivar project: where the run belongs; None is the task's own project.
    :ivar domain: where the run belongs; None is the task's own domain.
    :ivar name: the run's name; None lets the control plane choose one.
    :ivar env_vars: environment variables of the task's process, besides those that it declares.
    :ivar labels: names and values to find the run by.
    :ivar grant: how long the run may act for the caller at most; None is as long as the control plane gives.
    """

    project: str | None = None
    domain: str | None = None
    name: str | None = None
    env_vars: Mapping[str, str] = field(default_factory=dict)
    labels: Mapping[str, str] = field(default_factory=dict)
    overwrite_cache: bool = False
    interruptible: bool | None = None
    grant: timedelta | None = None

    @syncify
    async def run(self, task: Task | LocalTask[..., Any], /, *args: Any, **inputs: Any) -> Run:
        """As `flyte.run`, with these settings."""
        return await _start(self, task, args, inputs)


def with_runcontext(
    *,
    project: str | None = None,
    domain: str | None = None,
    name: str | None = None,
    env_vars: Mapping[str, str] | None = None,
    labels: Mapping[str, str] | None = None,
    overwrite_cache: bool = False,
    interruptible: bool | None = None,
    grant: timedelta | None = None,
) -> RunContext:
    """Settings for a run: `flyte.with_runcontext(name="nightly").run(task, x=1)`."""
    return RunContext(
        project=project,
        domain=domain,
        name=name,
        env_vars=dict(env_vars or {}),
        labels=dict(labels or {}),
        overwrite_cache=overwrite_cache,
        interruptible=interruptible,
        grant=grant,
    )


@syncify
async def run(task: Task | LocalTask[..., Any], /, *args: Any, **inputs: Any) -> Run:
    """Start a run of `task` and give it back as soon as it is accepted.

    It runs as the caller of this moment. Inputs are checked before anything is created. Any name may be the
    name of an input; settings of the run are given by `with_runcontext`.

    :param task: a deployed task, from `flyte.remote.Task.get`, or one declared in this process, which is
        deployed first.
    :raises RemoteTaskNotFoundError: there is no such task, or none that the caller may see.
    :raises RemoteTaskUsageError: an input is unknown, missing, given by position, or of a wrong type.
    :raises PermissionDeniedError: the caller may see the task and may not run it.
    :raises UnauthenticatedError: there is no caller, or one that the control plane does not know.
    :raises UnavailableError: the control plane cannot be reached.
    """
    return await _start(RunContext(), task, args, inputs)


def _start(
    context: RunContext, task: object, args: tuple[Any, ...], inputs: Mapping[str, Any]
) -> Coroutine[Any, Any, Run]:
    from flyte.remote import Task

    if isinstance(task, Task):
        return _remote(context, task, args, inputs)
    if isinstance(task, LocalTask):
        return _local(context, task, args, inputs)
    raise RemoteTaskUsageError(
        f"flyte.run takes a task, not {type(task).__name__}.",
        hint="Use flyte.remote.Task.get(...), or a function decorated by @env.task.",
    )


async def _local(
    context: RunContext, task: LocalTask[..., Any], args: tuple[Any, ...], inputs: Mapping[str, Any]
) -> Run:
    """Deploy the task's environment under a version that its code decides, then run that version."""
    from flyte._deploy import register

    encoded = task.interface.encode_inputs(args, **inputs)
    session = current_session()
    here = _context.task()
    if here is not None and here.version and here.submitter is not None:
        # inside a task: the same code is deployed already, as a rule
        from flyte.remote import Task as RemoteTask

        same = RemoteTask(task.name, project=here.task_project, domain=here.task_domain, version=here.version)
        with contextlib.suppress(RemoteNotFoundError):
            return await _create(session, context, same, encoded)
    deployed = await register(task, project=context.project, domain=context.domain)
    return await _create(session, context, deployed, encoded)


async def _remote(context: RunContext, task: Task, args: tuple[Any, ...], inputs: Mapping[str, Any]) -> Run:
    from flyte.remote import _task

    if args:
        raise _task.positional(task.name)
    session = current_session()
    details = await _task.details(session, task)
    # The latest may have changed since its details were kept; then they are fetched once more.
    fresh = task.version is not None or not session.is_tower
    while True:
        try:
            encoded = details.interface.encode_inputs((), **inputs)
            return await _create(session, context, task, _given(session, task, encoded, inputs), details)
        except (RemoteTaskUsageError, RemoteUsageError) as error:
            if fresh:
                raise _usage(error) from error
            fetched = await _task.fetch(session, task)
            if fetched.version == details.version:
                raise _usage(error) from error
            details, fresh = fetched, True
        except RemoteNotFoundError as error:
            key = _task.key_of(session, task)
            _task.kept.drop(key)
            raise _task.not_found(key, error) from error


def _usage(error: RemoteUsageError) -> RemoteTaskUsageError:
    if isinstance(error, RemoteTaskUsageError):
        return error
    return RemoteTaskUsageError(error.message, code=error.code, hint=error.hint)


def _given(
    session: Session, task: Task, encoded: common_pb2.Inputs, inputs: Mapping[str, Any]
) -> common_pb2.Inputs:
    """Without the defaults, where the server chooses the version: the defaults are that version's."""
    if task.version is not None or not session.is_tower:
        return encoded
    from flyteidl2.task import common_pb2

    return common_pb2.Inputs(literals=[each for each in encoded.literals if each.name in inputs])


async def _create(
    session: Session,
    context: RunContext,
    task: Task,
    inputs: common_pb2.Inputs,
    details: TaskDetails | None = None,
) -> Run:
    """One CreateRun. Of Tower the latest version is asked for as such; others are told which it is."""
    from flyteidl2.workflow import run_service_pb2

    from flyte.remote import Run, _task

    version = task.version or ("" if session.is_tower or details is None else details.version)
    key = _task.key_of(session, task)
    request = run_service_pb2.CreateRunRequest(
        task_id=_task.identifier(key, version), inputs=inputs, run_spec=_spec(context)
    )
    _place(request, context, key)
    answer = await session.unary(
        _CREATE_RUN,
        request,
        run_service_pb2.CreateRunResponse,
        # Tower knows a repetition by its request id; elsewhere it could start a second run.
        deduplicated=session.is_tower,
    )
    chosen = answer.run.action.metadata.task.id.version
    if details is not None and chosen and chosen != details.version:
        _task.kept.drop(key)
    return Run.from_wire(session, answer.run)


def _place(request: run_service_pb2.CreateRunRequest, context: RunContext, key: Any) -> None:
    project, domain = context.project or key.project, context.domain or key.domain
    if context.name is not None:
        request.run_id.org, request.run_id.project = key.org, project
        request.run_id.domain, request.run_id.name = domain, context.name
    else:
        request.project_id.organization, request.project_id.name = key.org, project
        request.project_id.domain = domain


def _spec(context: RunContext) -> Any:
    from flyteidl2.core import literals_pb2
    from flyteidl2.task import run_pb2

    spec = run_pb2.RunSpec(overwrite_cache=context.overwrite_cache)
    for key, value in context.env_vars.items():
        spec.envs.values.append(literals_pb2.KeyValuePair(key=key, value=value))
    for key, value in context.labels.items():
        spec.labels.values[key] = value
    if context.grant is not None:
        spec.annotations.values[GRANT] = f"{context.grant.total_seconds():.0f}"
    if context.interruptible is not None:
        spec.interruptible.value = context.interruptible
    return spec
