"""ProjectService: translates, decides nothing."""

from __future__ import annotations

import base64
import binascii
import re
from typing import Any

from flyteidl2.project import project_service_pb2 as pb

from tower.control.projects import ProjectRow, Projects
from tower.errors import Invalid
from tower.rpc.caller import current
from tower.settings import DOMAINS

_FILTER = re.compile(r"eq\(\s*state\s*,\s*([01])\s*\)")
_ARCHIVED = {pb.PROJECT_STATE_ARCHIVED, pb.PROJECT_STATE_SYSTEM_ARCHIVED}


class ProjectService:
    """flyteidl2.project.ProjectService."""

    def __init__(self, projects: Projects) -> None:
        self._projects = projects

    async def create_project(self, request: Any, ctx: Any) -> Any:
        """Make a project; its id is its name."""
        call = current()
        await self._projects.create(
            call.principal,
            request.project.id or request.project.name,
            description=request.project.description,
            request_id=call.request_id,
        )
        return pb.CreateProjectResponse()

    async def update_project(self, request: Any, ctx: Any) -> Any:
        """Describe, archive or reopen a project."""
        call = current()
        await self._projects.update(
            call.principal,
            request.project.id,
            description=request.project.description,
            archived=request.project.state in _ARCHIVED,
            request_id=call.request_id,
        )
        return pb.UpdateProjectResponse()

    async def get_project(self, request: Any, ctx: Any) -> Any:
        """One project."""
        call = current()
        row = await self._projects.get(call.principal, request.id, request_id=call.request_id)
        return pb.GetProjectResponse(project=_project(row))

    async def list_projects(self, request: Any, ctx: Any) -> Any:
        """Those that the caller may view, by name; `filters` knows `eq(state, 0)` and `eq(state, 1)` only."""
        states = {0}
        if request.filters:
            states = {_state(part) for part in request.filters.split("+")}
        if len(states) > 1:
            return pb.ListProjectsResponse(projects=pb.Projects())
        rows, after = await self._projects.page(
            current().principal, archived=1 in states, after=_after(request.token), limit=request.limit
        )
        token = base64.urlsafe_b64encode(after.encode()).decode() if after else ""
        return pb.ListProjectsResponse(
            projects=pb.Projects(projects=[_project(row) for row in rows], token=token)
        )


def _project(row: ProjectRow) -> pb.Project:
    archived = row.archived_at is not None
    return pb.Project(
        id=row.name,
        name=row.name,
        description=row.description,
        domains=[pb.Domain(id=domain, name=domain) for domain in DOMAINS],
        state=pb.PROJECT_STATE_ARCHIVED if archived else pb.PROJECT_STATE_ACTIVE,
    )


def _state(expression: str) -> int:
    match = _FILTER.fullmatch(expression.strip())
    if match is None:
        raise Invalid("Projects can be filtered by eq(state, 0) or eq(state, 1).")
    return int(match[1])


def _after(token: str) -> str:
    try:
        return base64.urlsafe_b64decode(token.encode("ascii")).decode()
    except (ValueError, binascii.Error) as error:
        raise Invalid("The page token does not belong to this list.") from error
