"""Triggers on the control plane: what they start, as whom, and when."""

from __future__ import annotations

import asyncio
import datetime as dt
from collections.abc import AsyncIterator, Sequence
from typing import Any

from flyteidl2.common import identifier_pb2, list_pb2
from flyteidl2.task import common_pb2, task_definition_pb2
from flyteidl2.trigger import trigger_definition_pb2 as wire
from flyteidl2.trigger import trigger_service_pb2 as service
from flyteidl2.workflow import run_service_pb2

from flyte._init import current_session
from flyte._syncify import syncify, syncify_class
from flyte.errors import RemoteNotFoundError, RemoteTaskNotFoundError
from flyte.remote._run import Run
from flyte.remote._wire import instant, newest_first, pages, subject
from flyte.transport.session import Session

_SERVICE = "/flyteidl2.trigger.TriggerService/"
_CREATE_RUN = "/flyteidl2.workflow.RunService/CreateRun"
_RUNS = "/flyteidl2.workflow.RunService/ListRuns"
_AT_ONCE = 16
_UNITS = {
    common_pb2.FIXED_RATE_UNIT_MINUTE: "minutes",
    common_pb2.FIXED_RATE_UNIT_HOUR: "hours",
    common_pb2.FIXED_RATE_UNIT_DAY: "days",
}


class Trigger:
    """A trigger that the caller may see, in full. What Tower says of it besides is in labels of its own."""

    def __init__(self, session: Session, details: wire.TriggerDetails) -> None:
        self._session = session
        self.pb2 = details

    @syncify_class
    @classmethod
    async def get(
        cls, name: str, task_name: str, *, project: str | None = None, domain: str | None = None
    ) -> Trigger:
        """One trigger of a task. Raises RemoteNotFoundError when there is none that the caller may see."""
        session = current_session()
        return cls(session, await _details(session, _name(session, name, task_name, project, domain)))

    @syncify_class
    @classmethod
    async def listall(
        cls,
        task_name: str | None = None,
        *,
        project: str | None = None,
        domain: str | None = None,
        limit: int | None = 100,
    ) -> AsyncIterator[Trigger]:
        """The triggers that the caller may see, of one task or of all of a project and domain."""
        session = current_session()
        project, domain = session.scope(project, domain)
        where: dict[str, Any] = {
            "project_id": identifier_pb2.ProjectIdentifier(
                organization=session.org, name=project, domain=domain
            )
        }
        if task_name is not None:
            where = {
                "task_name": task_definition_pb2.TaskName(
                    org=session.org, project=project, domain=domain, name=task_name
                )
            }

        async def fetch(size: int, token: str) -> tuple[Sequence[wire.TriggerDetails], str]:
            sort = list_pb2.Sort(key="name", direction=list_pb2.Sort.ASCENDING)
            request = service.ListTriggersRequest(
                request=list_pb2.ListRequest(limit=min(size, _AT_ONCE), token=token, sort_by=sort), **where
            )
            answer = await session.unary(
                f"{_SERVICE}ListTriggers", request, service.ListTriggersResponse, idempotent=True
            )
            found = await asyncio.gather(*(_details(session, each.id.name) for each in answer.triggers))
            return found, answer.token

        async for each in pages(fetch, limit=limit):
            yield cls(session, each)

    @syncify
    async def activate(self) -> None:
        """Have it start runs of the version that it has, as you from now on."""
        await self._switch(active=True)

    @syncify
    async def deactivate(self) -> None:
        """Have it start nothing."""
        await self._switch(active=False)

    @syncify
    async def pin(self, version: str = "") -> None:
        """Have it run another version, "" for the latest, as you from now on; it becomes active."""
        spec = wire.TriggerSpec()
        spec.CopyFrom(self.pb2.spec)
        spec.task_version, spec.active = version, True
        for label in [each for each in spec.run_spec.labels.values if each.startswith("tower/")]:
            del spec.run_spec.labels.values[label]
        request = service.DeployTriggerRequest(
            name=self.pb2.id.name,
            revision=self.pb2.id.revision,
            spec=spec,
            automation_spec=self.pb2.automation_spec,
        )
        try:
            answer = await self._session.unary(
                f"{_SERVICE}DeployTrigger", request, service.DeployTriggerResponse
            )
        except RemoteNotFoundError as error:
            if not version:
                raise
            # the trigger is there, so its task is: what is missing is the version
            raise RemoteTaskNotFoundError(
                f"There is no version {version} of the task {self.task_name}, or none that you may see.",
                hint=f"`flyte get task {self.task_name}` shows the latest.",
            ) from error
        self.pb2 = answer.trigger

    @syncify
    async def delete(self) -> None:
        """Delete it. Runs that it started stay."""
        await self._session.unary(
            f"{_SERVICE}DeleteTriggers",
            service.DeleteTriggersRequest(names=[self.pb2.id.name]),
            service.DeleteTriggersResponse,
        )

    @syncify
    async def start(self) -> Run:
        """A run of it now, as you and not as its person: same version, inputs and variables."""
        name = self.pb2.id.name
        answer = await self._session.unary(
            _CREATE_RUN,
            run_service_pb2.CreateRunRequest(
                project_id=identifier_pb2.ProjectIdentifier(
                    organization=self._session.org, name=name.project, domain=name.domain
                ),
                trigger_name=name,
            ),
            run_service_pb2.CreateRunResponse,
            deduplicated=self._session.is_tower,
        )
        return Run.from_wire(self._session, answer.run)

    @syncify
    async def runs(self, *, limit: int | None = 100) -> AsyncIterator[Run]:
        """The runs that it started, newest first."""

        async def fetch(size: int, token: str) -> tuple[Sequence[Any], str]:
            request = run_service_pb2.ListRunsRequest(
                request=list_pb2.ListRequest(limit=size, token=token, sort_by=newest_first()),
                trigger_name=self.pb2.id.name,
            )
            answer = await self._session.unary(
                _RUNS, request, run_service_pb2.ListRunsResponse, idempotent=True
            )
            return answer.runs, answer.token

        async for each in pages(fetch, limit=limit):
            yield Run.from_wire(self._session, each)

    @property
    def name(self) -> str:
        """Its name among the triggers of its task."""
        return str(self.pb2.id.name.name)

    @property
    def task_name(self) -> str:
        """The task that it starts."""
        return str(self.pb2.id.name.task_name)

    @property
    def version(self) -> str:
        """The version that it starts, whatever was deployed since."""
        return str(self.pb2.spec.task_version)

    @property
    def revision(self) -> int:
        """Which change made it so."""
        return int(self.pb2.id.revision)

    @property
    def is_active(self) -> bool:
        """Whether it starts runs."""
        return bool(self.pb2.spec.active)

    @property
    def state(self) -> str:
        """`active`, `inactive`, or `suspended`: it was active until a run was refused; `notice` says why."""
        return self._label("state") or ("active" if self.is_active else "inactive")

    @property
    def owner(self) -> str:
        """Whom its runs execute as."""
        return self._label("run-as") or subject(self.pb2.metadata.deployed_by)

    @property
    def notice(self) -> str:
        """What somebody should look at, or ""."""
        return self._label("notice")

    @property
    def schedule(self) -> str:
        """When it is due, in words."""
        automation = self.pb2.automation_spec
        if automation.WhichOneof("automation") != "schedule":
            return "by hand"
        schedule = automation.schedule
        match schedule.WhichOneof("expression"):
            case "rate":
                return f"every {schedule.rate.value} {_UNITS.get(schedule.rate.unit, '')}".strip()
            case "cron":
                return f"{schedule.cron.expression} {schedule.cron.timezone}".strip()
            case _:
                return str(schedule.cron_expression)

    @property
    def next_at(self) -> dt.datetime | None:
        """When it is due next, where the server says so."""
        text = self._label("next-at")
        return dt.datetime.fromisoformat(text) if text else None

    @property
    def last_at(self) -> dt.datetime | None:
        """When the last run was due."""
        return instant(self.pb2.status.triggered_at)

    @property
    def last_run(self) -> str:
        """The name of the last run, or ""."""
        return self._label("last-run")

    @property
    def url(self) -> str:
        """Its page in the console."""
        place = self.pb2.id.name
        return (
            f"{self._session.console_url}/v2/domain/{place.domain}/project/{place.project}"
            f"/triggers/{place.task_name}/{place.name}"
        )

    def to_dict(self) -> dict[str, Any]:
        """What is known of it."""
        return {
            "name": self.name,
            "task": self.task_name,
            "state": self.state,
            "owner": self.owner,
            "version": self.version,
            "schedule": self.schedule,
            "next_at": _iso(self.next_at),
            "last_at": _iso(self.last_at),
            "last_run": self.last_run,
            "notice": self.notice,
            "revision": self.revision,
            "description": str(self.pb2.description),
            "deployed_by": subject(self.pb2.metadata.deployed_by),
            "updated_by": subject(self.pb2.metadata.updated_by),
            "url": self.url,
        }

    def __repr__(self) -> str:
        return f"<Trigger {self.task_name}/{self.name} {self.state}>"

    async def _switch(self, *, active: bool) -> None:
        name = self.pb2.id.name
        await self._session.unary(
            f"{_SERVICE}UpdateTriggers",
            service.UpdateTriggersRequest(names=[name], active=active),
            service.UpdateTriggersResponse,
        )
        self.pb2 = await _details(self._session, name)

    def _label(self, name: str) -> str:
        return str(self.pb2.spec.run_spec.labels.values.get(f"tower/{name}", ""))


def _name(
    session: Session, name: str, task_name: str, project: str | None, domain: str | None
) -> identifier_pb2.TriggerName:
    project, domain = session.scope(project, domain)
    return identifier_pb2.TriggerName(
        org=session.org, project=project, domain=domain, name=name, task_name=task_name
    )


async def _details(session: Session, name: identifier_pb2.TriggerName) -> wire.TriggerDetails:
    answer = await session.unary(
        f"{_SERVICE}GetTriggerDetails",
        service.GetTriggerDetailsRequest(name=name),
        service.GetTriggerDetailsResponse,
        idempotent=True,
    )
    return answer.trigger


def _iso(at: dt.datetime | None) -> str | None:
    return None if at is None else at.isoformat()
