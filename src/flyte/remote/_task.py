"""Deployed tasks: a lazy name for one, and the details that a call needs."""

from __future__ import annotations

import collections
import datetime as dt
import functools
import json
import threading
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

from flyteidl2.common import identifier_pb2, list_pb2
from flyteidl2.task import task_definition_pb2 as wire
from flyteidl2.task import task_service_pb2 as service

from flyte import _context
from flyte._init import current_session
from flyte._interface import Interface
from flyte._syncify import syncify, syncify_class
from flyte.errors import (
    RemoteNotFoundError,
    RemoteTaskNotFoundError,
    RemoteTaskUsageError,
    RemoteUsageError,
)
from flyte.remote._wire import equal, instant, newest_first, pages, subject
from flyte.transport.session import Session

_SERVICE = "/flyteidl2.task.TaskService/"
_MAX_KEPT = 2048
_AUTO = ("latest", "current")


class _Key(NamedTuple):
    """What details are kept under. By the fingerprint no caller is shown what another fetched."""

    endpoint: str
    fingerprint: str
    org: str
    project: str
    domain: str
    name: str
    version: str


@dataclass(frozen=True)
class TaskDetails:
    """One version of a task as one caller may see it. A version never changes.

    :ivar pb2: everything that the control plane says.
    """

    pb2: wire.TaskDetails

    @property
    def name(self) -> str:
        """`<environment>.<function>`."""
        return str(self.pb2.task_id.name)

    @property
    def version(self) -> str:
        """The version that this is, even when the latest was asked for."""
        return str(self.pb2.task_id.version)

    @property
    def project(self) -> str:
        """Where it is deployed."""
        return str(self.pb2.task_id.project)

    @property
    def domain(self) -> str:
        """Where it is deployed."""
        return str(self.pb2.task_id.domain)

    @property
    def environment(self) -> str:
        """The name of its environment."""
        return str(self.pb2.spec.environment.name or self.pb2.metadata.environment_name)

    @property
    def deployed_by(self) -> str:
        """The subject of who deployed it."""
        return subject(self.pb2.metadata.deployed_by)

    @property
    def deployed_at(self) -> dt.datetime | None:
        """When it was deployed."""
        return instant(self.pb2.metadata.deployed_at)

    @property
    def image(self) -> str:
        """The image it runs in."""
        return str(self.pb2.spec.task_template.container.image)

    @property
    def privileges(self) -> tuple[str, ...]:
        """What it may do to people, keys, policies and secrets as whom it runs: names of actions."""
        config = self.pb2.spec.task_template.container.config
        found = next((pair.value for pair in config if pair.key == "flyte.privileges"), "[]")
        return tuple(json.loads(found))

    @functools.cached_property
    def interface(self) -> Interface:
        """What it takes and gives."""
        return Interface.from_wire(self.pb2.spec.task_template.interface, self.pb2.spec.default_inputs)


class _Kept:
    """The details fetched lately, least used first."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._entries: collections.OrderedDict[_Key, TaskDetails] = collections.OrderedDict()

    def get(self, key: _Key) -> TaskDetails | None:
        with self._lock:
            details = self._entries.get(key)
            if details is not None:
                self._entries.move_to_end(key)
            return details

    def put(self, key: _Key, details: TaskDetails) -> None:
        with self._lock:
            self._entries[key] = details
            self._entries.move_to_end(key)
            while len(self._entries) > _MAX_KEPT:
                self._entries.popitem(last=False)

    def drop(self, key: _Key) -> None:
        with self._lock:
            self._entries.pop(key, None)

    def clear(self) -> None:
        with self._lock:
            self._entries.clear()


kept = _Kept()


class Task:
    """A name for a deployed task. Making one asks nothing of the control plane and needs no session.

    :ivar name: `<environment>.<function>`.
    :ivar project: None is the default of the session that uses it.
    :ivar domain: None is the default of the session that uses it.
    :ivar version: the version it is pinned to, None for the latest.
    """

    def __init__(
        self, name: str, *, project: str | None = None, domain: str | None = None, version: str | None = None
    ) -> None:
        self.name = name
        self.project = project or None
        self.domain = domain or None
        self.version = version or None
        self.pb2: wire.Task | None = None

    @classmethod
    def get(
        cls,
        name: str,
        project: str | None = None,
        domain: str | None = None,
        version: str | None = None,
        auto_version: str | None = None,
    ) -> Task:
        """Name a task. Does no I/O; whether it exists shows when it is used.

        :param name: `<environment>.<function>`.
        :param project: None is the session's default.
        :param domain: None is the session's default.
        :param version: pins a version. Without it the latest is meant, at each use anew.
        :param auto_version: `"latest"`, or `"current"` for the version of the task that this code runs in.
        :raises ValueError: both are given, `auto_version` is another word, or "current" outside of a task.
        """
        if not isinstance(name, str) or not name:
            raise ValueError("A task has a name.")
        if auto_version is not None and auto_version not in _AUTO:
            raise ValueError(f"auto_version is one of {', '.join(_AUTO)}.")
        if auto_version is not None and version:
            raise ValueError("Give version or auto_version, not both.")
        if auto_version == "current":
            context = _context.task()
            if context is None or not context.version:
                raise ValueError('auto_version="current" has a meaning inside of a task only.')
            version = context.version
        return cls(name, project=project, domain=domain, version=version)

    @syncify
    async def fetch(self) -> TaskDetails:
        """The details, as the caller of this moment may see them. Always asks the control plane.

        Raises RemoteTaskNotFoundError when there is no such task or version, or none that the caller may see.
        """
        return await fetch(current_session(), self)

    @syncify_class
    @classmethod
    async def listall(
        cls,
        by_task_name: str | None = None,
        by_task_env: str | None = None,
        *,
        project: str | None = None,
        domain: str | None = None,
        limit: int | None = 100,
    ) -> AsyncIterator[Task]:
        """The tasks that the caller may see, each in its latest version, newest first."""
        session = current_session()
        project, domain = session.scope(project, domain)
        filters = [equal("name", by_task_name)] if by_task_name else []
        if by_task_env:
            filters.append(
                list_pb2.Filter(function=list_pb2.Filter.CONTAINS, field="name", values=[f"{by_task_env}."])
            )

        async def fetch_page(size: int, token: str) -> tuple[Sequence[wire.Task], str]:
            answer = await _list(session, project, domain, filters, size=size, token=token)
            return answer.tasks, answer.token

        async for each in pages(fetch_page, limit=limit):
            task = cls(
                each.task_id.name,
                project=each.task_id.project,
                domain=each.task_id.domain,
                version=each.task_id.version,
            )
            task.pb2 = each
            yield task

    def to_dict(self) -> dict[str, Any]:
        """What is known without asking."""
        listed = self.pb2.metadata if self.pb2 is not None else None
        deployed_at = instant(listed.deployed_at) if listed is not None else None
        return {
            "name": self.name,
            "project": self.project,
            "domain": self.domain,
            "version": self.version,
            "deployed_by": subject(listed.deployed_by) if listed is not None else "",
            "deployed_at": deployed_at.isoformat() if deployed_at is not None else None,
        }

    def __call__(self, *args: Any, **inputs: Any) -> Any:
        """Inside a task: run it as a sub-run and give its result. Elsewhere use `flyte.run`."""
        context = _context.task()
        if context is None or context.submitter is None:
            raise RemoteTaskUsageError(
                f"{self.name} is deployed elsewhere and cannot be called as a function here.",
                hint="Use flyte.run(task, ...).",
            )
        if args:
            raise positional(self.name)
        return context.submitter.submit(self, args, inputs)

    def __repr__(self) -> str:
        return f"<Task {self.project or '*'}/{self.domain or '*'}/{self.name} {self.version or 'latest'}>"


def positional(name: str) -> RemoteTaskUsageError:
    """The refusal of inputs by position: their order is not part of a deployed task's contract."""
    return RemoteTaskUsageError(
        f"{name} is a deployed task; its inputs are passed by name.", hint="Write flyte.run(task, x=1)."
    )


def key_of(session: Session, task: Task, *, version: str | None = None) -> _Key:
    """What the details of a task are kept under. Raises UnauthenticatedError when there is no caller."""
    project, domain = session.scope(task.project, task.domain)
    return _Key(
        session.endpoint.url,
        session.fingerprint(),
        session.org,
        project,
        domain,
        task.name,
        (task.version or "") if version is None else version,
    )


async def details(session: Session, task: Task) -> TaskDetails:
    """The details, from memory where this caller has fetched them before.

    Of a server that resolves the latest version by itself those of "the latest" may be out of date: it checks
    every run against the version that it chooses.
    """
    known = kept.get(key_of(session, task)) if task.version or session.is_tower else None
    return known if known is not None else await fetch(session, task)


async def fetch(session: Session, task: Task) -> TaskDetails:
    """Ask for the details, and keep them for this caller. Raises RemoteTaskNotFoundError."""
    key = key_of(session, task)
    try:
        if key.version:
            fetched = await _details(session, key, key.version)
        else:
            fetched = await _latest(session, key)
    except RemoteNotFoundError as error:
        kept.drop(key)
        raise not_found(key, error) from error
    kept.put(key, fetched)
    return fetched


async def _latest(session: Session, key: _Key) -> TaskDetails:
    """Tower answers for the version "", which is the latest. Others are asked for a list first."""
    if session.is_tower or not session.has_answered:
        try:
            return await _details(session, key, "")
        except (RemoteNotFoundError, RemoteUsageError):
            if session.is_tower:
                raise
    answer = await _list(session, key.project, key.domain, [equal("name", key.name)], size=1)
    if not answer.tasks:
        raise RemoteNotFoundError("No version is deployed.")
    version = str(answer.tasks[0].task_id.version)
    pinned = key._replace(version=version)
    known = kept.get(pinned)
    if known is None:
        known = await _details(session, key, version)
        kept.put(pinned, known)
    return known


async def _details(session: Session, key: _Key, version: str) -> TaskDetails:
    request = service.GetTaskDetailsRequest(task_id=identifier(key, version))
    answer = await session.unary(
        f"{_SERVICE}GetTaskDetails", request, service.GetTaskDetailsResponse, idempotent=True
    )
    return TaskDetails(answer.details)


def identifier(key: _Key, version: str) -> wire.TaskIdentifier:
    """The task on the wire."""
    return wire.TaskIdentifier(
        org=key.org, project=key.project, domain=key.domain, name=key.name, version=version
    )


def not_found(key: _Key, cause: RemoteNotFoundError) -> RemoteTaskNotFoundError:
    """One text for an absent task and for one that is hidden from the caller."""
    version = f" in version {key.version}" if key.version else ""
    return RemoteTaskNotFoundError(
        f"There is no task {key.name}{version} in {key.project}/{key.domain}, or none that you may see.",
        code=cause.code,
        hint="A task is named <environment>.<function>; check project and domain, too.",
    )


async def _list(
    session: Session,
    project: str,
    domain: str,
    filters: Sequence[list_pb2.Filter],
    *,
    size: int,
    token: str = "",
) -> service.ListTasksResponse:
    request = service.ListTasksRequest(
        request=list_pb2.ListRequest(limit=size, token=token, sort_by=newest_first(), filters=filters),
        project_id=identifier_pb2.ProjectIdentifier(organization=session.org, name=project, domain=domain),
    )
    return await session.unary(f"{_SERVICE}ListTasks", request, service.ListTasksResponse, idempotent=True)
