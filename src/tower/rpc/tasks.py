"""TaskService: translates, decides nothing."""

from __future__ import annotations

from typing import Any

from flyteidl2.task import task_definition_pb2, task_service_pb2

from tower.control.schedules import Schedules
from tower.control.tasks import TaskRow, Tasks
from tower.errors import Invalid
from tower.rpc.caller import current
from tower.rpc.messages import person, query, stamp
from tower.rpc.triggers import declared_with


class TaskService:
    """flyteidl2.task.TaskService."""

    def __init__(self, tasks: Tasks, schedules: Schedules) -> None:
        self._tasks = tasks
        self._schedules = schedules

    async def deploy_task(self, request: Any, ctx: Any) -> Any:
        """Add a version of a task."""
        call = current()
        task = request.task_id
        key = (task.project, task.domain, task.name)
        checked = []
        if request.triggers:  # before anything is registered: one that cannot be refuses all
            declared = declared_with(request.triggers)
            checked = await self._schedules.check(
                call.principal, key, request.spec, declared, request_id=call.request_id
            )
        await self._tasks.deploy(
            call.principal, key, task.version, spec=request.spec, request_id=call.request_id
        )
        if checked:
            await self._schedules.deploy_all(
                call.principal, key, task.version, checked, request_id=call.request_id
            )
        return task_service_pb2.DeployTaskResponse()

    async def get_task_details(self, request: Any, ctx: Any) -> Any:
        """One version; an empty one is the latest."""
        call = current()
        task = request.task_id
        found = await self._tasks.details(
            call.principal, (task.project, task.domain, task.name), task.version, request_id=call.request_id
        )
        details = task_definition_pb2.TaskDetails(
            task_id=_identifier(found.row), metadata=_metadata(found.row), spec=found.spec
        )
        return task_service_pb2.GetTaskDetailsResponse(details=details)

    async def list_tasks(self, request: Any, ctx: Any) -> Any:
        """The latest version of each task that the caller may view."""
        if any(each.WhichOneof("filter_by") == "deployed_by" for each in request.known_filters):
            raise Invalid("Filter by the field deployed_by instead of a known filter.")
        scope, asked, principal = request.project_id, query(request.request), current().principal
        page = await self._tasks.page(principal, asked, project=scope.name, domain=scope.domain)
        tasks = [
            task_definition_pb2.Task(task_id=_identifier(row), metadata=_metadata(row)) for row in page.rows
        ]
        counts = task_service_pb2.ListTasksResponse.ListTasksMetadata(
            total=page.total, filtered_total=page.left
        )
        return task_service_pb2.ListTasksResponse(tasks=tasks, token=page.token, metadata=counts)

    async def list_versions(self, request: Any, ctx: Any) -> Any:
        """The versions of one task."""
        call = current()
        task = request.task_name
        rows, token = await self._tasks.versions(
            call.principal,
            (task.project, task.domain, task.name),
            query(request.request),
            request_id=call.request_id,
        )
        answer = task_service_pb2.ListVersionsResponse(token=token)
        for row in rows:
            answer.versions.add(
                version=row.version, deployed_at=stamp(row.deployed_at), deployed_by=_deployer(row)
            )
        return answer


def _identifier(row: TaskRow) -> Any:
    return task_definition_pb2.TaskIdentifier(
        project=row.project, domain=row.domain, name=row.name, version=row.version
    )


def _deployer(row: TaskRow) -> Any:
    return person(row.deployed_by, kind=row.deployer_kind, name=row.deployer_name, email=row.deployer_email)


def _metadata(row: TaskRow) -> Any:
    return task_definition_pb2.TaskMetadata(
        deployed_by=_deployer(row),
        short_name=row.short_name,
        deployed_at=stamp(row.deployed_at),
        environment_name=row.environment,
        short_description=row.description,
    )
